"""The studio's prompt file: writes it from the subjects, and reads which scene each prompt asks for.

The file that ships was written by `write_prompts(load_pictures(ROOT), FILE)`. That is not repeated in the
tests, because the pictures must be fetched for it: which subject can be recoloured is seen on its picture.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from .phrasing import countable
from .pictures import STYLES, Pictures
from .prompts import STUDIO_PROMPTS
from .recolour import COLOURS
from .scenes import Scene, caption, fitting_background, recolourable

COLUMNS = ("text", "category", "name", "style", "count", "colour", "background")
STYLED_SHARE, COLOURED_SHARE, COUNTED_SHARE, BACKED_SHARE = 0.15, 0.08, 0.05, 0.08
_OTHER_STYLES = [style for style in STYLES if style != "3d"]
_TRIES = 40  # wordings that are tried before a prompt that is there already is given up


def write_prompts(
    pictures: Pictures, path: Path, *, prompts: int = 1300, styled: int = 700, seed: int = 0
) -> None:
    """Write about `prompts` captions, each text once; every subject has one if there is room.

    `styled` more ask for a style, so that nearly half of all do: what suits a prompt is then more than what
    suits its subject.
    """
    rng = np.random.default_rng(seed)
    rows: dict[str, tuple[str | int | None, ...]] = {}
    for scene in chain(_scenes(pictures, prompts, rng), _styled(pictures, styled, rng)):
        subject = pictures.subjects[scene.subject]
        for _ in range(_TRIES):
            text = caption(pictures, scene, rng)
            if text not in rows:
                facts = (scene.style, scene.count, scene.colour, scene.background)
                rows[text] = (text, subject.category, subject.name, *facts)
                break
    ordered = sorted(rows.values(), key=lambda row: (row[1], row[2], row[0]))
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(ordered)


def read_scenes(pictures: Pictures, path: Path = STUDIO_PROMPTS) -> dict[str, Scene]:
    """Prompt -> the scene that it asks for, so that the real picture of it can be drawn."""
    index = {subject.name: i for i, subject in enumerate(pictures.subjects)}
    with path.open(newline="", encoding="utf-8") as stream:
        return {
            row["text"]: Scene(
                index[row["name"]],
                row["style"],
                int(row["count"]),
                row["colour"] or None,
                row["background"] or None,
            )
            for row in csv.DictReader(stream)
        }


def _scenes(pictures: Pictures, prompts: int, rng: np.random.Generator) -> Iterator[Scene]:
    """Scenes with one thing special each, then plain ones, first of those that had no turn yet."""
    everything = range(len(pictures.subjects))
    seen: set[int] = set()

    def some(share: float, fits: Callable[[int], bool] = lambda index: True) -> list[int]:
        fitting = [index for index in everything if fits(index)]
        chosen = rng.permutation(fitting)[: round(share * prompts)].tolist()
        seen.update(chosen)
        return chosen

    for index in some(STYLED_SHARE):
        yield Scene(index, str(rng.choice(_OTHER_STYLES)))
    for index in some(COLOURED_SHARE, lambda i: recolourable(pictures, i, "3d")):
        yield Scene(index, "3d", colour=str(rng.choice(list(COLOURS))))
    for index in some(COUNTED_SHARE, lambda i: countable(pictures.subjects[i])):
        yield Scene(index, "3d", count=int(rng.choice([2, 3])))
    for index in some(BACKED_SHARE):
        yield Scene(index, "3d", background=fitting_background(pictures, index, "3d", None, rng))
    plain = prompts - round((STYLED_SHARE + COLOURED_SHARE + COUNTED_SHARE + BACKED_SHARE) * prompts)
    order = rng.permutation(len(pictures.subjects)).tolist()
    order.sort(key=lambda index: index in seen)
    for place in range(plain):
        yield Scene(order[place % len(order)], "3d")


def _styled(pictures: Pictures, count: int, rng: np.random.Generator) -> Iterator[Scene]:
    for index in rng.permutation(len(pictures.subjects))[:count].tolist():
        yield Scene(index, str(rng.choice(_OTHER_STYLES)))
