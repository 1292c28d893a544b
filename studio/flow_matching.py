"""Trains the picture model by flow matching.

Shape legend: B pictures of a batch, C latent channels, H and W latent height and width.

A picture x0 is mixed with noise, x = (1 - sigma) * x0 + sigma * noise, and the model learns the velocity
noise - x0. Each batch has pictures of one size, larger ones fewer, so that steps cost about the same.

Promises: a run that is stopped goes on as if it had not been (training.py); the weights that come back are
the running means. Does not know where latents and captions come from (latents.py, datasets/scenes.py), nor
how good a picture is.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from flowtailor.precision import mixed_precision

from .latents import SCALE, Batches
from .mmdit import PATCH, MMDiT
from .text_encoder import Captions
from .training import Ema, rng, train

_UNIFORM = 0.15
SIZES = {128: 0.8, 192: 0.13, 256: 0.07}  # side in px: share of the batches

Preview = Callable[[MMDiT, int], None]


@dataclass(frozen=True)
class Recipe:
    """What a training run depends on beside its data."""

    steps: int
    seed: int = 0
    learning_rate: float = 3e-3
    warmup: int = 200
    ema: float = 0.998
    tokens: int = 4096  # picture tokens of a batch: 64 pictures of 128 px
    sizes: Mapping[int, float] = field(default_factory=lambda: SIZES)
    sigma: float = 0.3  # middle of the noise levels shown, as a logit: lower ones show finer details
    no_caption: float = 0.1  # share of pictures shown without, which guidance needs
    device: str = "cpu"
    compile: bool = True  # where there is a compiler

    def batch(self, size: int) -> int:
        """Pictures in a batch of `size` px."""
        return max(1, self.tokens // (size // SCALE // PATCH) ** 2)


def train_checkpoint(
    recipe: Recipe,
    batches: Batches,
    captions: Captions,
    *,
    out: Path,
    name: str,
    start: dict[str, Tensor] | None = None,
    preview: Preview | None = None,
    preview_every: int = 1000,
    echo: Callable[[str], None] = print,
) -> dict[str, Tensor]:
    """Train all weights, from scratch or on from `start`, and return them (names as in mmdit.py).

    `batches` says which subjects and styles are shown how often: that is what makes a specialist.
    """
    torch.manual_seed(recipe.seed)
    model = MMDiT()
    if start is not None:
        model.load_state_dict(start)
    fit(
        recipe,
        model,
        model,
        batches,
        captions,
        out=out,
        name=name,
        preview=preview,
        preview_every=preview_every,
        echo=echo,
    )
    return {key: value.detach().cpu() for key, value in model.state_dict().items()}


def fit(
    recipe: Recipe,
    model: MMDiT,
    trained: nn.Module,
    batches: Batches,
    captions: Captions,
    *,
    out: Path,
    name: str,
    preview: Preview | None,
    preview_every: int,
    echo: Callable[[str], None],
) -> None:
    """Train the weights of `trained`, which is `model` or a part in it; it ends with their running means."""
    model.to(recipe.device).train()
    ema = Ema(trained, recipe.ema)
    if recipe.compile and (recipe.device != "cpu" or shutil.which("g++")):
        torch.compiler.reset()  # the number of graphs is limited, and those of an earlier model count
        for block in model.joint_blocks:
            block.compile(dynamic=False)  # a graph for each size: those for all sizes are slower

    def step(i: int) -> tuple[Tensor, dict[str, float]]:
        random = rng(recipe.seed, i)
        size = random.choice(list(recipe.sizes), p=list(recipe.sizes.values()))
        x0, texts = batches.draw(int(size), recipe.batch(int(size)), random)
        empty = random.random(len(texts)) < recipe.no_caption
        context, pooled = captions(["" if e else text for e, text in zip(empty, texts, strict=True)])
        sigma = draw_sigma(len(texts), random, recipe.sigma).to(recipe.device)
        losses = flow_loss(model, x0.to(recipe.device), sigma, context, pooled, captions)
        # At high noise the text alone says what to draw: that loss follows how recognisable pictures are.
        noisy = losses.detach()[sigma >= sigma.quantile(0.8)]
        return losses.mean(), {"loss": losses.mean().item(), "loss_noisy": noisy.mean().item()}

    def show(done: int) -> None:
        if preview is not None and done % preview_every == 0:
            _show_mean(model, trained, ema, preview, done)

    train(
        step,
        trained,
        steps=recipe.steps,
        peak_lr=recipe.learning_rate,
        warmup=recipe.warmup,
        weight_decay=0.01,
        ema=ema,
        after=show,
        out=out,
        name=name,
        seed=recipe.seed,
        echo=echo,
    )
    ema.copy_to(trained)


def flow_loss(
    model: MMDiT, x0: Tensor, sigma: Tensor, context: Tensor, pooled: Tensor, captions: Captions
) -> Tensor:
    """Mean squared error (B,) of the predicted velocity."""
    noise = torch.randn_like(x0)
    level = sigma.view(-1, 1, 1, 1)
    bias = captions.key_bias(x0[0, 0].numel() // PATCH**2)
    with mixed_precision(x0.device):
        velocity = model((1 - level) * x0 + level * noise, 1000 * sigma, context, pooled, bias)
    return (velocity.float() - (noise - x0)).square().mean((1, 2, 3))


def draw_sigma(count: int, random: np.random.Generator, middle: float = 0.3) -> Tensor:
    """Noise levels (count,): 85% logit-normal around `middle`, 15% uniform, so that no level is never seen.

    Drawn one from each of `count` equal slices of that distribution, which makes batches alike.
    """
    share = torch.from_numpy((np.arange(count) + random.random(count)) / count)
    uniform = share / _UNIFORM
    normal = torch.special.ndtri((share - _UNIFORM).clamp(min=1e-6) / (1 - _UNIFORM))
    return torch.where(share < _UNIFORM, uniform, torch.sigmoid(middle + 1.1 * normal)).float()


def _show_mean(model: MMDiT, trained: nn.Module, ema: Ema, preview: Preview, step: int) -> None:
    """Call `preview` while the running means stand in for the weights."""
    current = {name: p.detach().clone() for name, p in trained.named_parameters()}
    ema.copy_to(trained)
    model.eval()
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):  # no graph for a few pictures
        preview(model, step)
        for name, p in trained.named_parameters():
            p.copy_(current[name])
    model.train()
