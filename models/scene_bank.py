"""A bank of scenes: pictures with captions, facts and features, drawn once to train alignment networks on.

Shape legend: K = 4 scenes of a group, P phrasings of each, N pictures in a batch, D = 384 MiniLM features.

A group shows one subject in other colours, numbers, styles and on other backgrounds, so that telling
its captions apart takes more than the subject. Promises: the same seed and pictures give the same bank,
whose parts are found again where they were kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowtailor.files import written_whole

from ..datasets.phrasing import countable
from ..datasets.pictures import Pictures
from ..datasets.recolour import COLOURS
from ..datasets.scenes import Scene, caption, draw, recolourable, sample_scene
from .alignment import SIZE
from .text import TextEncoder

K = 4  # scenes of one subject
P = 2  # phrasings of each scene


@dataclass(frozen=True)
class Bank:
    """Scenes that were drawn once: what the networks are trained on."""

    pixels: np.ndarray  # (scenes, 128, 128, 3) uint8; groups of K follow each other
    captions: list[list[str]]  # P of each scene
    features: Tensor  # (scenes, P, D), those of the captions
    facts: np.ndarray  # (scenes, 5) subject, style, count, colour, background as numbers


def draw_bank(
    pictures: Pictures, folder: Path, *, groups: int, seed: int, echo: Callable[[str], None] = print
) -> Bank:
    """Groups of K scenes; the drawn pixels and the features are kept in `folder` and found again."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, 1])
    scenes = [scene for _ in range(groups) for scene in sample_group(pictures, rng)]
    captions = [[caption(pictures, scene, rng) for _ in range(P)] for scene in scenes]
    key = hashlib.sha256(json.dumps(captions).encode()).hexdigest()[:8]  # other subjects, another bank
    pixels = folder / f"bank-{seed}-{key}.npy"
    if not pixels.exists():
        echo(f"scorers: draws {len(scenes)} pictures")
        shape = (len(scenes), SIZE, SIZE, 3)
        with written_whole(pixels) as new:
            drawn = np.lib.format.open_memmap(new, "w+", np.uint8, shape)  # gigabytes: not in memory
            for place, scene in zip(drawn, scenes, strict=True):
                place[:] = draw(pictures, scene, SIZE, rng)
            drawn.flush()
    features = folder / f"bank-{seed}-{key}.text.npy"
    if not features.exists():
        echo("scorers: reads the captions")
        texts = sorted({text for phrasings in captions for text in phrasings})
        rows = {text: i for i, text in enumerate(texts)}
        parts = [TextEncoder.load().encode(texts[i : i + 1024]) for i in range(0, len(texts), 1024)]
        order = [rows[text] for phrasings in captions for text in phrasings]
        with written_whole(features) as new:
            np.save(new, torch.cat(parts)[order].half().numpy())
    read = torch.from_numpy(np.load(features)).view(len(scenes), P, -1)
    return Bank(np.load(pixels, mmap_mode="r"), captions, read, _numbered(pictures, scenes))


def sample_group(pictures: Pictures, rng: np.random.Generator) -> list[Scene]:
    """K different scenes of one subject; colours and numbers come oftener than in `sample_scene`."""
    scenes = [sample_scene(pictures, rng)]
    index = scenes[0].subject
    only = np.eye(len(pictures.subjects))[index]
    while len(scenes) < K:
        other, chance = sample_scene(pictures, rng, only), rng.random()
        if chance < 0.4 and recolourable(pictures, index, other.style):
            other = replace(other, colour=str(rng.choice(list(COLOURS))), background=None)
        elif chance > 0.7 and countable(pictures.subjects[index]):
            other = replace(other, count=int(rng.integers(1, 4)))
        if other not in scenes:
            scenes.append(other)
    return scenes


def also_true(facts: np.ndarray, captions: Sequence[str]) -> np.ndarray:
    """(N, 5) facts -> (N, N) bool: does the caption of row i hold for the picture of column j too?

    One that names no background or style holds for any; one without a colour means the natural one.
    """
    subject, style, count, colour, background = (facts[:, i] for i in range(5))
    same = (subject[:, None] == subject) & (count[:, None] == count) & (colour[:, None] == colour)
    any_style = (style == 0) & ~np.array(["3d" in text for text in captions])
    same &= any_style[:, None] | (style[:, None] == style)
    return same & ((background < 0)[:, None] | (background[:, None] == background))


def _numbered(pictures: Pictures, scenes: Sequence[Scene]) -> np.ndarray:
    """Facts as numbers; subjects of one name are one; none is -1; the style that needs no word is 0."""
    seen: dict[Any, int] = {None: -1, "3d": 0}
    table = []
    for scene in scenes:
        name = "subject " + pictures.subjects[scene.subject].name
        values = (name, scene.style, scene.count, scene.colour, scene.background)
        table.append([seen.setdefault(value, len(seen)) for value in values])
    return np.array(table)
