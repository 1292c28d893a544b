"""How the alignment networks are trained: contrast with hard negatives, on real pictures.

Shape legend: G groups of K = 4 scenes, N = G K pictures in a batch, R of them with a ruined twin,
P phrasings, E shared features, D = 384 MiniLM features, H pairs of renders in a batch.

The hard negatives are the other scenes of a group (scene_bank.py), which show the same subject. Ruined
twins (faults and tricks of degrade.py, the caption written in) must lie further from the caption than the
clean picture, and hurried renders further than careful ones, where any are given. Promises: a resumed fit
ends as an uninterrupted one, if `train` keeps the same promise. Without those it does not know renders:
what it says of them must be measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from flowtailor.precision import mixed_precision

from .alignment import TwoTowers, normalised
from .degrade import TRICKS, degrade, with_text
from .scene_bank import Bank, K, P, also_true

ORDER = 12.0  # the weight of what must lie further from the caption
HURRY = 0.05  # the cosine by which a hurried render must
Train = Callable[..., None]  # studio.training.train; the two rooms do not import each other


@dataclass(frozen=True)
class HurriedPairs:
    """Renders of the same prompts and seeds, of too few steps and of enough."""

    hurried: np.ndarray  # (pairs, 128, 128, 3) uint8
    careful: np.ndarray  # (pairs, 128, 128, 3) uint8
    features: Tensor  # (pairs, D), those of the prompts


def contrast(similar_NN: Tensor, true_NN: Tensor) -> Tensor:
    """Both ways of the contrastive loss; pairs that hold besides the diagonal do not count."""
    target = torch.arange(len(similar_NN), device=similar_NN.device)
    hidden = similar_NN.masked_fill(true_NN, -1e4)
    hidden = hidden.diagonal_scatter(similar_NN.diagonal())
    return (F.cross_entropy(hidden, target) + F.cross_entropy(hidden.T, target)) / 2


def fit_alignment(
    net: TwoTowers,
    bank: Bank,
    faults: Sequence[str],
    path: Path,
    *,
    steps: int,
    train: Train,
    out: Path,
    name: str,
    seed: int,
    batch: int = 128,
    learning_rate: float = 2e-3,
    device: str = "cpu",
    pairs: HurriedPairs | None = None,
    echo: Callable[[str], None] = print,
) -> None:
    """Train `net` and write its weights to `path`; logs and what a resumed fit needs go to `out/NAME...`."""
    net.to(device).train()

    def step(i: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([seed, 2, i])
        losses = batch_losses(net, bank, faults, batch, rng, device)
        if pairs:
            losses["hurry"] = hurry_loss(net, pairs, batch // 8, rng, device)
        together = torch.stack(list(losses.values())).sum()
        return together, {key: float(value.detach()) for key, value in losses.items()}

    train(
        step,
        net,
        steps=steps,
        peak_lr=learning_rate,
        weight_decay=0.05,
        out=out,
        name=name,
        seed=seed,
        echo=echo,
    )
    net.to("cpu").eval()
    net.full.fill_(_usual_cosine(net, bank))
    save_weights(net, path)


def batch_losses(
    net: TwoTowers,
    bank: Bank,
    faults: Sequence[str],
    batch: int,
    rng: np.random.Generator,
    device: str,
) -> dict[str, Tensor]:
    """What a batch says: `contrast` over clean and slightly faulty pictures, `order` over ruined twins."""
    firsts = rng.choice(len(bank.facts) // K, size=batch // K, replace=False) * K
    rows = (firsts[:, None] + np.arange(K)).ravel()
    rng.shuffle(rows)
    ruined = batch // 4
    phrasing = rng.integers(0, P, batch)
    clean = bank.pixels[rows]
    captions = [bank.captions[row][p] for row, p in zip(rows, phrasing, strict=True)]
    twins, margins, readable = _twins(clean[:ruined], captions, faults, rng)
    seen = [*clean[:ruined], *(_slightly_faulty(p, faults, rng) for p in clean[ruined:]), *twins]
    pixels = moved(normalised(np.stack(seen)).to(device), batch, ruined, rng)
    texts = bank.features[rows, phrasing].float().to(device)
    with mixed_precision(device):
        pictures = net.pictures(pixels.contiguous(memory_format=torch.channels_last))
        sentences = net.sentences(texts)
    cosine = sentences @ pictures.T  # (N, N + R)
    scale = net.temperature.exp().clamp(max=50)
    true = torch.from_numpy(also_true(bank.facts[rows], captions)).to(device)
    own, theirs = cosine[:, :batch].diagonal()[:ruined], cosine[:ruined, batch:].diagonal()
    wrong = F.relu(torch.tensor(margins, device=device) + theirs - own)
    told = F.cross_entropy(
        scale * cosine[:, batch:].T.masked_fill(true[:, :ruined].T, -1).diagonal_scatter(theirs),
        torch.arange(ruined, device=device),
        reduction="none",
    )
    return {
        "loss": contrast(scale * cosine[:, :batch], true),
        "order": ORDER * wrong.mean(),
        "told": 0.25 * (told * torch.tensor(readable, device=device)).mean(),
    }


def hurry_loss(
    net: TwoTowers, pairs: HurriedPairs, batch: int, rng: np.random.Generator, device: str
) -> Tensor:
    """How far careful renders fail to lie nearer to their prompts than hurried ones by HURRY."""
    rows = rng.choice(len(pairs.hurried), min(batch, len(pairs.hurried)), replace=False)
    pixels = normalised(np.concatenate([pairs.careful[rows], pairs.hurried[rows]])).to(device)
    pixels = moved(pixels.flip(3) if rng.random() < 0.5 else pixels, len(rows), len(rows), rng)
    with mixed_precision(device):
        pictures = net.pictures(pixels.contiguous(memory_format=torch.channels_last))
        sentences = net.sentences(pairs.features[rows].float().to(device))
    careful, hurried = (pictures * sentences.repeat(2, 1)).sum(-1).chunk(2)
    return ORDER * F.relu(HURRY + hurried - careful).mean()


def moved(pixels: Tensor, batch: int, ruined: int, rng: np.random.Generator) -> Tensor:
    """Each picture shifted and scaled a little; a twin like its clean picture, the first ones.

    Every other one keeps its size and goes whole pixels: drawing between pixels blurs, and would hide what
    compression and the like do to a picture.
    """
    scale, x, y = rng.uniform(0.85, 1.15, batch), *rng.uniform(-0.12, 0.12, (2, batch))
    pixel = 2 / pixels.shape[-1]  # the frame is 2 wide
    whole = rng.random(batch) < 0.5
    scale = np.where(whole, 1.0, scale)
    x, y = (np.where(whole, np.round(along / pixel) * pixel, along) for along in (x, y))
    zero = np.zeros(batch)
    theta = np.stack([np.stack([scale, zero, x], 1), np.stack([zero, scale, y], 1)], 1)
    theta = torch.from_numpy(np.concatenate([theta, theta[:ruined]])).to(pixels)
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)


def save_weights(net: nn.Module, path: Path) -> None:
    """The weights in half precision."""
    state = net.state_dict()
    save_file({k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in state.items()}, path)
    path.chmod(0o644)  # it ships


def _twins(
    pictures: np.ndarray, captions: Sequence[str], faults: Sequence[str], rng: np.random.Generator
) -> tuple[list[np.ndarray], list[float], list[bool]]:
    """Ruined pictures, how far behind the clean ones they must stay, whether they can still be read."""
    twins, margins, readable = [], [], []
    for i, picture in enumerate(pictures):
        level, lot = float(rng.uniform(0.15, 1)), rng.random()
        if lot < 0.6:
            twins.append(degrade(picture, str(rng.choice(list(faults))), level, rng))
        elif lot < 0.85:
            twins.append(degrade(picture, str(rng.choice(list(TRICKS))), level, rng))
        else:  # on a plain ground, on another picture, or on the picture itself
            ground = (degrade(picture, "plain", 1, rng), pictures[i - 1], picture)[int(rng.integers(3))]
            twins.append(with_text(ground, captions[i], rng))
        margins.append(0.03 + 0.15 * level)
        readable.append(lot < 0.6 and level < 0.7)
    return twins, margins, readable


def _slightly_faulty(picture: np.ndarray, faults: Sequence[str], rng: np.random.Generator) -> np.ndarray:
    """Two of three as they are: renders are a little blurred and noisy too."""
    if rng.random() < 0.67:
        return picture
    return degrade(picture, str(rng.choice(list(faults))), float(rng.uniform(0, 0.15)), rng)


@torch.inference_mode()
def _usual_cosine(net: TwoTowers, bank: Bank, count: int = 512) -> float:
    """The cosine that one real picture in twenty exceeds."""
    rows = np.linspace(0, len(bank.facts) - 1, min(count, len(bank.facts))).astype(int)
    parts = [
        net.pictures(normalised(np.asarray(bank.pixels[part])))
        for part in np.array_split(rows, 8)
        if len(part)
    ]
    sentences = net.sentences(bank.features[rows, 0].float())
    return float(torch.quantile((torch.cat(parts) * sentences).sum(-1), 0.95))
