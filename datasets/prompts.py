"""Prompts with a category and a split that never changes.

A prompt file is CSV with the columns `text` and `category`, `name` where several prompts are about one
thing, and `style` where it says how that should look. The split is decided by the name, or by the text
where there is no name, so that a prompt keeps its split when the file grows, is reordered or is joined
with another one, and no name is in two splits.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flowtailor.errors import FlowtailorError

from .rows import share

if TYPE_CHECKING:  # pandas, which a prompt file does without
    import pandas as pd

STUDIO_PROMPTS = Path(__file__).parent / "prompts" / "studio.csv"
SPLITS = ("train", "validation", "test")
_VALIDATION_FROM, _TEST_FROM = 0.68, 0.80


@dataclass(frozen=True)
class Prompt:
    """What a person asks for; `category` groups prompts for balance and for retrieval."""

    text: str
    category: str
    split: str  # one of SPLITS
    style: str = ""  # how it should look
    name: str = ""  # of what it shows; prompts of one name are alike, and in one split


def split_of(name: str) -> str:
    """The split of a prompt: 68% train, 12% validation, 20% test, by hash of its name or text."""
    position = share(name, "prompt")
    return SPLITS[(position >= _VALIDATION_FROM) + (position >= _TEST_FROM)]


def prompt_file(path: str | Path | None) -> Path:
    """The file that prompts are read from: the studio's captions where none is named."""
    return STUDIO_PROMPTS if path is None else Path(path)


def load_prompts(path: str | Path | None = None) -> list[Prompt]:
    """Read a prompt file (None: the studio's captions), each text once, in the file's order.

    Raises FlowtailorError where the file is missing, empty, neither UTF-8 nor CSV, or lacks its columns, and
    where a line has more values than there are columns: a text with commas would be cut at the first.
    """
    file = prompt_file(path)
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:  # Excel puts a mark before the text
            reader = csv.DictReader(stream)
            missing = {"text", "category"} - set(reader.fieldnames or ())
            records = [] if missing else [(reader.line_num, record) for record in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FlowtailorError(f"{file}: cannot be read as a prompt file ({error})") from None
    if missing:
        names = " and ".join(sorted(missing))
        raise FlowtailorError(f"{file}: no column {names}; the first line must read text,category")
    prompts: dict[str, Prompt] = {}
    for line, record in records:
        if None in record:
            where = f"{file}, line {line} ({record['text']},...)"
            raise FlowtailorError(f"{where}: more values than columns; put the text in quotes")
        text = " ".join((record["text"] or "").split())
        if text:
            category, style, name = ((record.get(key) or "").strip() for key in ("category", "style", "name"))
            prompts.setdefault(text, Prompt(text, category, split_of(name or text), style, name))
    if not prompts:
        raise FlowtailorError(f"{file}: holds no prompts; add at least one line text,category")
    return list(prompts.values())


def training_prompts(path: str | Path | None) -> list[Prompt]:
    """All training prompts of a prompt file; errors as in `load_prompts`."""
    return [prompt for prompt in load_prompts(path) if prompt.split == "train"]


def choose_prompts(prompts: list[Prompt], counts: dict[str, int]) -> list[Prompt]:
    """The first `counts[split]` prompts of each split, by a fixed shuffle that growth keeps.

    Fewer are returned where a split holds fewer. Raises FlowtailorError where a split that was
    asked for holds none, or nothing was asked for.
    """
    chosen: list[Prompt] = []
    for split, count in counts.items():
        pool = sorted((p for p in prompts if p.split == split), key=lambda p: share(p.text, "choose"))
        if count > 0 and not pool:
            raise FlowtailorError(
                f"prompts.{split} = {count}: none of the {len(prompts)} prompts falls in that split; "
                "add prompts (splits go by hash of name or text) or set it to 0"
            )
        chosen += pool[:count]
    if not chosen:
        raise FlowtailorError("prompts: no split has a count above 0; set prompts.train, for example")
    return chosen


def labelled(rows: pd.DataFrame, prompts: Iterable[Prompt]) -> pd.DataFrame:
    """Rows with the split, category and style that their prompts have now.

    A row keeps what it was collected with, and a prompt file may have got names or other categories since:
    by its old split a test prompt would be learned from. Texts that are no longer in the file keep what the
    row says, and have no style.
    """
    known = {prompt.text: prompt for prompt in prompts}
    told = [known.get(text) for text in rows["prompt"]]
    return rows.assign(
        prompt_split=[p.split if p else old for p, old in zip(told, rows["prompt_split"], strict=True)],
        category=[p.category if p else old for p, old in zip(told, rows["category"], strict=True)],
        style=[p.style if p else "" for p in told],
    )
