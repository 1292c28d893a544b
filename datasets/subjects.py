"""Which emoji become subjects, under which name and in which category.

`select` keeps what a person can name at sight and tell from all others: no flags of countries,
signs or arrows, one of each family of near twins (coloured hearts, globes, men and women who do
the same), nothing that takes three words to name, and puts a natural noun phrase in the place of
labels such as "tennis" or "locked".
`prompts/subjects.csv` is the table for that: label, name (- leaves the emoji out), other names.
It was made by eye on Fluent's 3D pictures; another set may show something else.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Subject:
    """Something to be drawn: `name` is a lower-case noun phrase without article, such as "red apple"."""

    name: str
    category: str
    codepoint: str  # as emojibase writes it, in lower case
    words: tuple[str, ...]  # emojibase's tags
    others: tuple[str, ...] = ()  # further names that mean the same picture


TABLE = Path(__file__).parent / "prompts" / "subjects.csv"


# By emojibase's subgroup; a trailing * stands for the rest of the name. What matches nothing is left out.
CATEGORIES = {
    "face-*": "faces",
    "cat-face": "faces",
    "monkey-face": "faces",
    "heart": "objects",
    "emotion": "objects",
    "hand*": "people",
    "body-parts": "people",
    "person": "people",
    "person-gesture": "people",
    "person-role": "people",
    "person-fantasy": "people",
    "person-activity": "people",
    "person-sport": "people",
    "person-resting": "people",
    "animal-*": "animals",
    "plant-*": "plants",
    "food-*": "food",
    "drink": "food",
    "dishware": "objects",
    "place-*": "places",
    "sky-weather": "places",
    "transport-ground": "vehicles",
    "transport-water": "vehicles",
    "transport-air": "vehicles",
    "hotel": "objects",
    "time": "objects",
    "event": "activities",
    "award-medal": "activities",
    "sport": "activities",
    "game": "activities",
    "arts-crafts": "activities",
    "clothing": "clothing",
    "sound": "objects",
    "music": "objects",
    "musical-instrument": "objects",
    "phone": "objects",
    "computer": "objects",
    "light-video": "objects",
    "book-paper": "objects",
    "money": "objects",
    "mail": "objects",
    "writing": "objects",
    "office": "objects",
    "lock": "objects",
    "tool": "objects",
    "science": "objects",
    "medical": "objects",
    "household": "objects",
    "other-object": "objects",
    "flag": "objects",
}

# What the table leaves out, and these: mirrored twins, 24 clock faces, hair of nobody in particular.
_LEFT_OUT_ENDINGS = (": facing right", "o’clock", "-thirty")
_LEFT_OUT_BEGINNINGS = ("person: ",)
_MALE, _FEMALE = 1, 0


def select(entries: Iterable[dict[str, Any]], subgroups: dict[int, str]) -> list[Subject]:
    """The subjects of emojibase's data, in its order, each name once."""
    families: dict[str, list[dict[str, Any]]] = {}
    for entry in sorted((e for e in entries if "group" in e), key=lambda e: e["order"]):
        subgroup = subgroups[entry["subgroup"]]
        if _category(subgroup) and not _left_out(entry["label"]):
            families.setdefault(_family(entry, subgroup), []).append(entry)
    chosen: dict[str, Subject] = {}
    for family, members in families.items():
        entry = _one_of(family, members)
        subject = Subject(
            name=natural_name(entry["label"]),
            category=_category(subgroups[entry["subgroup"]]),
            codepoint=entry["hexcode"].lower(),
            words=tuple(entry.get("tags", ())),
            others=_table().get(entry["label"], ("", ()))[1],
        )
        if _short(subject.name):
            chosen.setdefault(subject.name, subject)
    return list(chosen.values())


def _short(name: str) -> bool:
    """What two words name, if they are not about somebody doing something, looks like little else."""
    words = name.split()
    return len(words) == 1 or (len(words) == 2 and words[0] not in ("woman", "man", "person", "deaf"))


def natural_name(label: str) -> str:
    """A label as a noun phrase: "person: red hair" becomes "person with red hair"."""
    name = _table().get(label, (label, ()))[0].replace("’", "'")
    who, colon, what = name.partition(": ")
    if colon:
        name = f"{who} with {'a ' if what == 'beard' else ''}{what}"
    return " ".join(name.lower().replace("“", "").replace("”", "").split())


@cache
def _table() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Name and other names by label."""
    with TABLE.open(newline="", encoding="utf-8") as stream:
        return {
            row["label"]: (row["name"], tuple(filter(None, row["other_names"].split("|"))))
            for row in csv.DictReader(stream)
        }


def _left_out(label: str) -> bool:
    told = _table().get(label, ("", ()))[0] == "-"
    return told or label.endswith(_LEFT_OUT_ENDINGS) or label.startswith(_LEFT_OUT_BEGINNINGS)


def _category(subgroup: str) -> str:
    for pattern, category in CATEGORIES.items():
        if subgroup == pattern or (pattern.endswith("*") and subgroup.startswith(pattern[:-1])):
            return category
    return ""


def _family(entry: dict[str, Any], subgroup: str) -> str:
    """The same for the man, the woman and the person who do one thing; else the code point itself."""
    code = entry["hexcode"].upper()
    if subgroup == "person" or not subgroup.startswith("person-"):
        return code
    parts = [part for part in code.split("-") if part not in ("2640", "2642", "FE0F")]
    if parts[0] in ("1F468", "1F469", "1F9D1"):
        parts[0] = "1F9D1"
    while parts[-1] == "200D":
        parts.pop()
    return "-".join(parts)


def _one_of(family: str, members: list[dict[str, Any]]) -> dict[str, Any]:
    """Of near twins the neutral one; where it would be named "person ...", the man or the woman."""
    neutral = [e for e in members if "gender" not in e]
    if neutral and not neutral[0]["label"].startswith(("person", "people", "deaf person")):
        return neutral[0]
    wanted = (_FEMALE, _MALE)[hashlib.sha256(family.encode()).digest()[0] % 2]
    gendered = [e for e in members if e.get("gender") == wanted]
    return (gendered or members)[0]
