"""Prompt files and their splits."""

from pathlib import Path

import pytest

from flowtailor.datasets.prompts import choose, load_prompts, split_of
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


def test_texts_are_cleaned_and_kept_once(tmp_path: Path):
    prompts = load_prompts(
        write(tmp_path / "p.csv", 'text,category\n" a  fox ",animals\na fox,again\n,empty\n')
    )
    assert [(p.text, p.category) for p in prompts] == [("a fox", "animals")]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("text,category\n", "holds no prompts"),
        ("prompt\nx\n", "no column category and text"),
        ("", "no column"),
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
    few = choose(prompts, {"train": 5, "test": 3})
    many = choose(prompts, {"train": 20, "test": 3})
    assert len(few) == 8
    assert set(few) <= set(many)


def test_an_empty_split_is_refused(tmp_path: Path):
    prompts = load_prompts(write(tmp_path / "p.csv", "text,category\na fox,animals\n"))
    wanted = {"train": 1, "validation": 1, "test": 1}
    with pytest.raises(FlowtailorError, match="none of the 1 prompts"):
        choose(prompts, wanted)


def test_asking_for_no_prompts_at_all_is_refused():
    with pytest.raises(FlowtailorError, match=r"set prompts\.train"):
        choose(load_prompts(), {"train": 0, "test": 0})
