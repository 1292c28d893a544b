"""Two dozen made-up subjects (discs, boxes, stripes) in the four styles, for tests that train on pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flowtailor.datasets.pictures import SIDE, STYLES, Pictures, pixelate
from flowtailor.datasets.subjects import Subject

SUBJECTS = 24


def tiny_pictures(root: Path) -> Pictures:
    """Pictures as `load_pictures` gives them, without the network."""
    random = np.random.default_rng(0)
    drawn = {style: np.zeros((SUBJECTS, SIDE, SIDE, 4), np.uint8) for style in STYLES}
    for index in range(SUBJECTS):
        shape, colour = _shape(random), random.integers(30, 226, 3)
        shade = np.linspace(0.7, 1.2, SIDE)[:, None, None]
        inner = (
            shape
            & np.roll(shape, 8, 0)
            & np.roll(shape, -8, 0)
            & np.roll(shape, 8, 1)
            & np.roll(shape, -8, 1)
        )
        drawn["3d"][index, ..., :3] = np.clip(colour * shade, 0, 255)
        drawn["flat"][index, ..., :3] = np.where(inner[..., None], colour, 255 - colour)
        for style, mask in (("3d", shape), ("flat", shape), ("line", shape & ~inner)):
            drawn[style][index, ..., 3] = 255 * mask
        drawn["pixel"][index] = pixelate(drawn["flat"][index])
    for style, array in drawn.items():
        np.save(root / f"{style}.npy", array)
    return Pictures(root, [Subject(f"thing {i}", "objects", f"{i:x}", ()) for i in range(SUBJECTS)])


def silent(_: str) -> None:
    """In place of print, where a training says how far it is."""


def _shape(random: np.random.Generator) -> np.ndarray:
    """(SIDE, SIDE) of truths: where the thing is."""
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    wide, high, wave = random.uniform(0.5, 0.9, 3)
    round_ = (x / wide) ** 2 + (y / high) ** 2 < 1
    box = (abs(x) < wide) & (abs(y) < high)
    striped = round_ & (np.sin(x * 12 * wave) > -0.5)
    return (round_, box, striped)[int(random.integers(3))]
