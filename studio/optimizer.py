"""One optimizer for all trainings of the studio: Muon for what is a matrix, Adam for the rest.

Muon (Jordan et al. 2024, as torch has it) makes the update of a matrix orthogonal, so that all its directions
are learned alike, the rare ones too. It takes matrices alone; a convolution's weight is one, with a row for
each output channel. Its steps are scaled to the size of Adam's, so that both have the same learning rate.
What it brings here is in docs/EXPERIMENTS.md, 5 and 8.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


class Optimizer:
    """Updates weights that are contiguous in memory, with the learning rate given at each step."""

    def __init__(self, parameters: Iterable[Tensor], *, weight_decay: float) -> None:
        self._all = list(parameters)
        self._weights = [p for p in self._all if p.dim() > 1]
        self._matrices = [nn.Parameter(p.detach().view(len(p), -1)) for p in self._weights]  # the same memory
        others = [p for p in self._all if p.dim() <= 1]
        self._parts: list[torch.optim.Optimizer] = []  # torch's refuse to have nothing to do
        if self._matrices:
            muon = torch.optim.Muon(self._matrices, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
            self._parts.append(muon)
        if others:
            self._parts.append(
                torch.optim.AdamW(others, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True)
            )

    def zero_grad(self) -> None:
        for parameter in self._all:
            parameter.grad = None

    def step(self, lr: float) -> None:
        for weight, matrix in zip(self._weights, self._matrices, strict=True):
            matrix.grad = None if weight.grad is None else weight.grad.reshape(matrix.shape)
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = lr
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        for part, saved in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(saved)
