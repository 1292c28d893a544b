"""The dataset card: a person reads what is there, and Hugging Face's library reads the rows."""

from __future__ import annotations

from pathlib import Path

import datasets
import yaml
from tiny_rows import tiny_rows

from flowtailor.datasets.card import dataset_card
from flowtailor.datasets.shipped import SHIPPED
from flowtailor.datasets.store import Store
from flowtailor.workflows.space import Space


def test_the_folder_is_a_dataset_of_hugging_face(tmp_path: Path, space: Space) -> None:
    rows = tiny_rows(space).assign(engine="comfyui-0.3.75")
    store = Store(tmp_path / "dataset")
    store.append(rows)
    (tmp_path / "dataset/README.md").write_text(dataset_card(store.rows(), name="tiny", license="mit"))
    read = datasets.load_dataset(str(tmp_path / "dataset"), split="train", cache_dir=str(tmp_path / "cache"))
    assert isinstance(read, datasets.Dataset)
    assert set(read["row_id"]) == set(rows["row_id"])


def test_the_card_that_ships_is_one_of_hugging_face() -> None:
    _, front_matter, _ = (SHIPPED / "README.md").read_text().split("---\n", 2)
    told = yaml.safe_load(front_matter)
    assert told["license"] == "mit"
    [part] = told["configs"]
    assert (SHIPPED / part["data_files"]).is_file()


def test_the_card_says_what_is_there(space: Space) -> None:
    rows = tiny_rows(space).assign(engine="comfyui-0.3.75", catalog_hash="c", workflow_key="w")
    rows["category"] = rows["prompt"].map(lambda prompt: "food" if prompt == "a taco" else "other")
    rows["image"] = [None, *(f"images/{i}.png" for i in range(1, len(rows)))]  # the first was taken over
    card = dataset_card(rows, name="tiny", license="other", facts={"Noise": "unknown"})
    assert f"| Rows | {len(rows)} ({len(rows) - 1} with a picture, 0 failed) |" in card
    assert card.startswith("---\nlicense: other\n")
    assert "| Noise | unknown |" in card
    for category, count in rows["category"].value_counts().items():
        assert f"| {category} | {count} |" in card
