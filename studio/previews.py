"""Pictures of a model in training, drawn as ComfyUI's plainest workflow draws them: euler, simple.

Shape legend: B prompts, C latent channels, H = W = size / 8.

Promises: the same prompts, seed and weights give the same pictures. Does not know ComfyUI's other samplers,
and draws its noise otherwise, so that a picture of one seed differs from the engine's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from .latents import SCALE
from .mmdit import CHANNELS, PATCH, MMDiT
from .pixels import to_bytes
from .text_encoder import Captions

_SHIFT = 3.0  # ComfyUI's for SD3: more of the steps at high noise


@torch.no_grad()
def sample(
    model: MMDiT,
    captions: Captions,
    prompts: Sequence[str],
    *,
    size: int = 128,
    steps: int = 16,
    cfg: float = 2.0,
    seed: int = 0,
) -> Tensor:
    """Latents (B, C, H, W), which the autoencoder decodes."""
    device = next(model.parameters()).device
    side = size // SCALE
    noise = torch.Generator().manual_seed(seed)
    x = torch.randn(len(prompts), CHANNELS, side, side, generator=noise).to(device)
    context, pooled = captions([*prompts, *[""] * len(prompts)])
    bias = captions.key_bias((side // PATCH) ** 2)
    times = torch.linspace(1, 0, steps + 1)
    sigmas = (_SHIFT * times / (1 + (_SHIFT - 1) * times)).to(device)
    for sigma, following in pairwise(sigmas):
        t = (1000 * sigma).expand(2 * len(prompts))
        with_text, without = model(torch.cat((x, x)), t, context, pooled, bias).chunk(2)
        x = x + (following - sigma) * (without + cfg * (with_text - without))
    return x


class Montage:
    """Draws the same prompts at each call, one column a prompt and one row a size, into a PNG."""

    def __init__(
        self,
        captions: Captions,
        prompts: Sequence[str],
        decode: Callable[[Tensor], Tensor],
        folder: Path,
        sizes: Sequence[int] = (128,),
        steps: int = 16,
    ) -> None:
        """`decode`: latents (B, C, H, W) -> pictures (B, 3, size, size) from 0 to 1."""
        self._captions, self._prompts, self._decode = captions, prompts, decode
        self._folder, self._sizes, self._steps = folder, sizes, steps

    def __call__(self, model: MMDiT, step: int) -> None:
        """Write FOLDER/STEP.png."""
        cell = max(self._sizes)
        sheet = Image.new("RGB", (cell * len(self._prompts), cell * len(self._sizes)), "white")
        for row, size in enumerate(self._sizes):
            latents = sample(model, self._captions, self._prompts, size=size, steps=self._steps)
            for column, picture in enumerate(to_bytes(self._decode(latents))):
                sheet.paste(Image.fromarray(picture), (column * cell, row * cell))
        self._folder.mkdir(parents=True, exist_ok=True)
        sheet.save(self._folder / f"{step:06d}.png")
