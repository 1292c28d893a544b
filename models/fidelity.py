"""The fidelity network: does the picture look as if a careful hand had made it, whatever it shows?

Shape legend: N pictures.

A small CNN that looks at 192 px, so that the finer canvas of a larger picture counts. It learned to
order pictures (models/fidelity_fit.py): real ones above faulty ones and tricks, renders of many steps
above those of few. Promises: `score` keeps that order and lies in (0, 1), half of the real pictures
above 0.88. Does not read the prompt, and knows only faults of the kinds it was shown.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from .alignment import halve
from .weights import SHIPPED

WEIGHTS = SHIPPED / "fidelity.safetensors"
SIZE = 192  # px


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.n = nn.BatchNorm2d(width)
        self.b = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(torch.relu(self.n(self.a(x))))


class FidelityNet(nn.Module):
    """Strided convolutions; means, spreads and maxima of what they see; one number."""

    centre: Tensor  # logit of a picture halfway between real and ruined
    spread: Tensor  # logits between there and real ones, over 2

    def __init__(self) -> None:
        super().__init__()
        self.eye = nn.Sequential(
            *halve(3, 16),
            *halve(16, 40),
            *halve(40, 80),
            _Residual(80),
            *halve(80, 128),
            *halve(128, 160),
        )
        self.verdict = nn.Sequential(nn.Linear(480, 64), nn.ReLU(), nn.Linear(64, 1))
        self.register_buffer("centre", torch.tensor(0.0))
        self.register_buffer("spread", torch.tensor(1.0))

    @classmethod
    def load(cls, path: Path = WEIGHTS) -> FidelityNet:
        net = cls()
        net.load_state_dict(load_file(path))  # half precision on disk
        net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        return net.eval().requires_grad_(False)

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, 192, 192) in [-1, 1] -> (N,): more is better, differences are what counts."""
        places = self.eye(pixels).flatten(2)
        seen = torch.cat([places.mean(-1), places.std(-1), places.amax(-1)], dim=1)
        return self.verdict(seen).squeeze(1).float()

    def score(self, pixels: Tensor) -> Tensor:
        """The same within (0, 1): 0.12 for ruined pictures, 0.88 for real ones, each in the middle."""
        return torch.sigmoid((self(pixels) - self.centre) / self.spread)
