"""The alignment networks: does the picture show what the prompt says?

Shape legend: N pictures, E = shared features, C channels, H, W pixels of a feature map, D = 384
MiniLM features.

An eye (a small convolutional network) and a reading of MiniLM features meet in one space, as in
CLIP. There are two, alike in nothing but the sentence features: `AlignmentNet`, a plain CNN, may
reward; `HeldOutNet`, patches and depthwise convolutions, only evaluates. Both learned from real
pictures (datasets/scenes.py), the latter also what too few steps do to renders. Promises: the cosine of
a picture of that world with its caption is far above that with another subject's, colour's, count's or
style's. Does not know photographs or the layout of several things; on those its numbers mean little.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from .weights import SHIPPED

SIZE = 128  # px; what both networks look at


class TwoTowers(nn.Module):
    """Maps pictures and sentence features into one space of length-1 vectors."""

    WEIGHTS: Path
    full: Tensor  # cosine that counts as a full score: few real pictures reach more
    temperature: nn.Parameter

    def __init__(self, eye: nn.Module, shared: int, hidden: int) -> None:
        super().__init__()
        self.eye = eye
        self.literal = nn.Linear(384, shared)
        self.phrase = nn.Sequential(nn.Linear(384, hidden), nn.GELU(), nn.Linear(hidden, shared))
        self.temperature = nn.Parameter(torch.tensor(14.0).log())
        self.register_buffer("full", torch.tensor(1.0))

    @classmethod
    def load(cls, path: Path | None = None) -> Self:
        net = cls()  # pyright: ignore[reportCallIssue]
        net.load_state_dict(load_file(path or cls.WEIGHTS))  # half precision on disk
        net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        return net.eval().requires_grad_(False)

    def pictures(self, pixels: Tensor) -> Tensor:
        """(N, 3, 128, 128) in [-1, 1] -> (N, E)."""
        return F.normalize(self.eye(pixels).float(), dim=-1)

    def sentences(self, features: Tensor) -> Tensor:
        """(N, D) sentence features -> (N, E)."""
        return F.normalize((self.literal(features) + self.phrase(features)).float(), dim=-1)


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.n = nn.BatchNorm2d(width)
        self.a = nn.Conv2d(width, width, 3, padding=1)
        self.b = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(torch.relu(self.a(self.n(x))))


class _CornersAndMaximum(nn.Module):
    """(N, C, H, W) -> (N, 5 C): 2x2 averages, so that places count, and the overall maximum."""

    def forward(self, maps: Tensor) -> Tensor:
        return torch.cat([F.adaptive_avg_pool2d(maps, 2).flatten(1), maps.amax((2, 3))], dim=1)


def halve(inputs: int, outputs: int) -> list[nn.Module]:
    """A strided convolution: half the side, other channels."""
    return [
        nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    ]


class AlignmentNet(TwoTowers):
    """Strided 3x3 convolutions with batch normalisation; E = 192."""

    WEIGHTS = SHIPPED / "alignment.safetensors"

    def __init__(self) -> None:
        eye = nn.Sequential(
            *halve(3, 32),
            *halve(32, 64),
            *halve(64, 128),
            *halve(128, 192),
            _Residual(192),
            *halve(192, 256),
            _CornersAndMaximum(),
            nn.Linear(256 * 5, 192),
        )
        super().__init__(eye, shared=192, hidden=256)


class _Mixer(nn.Module):
    """A depthwise look around and a thought per place (after ConvNeXt)."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.around = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.GroupNorm(1, width)
        self.wide = nn.Conv2d(width, width * 3, 1)
        self.back = nn.Conv2d(width * 3, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.back(F.gelu(self.wide(self.norm(self.around(x)))))


class _Attend(nn.Module):
    """(N, C, H, W) -> (N, 4 C): four questions, each answered by a weighted mean over the places."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.questions = nn.Conv2d(width, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.questions(x).flatten(2).softmax(-1)  # (N, 4, HW)
        return (weights @ x.flatten(2).transpose(1, 2)).flatten(1)


class HeldOutNet(TwoTowers):
    """4x4 patches, depthwise convolutions, layer normalisation, attention pooling; E = 160."""

    WEIGHTS = SHIPPED / "held_out_alignment.safetensors"

    def __init__(self) -> None:
        eye = nn.Sequential(
            nn.Conv2d(3, 48, 4, stride=4),
            _Mixer(48, 5),
            nn.GroupNorm(1, 48),
            nn.Conv2d(48, 96, 2, stride=2),
            _Mixer(96, 5),
            _Mixer(96, 5),
            nn.GroupNorm(1, 96),
            nn.Conv2d(96, 224, 2, stride=2),
            _Mixer(224, 3),
            _Mixer(224, 3),
            nn.GroupNorm(1, 224),
            _Attend(224),
            nn.Linear(224 * 4, 160),
        )
        super().__init__(eye, shared=160, hidden=384)


def to_pixels(images: Sequence[Image.Image], size: int = SIZE) -> Tensor:
    """Pictures of any size -> (N, 3, size, size) in [-1, 1]; the frame is stretched, not cropped."""
    resized = [image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC) for image in images]
    return normalised(np.stack([np.asarray(image) for image in resized]))


def normalised(pixels: np.ndarray) -> Tensor:
    """uint8 (N, H, W, 3) -> (N, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
