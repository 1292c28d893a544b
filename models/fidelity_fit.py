"""How the fidelity network is trained: to put pictures in order.

Shape legend: R real pictures and as many pairs of renders in a batch.

What is ordered: a real picture above itself with a fault, a small fault above a large one of the same
kind, real pictures and renders above themselves after a trick, a render above another of the same
group (one prompt and seed) that was made with less care, a real picture above any render.
Promises: a resumed fit ends as an uninterrupted one, if `train` keeps the same promise. Knows the
renderers whose pictures it was given; synthetic faults alone do not teach it what renders lack.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from flowtailor.precision import mixed_precision

from ..datasets.pictures import Pictures
from ..datasets.scenes import caption, draw, sample_scene
from .alignment import normalised
from .degrade import FAULTS_A, FAULTS_B, TRICKS, degrade, with_text
from .fidelity import SIZE, FidelityNet
from .scorer_fit import Train, save_weights

FAULTS = (*FAULTS_A, *FAULTS_B)
RENDERED = 128  # px; real pictures are shown through this size too, or size alone would tell renders


@dataclass(frozen=True)
class Render:
    """A generated picture; within a group (one prompt, one seed) a higher quality is better."""

    picture: np.ndarray  # (H, W, 3) uint8
    quality: float  # the number of steps, for example
    group: str


def draw_real(pictures: Pictures, count: int, *, seed: int, size: int = SIZE) -> tuple[np.ndarray, list[str]]:
    """Real pictures (count, size, size, 3) uint8 of sampled scenes, and their captions."""
    rng = np.random.default_rng([seed, 3])
    scenes = [sample_scene(pictures, rng) for _ in range(count)]
    drawn = np.stack([draw(pictures, scene, size, rng) for scene in scenes])
    return drawn, [caption(pictures, scene, rng) for scene in scenes]


def fit_fidelity(
    real: np.ndarray,
    captions: Sequence[str],
    renders: Sequence[Render],
    path: Path,
    *,
    steps: int,
    train: Train,
    out: Path,
    seed: int,
    batch: int = 16,
    learning_rate: float = 1.5e-3,
    device: str = "cpu",
    echo: Callable[[str], None] = print,
) -> None:
    """Train a network on real pictures (N, H, W, 3) with captions and on renders; its weights go to `path`.

    Without renders it learns synthetic faults only, which does not make it see what renders lack.
    """
    torch.manual_seed(seed)
    net = FidelityNet().to(device).train()
    pairs = ordered_pairs(renders)

    def step(i: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([seed, 4, i])
        rows = rng.choice(len(real), batch, replace=False)
        chains = [chain(real[row], captions[int(row)], rng) for row in rows]
        for one in chains if pairs else ():
            one += rendered(*pairs[int(rng.integers(len(pairs)))], rng)
        logits = _logits(net, chains, rng, device)
        gaps = order_gaps(logits)
        loss = F.softplus(-gaps).mean()
        numbers = {"loss": float(loss.detach()), "wrong": float((gaps <= 0).float().mean())}
        return loss + 1e-3 * logits.square().mean(), numbers

    train(
        step,
        net,
        steps=steps,
        peak_lr=learning_rate,
        weight_decay=0.05,
        out=out,
        name="fidelity",
        seed=seed,
        echo=echo,
    )
    _calibrate(net.to("cpu").eval(), real, renders, np.random.default_rng([seed, 5]))
    save_weights(net, path)


def _logits(
    net: FidelityNet, chains: Sequence[Sequence[np.ndarray]], rng: np.random.Generator, device: str
) -> Tensor:
    """(chains, pictures of each): what the network makes of the pictures, some of them mirrored."""
    pixels = normalised(np.stack([shown(picture) for one in chains for picture in one])).to(device)
    flipped = torch.from_numpy(rng.random(len(pixels)) < 0.5).to(device)
    pixels = torch.where(flipped[:, None, None, None], pixels.flip(3), pixels)
    with mixed_precision(device):
        return net(pixels.contiguous(memory_format=torch.channels_last)).view(len(chains), -1)


def ordered_pairs(renders: Sequence[Render]) -> list[tuple[Render, Render]]:
    """All (better, worse) of the same group."""
    groups: dict[str, list[Render]] = {}
    for render in renders:
        groups.setdefault(render.group, []).append(render)
    return [(a, b) for group in groups.values() for a in group for b in group if a.quality > b.quality]


def chain(picture: np.ndarray, text: str, rng: np.random.Generator) -> list[np.ndarray]:
    """A real picture, a fault of it, more of the same fault, and a trick."""
    if rng.random() < 0.6:
        picture = _resized(picture, RENDERED)
    kind, lot = str(rng.choice(FAULTS)), float(rng.random())
    low = float(rng.uniform(0.05, 0.6))
    high = float(rng.uniform(low + 0.2, 1))
    return [
        picture,
        degrade(picture, kind, low, np.random.default_rng(int(lot * 2**32))),  # the same crop or grain
        degrade(picture, kind, high, np.random.default_rng(int(lot * 2**32))),
        trick(picture, text, rng),
    ]


def rendered(better: Render, worse: Render, rng: np.random.Generator) -> list[np.ndarray]:
    """A render, one of less care, and a trick or a fault that starts from the first."""
    if rng.random() < 0.5:
        return [better.picture, worse.picture, trick(better.picture, better.group, rng)]
    fault = degrade(better.picture, str(rng.choice(FAULTS)), float(rng.uniform(0.3, 1)), rng)
    return [better.picture, worse.picture, fault]


def trick(picture: np.ndarray, text: str, rng: np.random.Generator) -> np.ndarray:
    """The picture after one of the cheap tricks, or with text across it."""
    kind = str(rng.choice([*TRICKS, "text"]))
    if kind == "text":
        return with_text(picture, text, rng)
    return degrade(picture, kind, float(rng.uniform(0, 1)), rng)


def order_gaps(logits: Tensor) -> Tensor:
    """(batch, 4 or 7) logits of `chain` and `rendered` -> how far each pair is the right way round."""
    real, fault, more, tricked = logits[:, :4].unbind(1)
    gaps = [real - fault, fault - more, real - more, real - tricked]
    if logits.shape[1] > 4:
        better, worse, spoiled = logits[:, 4:].unbind(1)
        gaps += [better - worse, better - spoiled, real - better, real - worse]
    return torch.stack(gaps)


def shown(picture: np.ndarray) -> np.ndarray:
    """At the size that the network looks at, as `to_pixels` makes it."""
    return picture if picture.shape[:2] == (SIZE, SIZE) else _resized(picture, SIZE)


def _resized(picture: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC))


@torch.inference_mode()
def _calibrate(
    net: FidelityNet, real: np.ndarray, renders: Sequence[Render], rng: np.random.Generator, count: int = 200
) -> None:
    """Put the median real picture at 0.88 and the median ruined one (or worst of its group) at 0.12."""
    some = [_resized(p, RENDERED) for p in real[:count]]
    ruined = [degrade(p, str(rng.choice(FAULTS)), 0.7, rng) for p in some]
    lowest = {render.group: render for render in sorted(renders, key=lambda r: -r.quality)}
    ruined += [render.picture for render in list(lowest.values())[:count]]
    good, bad = (_median_logit(net, pictures) for pictures in (some, ruined))
    net.centre.fill_((good + bad) / 2)
    net.spread.fill_(max((good - bad) / 4, 1e-3))


def _median_logit(net: FidelityNet, pictures: Sequence[np.ndarray]) -> float:
    parts = [pictures[i : i + 32] for i in range(0, len(pictures), 32)]
    return float(torch.cat([net(normalised(np.stack([shown(p) for p in part]))) for part in parts]).median())
