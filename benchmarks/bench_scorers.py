"""What the scorers tell apart, and how long they take.

Share of the pairs in which the scorer is right, on the 40 real pictures and the renders in
tests/data: real above degraded (at the levels 0.5 and 0.8 of models/degrade.py), real at least equal
to itself after a trick, right prompt above wrong. Milliseconds a picture are CPU time on one thread,
in batches of 8, with prompts that were read before.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from flowtailor.markdown import markdown_table
from flowtailor.models.degrade import FAULTS_A, TRICKS, degrade, with_text
from flowtailor.models.scorers import Scorer, load_scorer

DATA = Path(__file__).parents[1] / "tests" / "data"
SIDE = 128
NAMES = ["alignment", "fidelity", "sharpness", "held_out_alignment"]
Pictures = list[np.ndarray]


def main() -> None:
    torch.set_num_threads(1)
    columns = [measured(load_scorer(name, evaluation=True)) for name in NAMES]
    rows = [[row, *(column[row] for column in columns)] for row in columns[0]]
    print(markdown_table(["", *(f"`{name}`" for name in NAMES)], rows, "lr"))


def measured(scorer: Scorer) -> dict[str, str]:
    """The rows of one scorer's column."""
    pictures = tiles(DATA / "real_pictures.webp")
    captions = json.loads((DATA / "real_pictures.json").read_text())
    right, wrong = ([caption[key] for caption in captions] for key in ("right", "wrong"))
    real = scores(scorer, pictures, right)
    rows = {"score of real pictures": f"{real.mean():.2f} ± {real.std():.2f}"}
    for kind in FAULTS_A:
        worse = [scores(scorer, changed(pictures, kind, level), right) for level in (0.5, 0.8)]
        rows[f"real above {kind}"] = share([real > one for one in worse])
    for kind in TRICKS:
        tricked = scores(scorer, changed(pictures, kind, 0.6), right)
        rows[f"not raised by {kind}"] = share(real + 1e-3 >= tricked)
    letters = [
        with_text(np.full_like(picture, 245), text, np.random.default_rng(0))
        for picture, text in zip(pictures, right, strict=True)
    ]
    rows["real above the prompt in letters"] = share(real > scores(scorer, letters, right))
    rows["right prompt above a wrong one like it"] = share(real > scores(scorer, pictures, wrong))
    prompts, renders = json.loads((DATA / "renders.json").read_text()), tiles(DATA / "renders.webp")
    few, many = (scores(scorer, part, prompts) for part in (renders[: len(prompts)], renders[len(prompts) :]))
    rows["20 steps above 3"] = share(many > few)
    rows["ms a picture"] = f"{milliseconds(scorer, pictures, right):.1f}"
    return rows


def tiles(file: Path) -> Pictures:
    sheet = np.asarray(Image.open(file).convert("RGB"))
    rows, columns = sheet.shape[0] // SIDE, sheet.shape[1] // SIDE
    return [*sheet.reshape(rows, SIDE, columns, SIDE, 3).swapaxes(1, 2).reshape(-1, SIDE, SIDE, 3)]


def changed(pictures: Pictures, kind: str, level: float) -> Pictures:
    return [degrade(picture, kind, level, np.random.default_rng(i)) for i, picture in enumerate(pictures)]


def scores(scorer: Scorer, pictures: Sequence[np.ndarray], prompts: list[str]) -> np.ndarray:
    return np.array(scorer.score([Image.fromarray(picture) for picture in pictures], prompts))


def share(right: np.ndarray | list[np.ndarray]) -> str:
    return f"{np.mean(right):.0%}"


def milliseconds(scorer: Scorer, pictures: Pictures, prompts: list[str]) -> float:
    started = time.process_time()
    for start in range(0, len(pictures), 8):
        scores(scorer, pictures[start : start + 8], prompts[start : start + 8])
    return (time.process_time() - started) / len(pictures) * 1000


if __name__ == "__main__":
    main()
