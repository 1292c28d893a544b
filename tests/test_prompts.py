"""Prompt files and their splits."""

import csv
import re
from pathlib import Path

import pandas as pd
import pytest
from tiny_pictures import SUBJECTS

from flowtailor.datasets.pictures import Pictures
from flowtailor.datasets.prompts import (
    SPLITS,
    STUDIO_PROMPTS,
    choose_prompts,
    labelled,
    load_prompts,
    split_of,
)
from flowtailor.datasets.studio_prompts import read_scenes, write_prompts
from flowtailor.errors import FlowtailorError


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_the_shipped_prompts_are_enough_for_every_split():
    prompts = load_prompts()
    assert len(prompts) >= 110
    assert len({p.text for p in prompts}) == len(prompts)
    assert all(p.category for p in prompts)
    counts = {split: sum(p.split == split for p in prompts) for split in ("train", "validation", "test")}
    assert counts["train"] >= 60
    assert counts["validation"] >= 10
    assert counts["test"] >= 16


def test_a_split_belongs_to_the_text_not_to_the_file(tmp_path: Path):
    two = load_prompts(write(tmp_path / "a.csv", "text,category\na red apple,food\na fox,animals\n"))
    one = load_prompts(write(tmp_path / "b.csv", "category,text\nother,a fox\n"))
    assert {p.text: p.split for p in two}["a fox"] == one[0].split == split_of("a fox")


def test_prompts_about_one_name_share_its_split(tmp_path: Path):
    names = [f"thing {i}" for i in range(40)]
    lines = [f"{form} {name},things,{name}" for name in names for form in ("a", "a picture of a", "two")]
    prompts = load_prompts(write(tmp_path / "p.csv", "text,category,name\n" + "\n".join(lines)))
    assert all({p.split for p in prompts[i : i + 3]} == {split_of(names[i // 3])} for i in range(0, 120, 3))
    assert {p.split for p in prompts} == set(SPLITS)


def test_rows_take_the_labels_that_their_prompts_have_now(tmp_path: Path):
    """A file that got names moves prompts to other splits; rows must not be learned from by their old one."""
    named = load_prompts(write(tmp_path / "p.csv", "text,category,name,style\na fox,animals,vulpes,line\n"))
    old = pd.DataFrame(
        {"prompt": ["a fox", "gone"], "prompt_split": ["other", "train"], "category": ["x", "food"]}
    )
    rows = labelled(old, named)
    assert rows["prompt_split"].tolist() == [split_of("vulpes"), "train"]
    assert rows["category"].tolist() == ["animals", "food"]
    assert rows["style"].tolist() == ["line", ""]


def test_the_studio_captions_hold_out_names():
    prompts = load_prompts()
    with STUDIO_PROMPTS.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(prompts) == len(rows) >= 1000
    assert sum(p.split == "test" for p in prompts) >= 150
    for prompt, row in zip(prompts, rows, strict=True):
        assert prompt.split == split_of(row["name"])
    share = {
        "styles": sum(row["style"] != "3d" for row in rows) / len(rows),
        "backgrounds": sum("background" in row["text"] for row in rows) / len(rows),
        "not the bare name": sum(row["text"] not in (row["name"], f"a {row['name']}") for row in rows)
        / len(rows),
    }
    assert 0.4 < share["styles"] < 0.5
    assert 0.05 < share["backgrounds"] < 0.11
    assert share["not the bare name"] > 0.5
    wrong = re.compile(r"\ba (?=[aeio])(?!one-|eu|ewe)|\ban (?![aeiou8]|hour|x-ray|suv)")
    assert [row["text"] for row in rows if wrong.search(row["text"])] == []


def test_prompts_are_written_the_same_again(pictures: Pictures, tmp_path: Path):
    for name in ("a.csv", "b.csv"):
        write_prompts(pictures, tmp_path / name, prompts=80, styled=20)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    prompts = load_prompts(tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert 90 <= len(prompts) <= 100
    assert len({row["name"] for row in rows}) == SUBJECTS


def test_the_scene_of_a_prompt_is_read_again(pictures: Pictures, tmp_path: Path):
    write_prompts(pictures, tmp_path / "p.csv", prompts=80, styled=20)
    scenes = read_scenes(pictures, tmp_path / "p.csv")
    assert [*scenes] == [prompt.text for prompt in load_prompts(tmp_path / "p.csv")]
    for text, scene in scenes.items():
        assert (scene.background is not None) == ("background" in text)
        assert scene.colour is None or scene.colour in text
        assert scene.count == 1 or ("two", "three")[scene.count - 2] in text


def test_texts_are_cleaned_and_kept_once(tmp_path: Path):
    prompts = load_prompts(
        write(tmp_path / "p.csv", 'text,category\n" a  fox ",animals\na fox,again\n,empty\n')
    )
    assert [(p.text, p.category) for p in prompts] == [("a fox", "animals")]


def test_a_file_that_excel_saved_is_read(tmp_path: Path):
    (tmp_path / "p.csv").write_text("text,category\na fox,animals\n", encoding="utf-8-sig")
    assert [p.text for p in load_prompts(tmp_path / "p.csv")] == ["a fox"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("text,category\n", "holds no prompts"),
        ("prompt\nx\n", "no column category and text"),
        ("", "no column"),
        (
            "text,category\na fox,animals\na red apple, on a table,food\n",
            r"p\.csv, line 3 \(a red apple,\.\.\.\): more values than columns; put the text in quotes",
        ),
        ("text,category\n" + "x" * 200_000 + ",long\n", r"p\.csv: cannot be read .*field limit"),
    ],
)
def test_a_useless_file_is_named_with_the_remedy(tmp_path: Path, content: str, said: str):
    with pytest.raises(FlowtailorError, match=said):
        load_prompts(write(tmp_path / "p.csv", content))


def test_a_missing_file_is_named():
    with pytest.raises(FlowtailorError, match=r"nowhere\.csv"):
        load_prompts("nowhere.csv")


def test_choosing_fewer_prompts_chooses_among_the_same():
    prompts = load_prompts()
    few = choose_prompts(prompts, {"train": 5, "test": 3})
    many = choose_prompts(prompts, {"train": 20, "test": 3})
    assert len(few) == 8
    assert set(few) <= set(many)


def test_an_empty_split_is_refused(tmp_path: Path):
    prompts = load_prompts(write(tmp_path / "p.csv", "text,category\na fox,animals\n"))
    wanted = {"train": 1, "validation": 1, "test": 1}
    with pytest.raises(FlowtailorError, match="none of the 1 prompts"):
        choose_prompts(prompts, wanted)


def test_asking_for_no_prompts_at_all_is_refused():
    with pytest.raises(FlowtailorError, match=r"set prompts\.train"):
        choose_prompts(load_prompts(), {"train": 0, "test": 0})
