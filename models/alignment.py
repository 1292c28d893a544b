"""The alignment network: does the picture show what the prompt says?

Shape legend: N pictures, E = 192 shared features, D = 384 MiniLM features.

A small CNN and a linear map of MiniLM features meet in one space, as in CLIP; trained on the
captioned Fluent emoji (MIT). Promises: the cosine of a picture of that world with its caption is
about 0.66, with another caption about 0. Does not know photographs, other drawing styles,
counting, or the layout of several things; on those its numbers mean little.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

WEIGHTS = Path(__file__).parent / "data" / "alignment.safetensors"
SIZE = 128  # px; the network was trained at this size only


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.n = nn.BatchNorm2d(width)
        self.a = nn.Conv2d(width, width, 3, padding=1)
        self.b = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(torch.relu(self.a(self.n(x))))


def _halve(inputs: int, outputs: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    ]


class AlignmentNet(nn.Module):
    """Maps pictures and sentence features into one space of length-1 vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.f = nn.Sequential(
            *_halve(3, 32),
            *_halve(32, 64),
            *_halve(64, 128),
            *_halve(128, 192),
            _Residual(192),
            *_halve(192, 256),
        )
        self.h = nn.Linear(256 * 5, 192)  # 2x2 averages and the overall maximum
        self.t = nn.Linear(384, 192)

    @classmethod
    def load(cls, path: Path = WEIGHTS) -> AlignmentNet:
        net = cls()
        net.load_state_dict(load_file(path))
        return net.eval().requires_grad_(False)

    def pictures(self, pixels: Tensor) -> Tensor:
        """(N, 3, 128, 128) in [-1, 1] -> (N, E)."""
        maps = self.f(pixels)
        pooled = torch.cat([F.adaptive_avg_pool2d(maps, 2).flatten(1), maps.amax((2, 3))], dim=1)
        return F.normalize(self.h(pooled), dim=-1)

    def sentences(self, features: Tensor) -> Tensor:
        """(N, D) sentence features -> (N, E)."""
        return F.normalize(self.t(features), dim=-1)


def to_pixels(images: Sequence[Image.Image]) -> Tensor:
    """Pictures of any size -> (N, 3, 128, 128) in [-1, 1]; the frame is stretched, not cropped."""
    resized = [image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC) for image in images]
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in resized]))
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
