"""What the networks that turn pictures into pictures are trained on and measured with.

Shape legend: N pictures, S side in px, C crops of a step; pictures as bytes are (N, S, S, 3), as tensors
(N, 3, S, S) in [0, 1].

Promises: a pool depends on the pictures, the counts and the seed alone; no subject of a held-out pool is in
a training pool. Everything is drawn before the training and held in memory, so that no step waits for data.
Does not know what is in a picture: the losses stand in for a perceptual one, which would need a pretrained
network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..datasets.pictures import STYLES, Pictures
from ..datasets.scenes import draw, sample_scene

HELD_OUT_EVERY = 20  # one subject in so many is for measuring only


@dataclass(frozen=True)
class ScenePool:
    """Scenes of several sizes with their styles, drawn once."""

    pictures: tuple[np.ndarray, ...]  # one (N, S, S, 3) uint8 for each size
    styles: tuple[tuple[str, ...], ...]

    def crops(self, count: int, side: int, random: np.random.Generator) -> Tensor:
        """(C, 3, side, side): random places of random pictures, flipped and turned at random."""
        sizes = np.array([len(pictures) for pictures in self.pictures])
        found = []
        for which in random.choice(len(sizes), count, p=sizes / sizes.sum()):
            pictures = self.pictures[which]
            y, x = random.integers(pictures.shape[1] - side + 1, size=2)
            picture = pictures[random.integers(len(pictures)), y : y + side, x : x + side]
            found.append(turned(picture, int(random.integers(8))))
        return to_tensor(np.stack(found))


def turned(picture: np.ndarray, which: int) -> np.ndarray:
    """One of the eight flips and quarter turns."""
    picture = picture[:, ::-1] if which & 1 else picture
    return np.rot90(picture, which >> 1)


def to_tensor(pictures: np.ndarray) -> Tensor:
    """(N, S, S, 3) bytes -> (N, 3, S, S) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 255


def to_bytes(pictures: Tensor) -> np.ndarray:
    """(N, 3, S, S) from 0 to 1, clamped -> (N, S, S, 3) bytes."""
    return pictures.clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def draw_pool(
    pictures: Pictures,
    counts: Mapping[int, int],
    *,
    seed: int,
    held_out: bool = False,
    echo: Callable[[str], None] = print,
) -> ScenePool:
    """`counts` is {side in px: how many}; the styles take turns."""
    drawn, styles = [], []
    for side, count in counts.items():
        array = np.empty((count, side, side, 3), np.uint8)
        names = tuple(STYLES[i % len(STYLES)] for i in range(count))
        for i, style in enumerate(names):
            random = np.random.default_rng([seed, side, i, held_out])
            scene = sample_scene(pictures, random, styles=(style,))
            while (scene.subject % HELD_OUT_EVERY == 0) != held_out:
                scene = sample_scene(pictures, random, styles=(style,))
            array[i] = draw(pictures, scene, side, random)
        drawn.append(array)
        styles.append(names)
        echo(f"{count} scenes of {side} px drawn{' for measuring' if held_out else ''}")
    return ScenePool(tuple(drawn), tuple(styles))


def colour_loss(output: Tensor, target: Tensor) -> Tensor:
    """Squared error of the pixels, and a little of their L1 differences to neighbours.

    For a network that starts from nothing: with L1 alone it paints forms in the median colour, grey, and
    finds the colours only when the learning rate is down.
    """
    error = output - target
    return 20 * error.square().mean() + 0.25 * _differences(error)


def detail_loss(output: Tensor, target: Tensor, scales: int = 3) -> Tensor:
    """L1 of the pixels, plus L1 of their differences to neighbours at full, half, quarter... size.

    For a network whose colours are right from the start. The differences weigh edges above flat areas, so
    that thin lines and blocks stay crisp.
    """
    error = output - target
    loss = error.abs().mean()
    for scale in range(scales):
        error = F.avg_pool2d(error, 2) if scale else error
        loss = loss + 0.5 * _differences(error)
    return loss


def _differences(error: Tensor) -> Tensor:
    return error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()


def psnr(output: Tensor, target: Tensor) -> Tensor:
    """(N,) in dB, of pictures as they are saved: clamped to [0, 1]."""
    error = (output.clamp(0, 1) - target).square().mean((1, 2, 3))
    return -10 * torch.log10(error.clamp_min(1e-10))
