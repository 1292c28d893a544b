"""One optimizer for all trainings of the studio: Muon for what is a matrix, Adam for the rest.

Muon (Jordan et al. 2024, github.com/KellerJordan/Muon) makes the update of a matrix orthogonal, so that all
its directions are learned alike, the rare ones too. It takes matrices alone; a convolution's weight is one,
with a row for each output channel. Its steps are scaled to the size of Adam's, so that both have the same
learning rate. What it brings here is in docs/EXPERIMENTS.md, 5 and 8. `torch.optim.Muon` computes the same
but in bfloat16 wherever it runs, which takes most CPUs fifty times as long as float32.

Shape legend: A, B rows and columns of a weight taken as a matrix.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from flowtailor.precision import compute_dtype

MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.775, 2.0315)  # of the quintic that brings singular values near 1 fastest


class Optimizer:
    """Updates weights that are contiguous in memory, with the learning rate given at each step."""

    def __init__(self, parameters: Iterable[Tensor], *, weight_decay: float) -> None:
        self._all = list(parameters)
        self._weights = [p for p in self._all if p.dim() > 1]
        self._momenta = [torch.zeros_like(p).view(len(p), -1) for p in self._weights]
        self._weight_decay = weight_decay
        others = [p for p in self._all if p.dim() <= 1]  # torch's optimizers refuse to have nothing to do
        self._adam = (
            torch.optim.AdamW(others, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True)
            if others
            else None
        )

    def zero_grad(self) -> None:
        for parameter in self._all:
            parameter.grad = None

    def step(self, lr: float) -> None:
        for weight, momentum in zip(self._weights, self._momenta, strict=True):
            if weight.grad is not None:
                self._muon(weight, weight.grad, momentum, lr)
        if self._adam:
            for group in self._adam.param_groups:
                group["lr"] = lr
            self._adam.step()

    @torch.no_grad()
    def _muon(self, weight: Tensor, grad: Tensor, momentum_AB: Tensor, lr: float) -> None:
        grad_AB = grad.reshape(momentum_AB.shape)
        momentum_AB.lerp_(grad_AB, 1 - MOMENTUM)
        ahead_AB = grad_AB.lerp(momentum_AB, MOMENTUM)  # Nesterov's
        size = 0.2 * math.sqrt(max(momentum_AB.shape))  # root mean square of Adam's steps (Liu et al. 2025)
        weight.mul_(1 - lr * self._weight_decay)
        weight.view(momentum_AB.shape).add_(orthogonal(ahead_AB), alpha=-lr * size)

    def state_dict(self) -> dict[str, Any]:
        return {"muon": self._momenta, "adam": self._adam and self._adam.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        for momentum, saved in zip(self._momenta, state_dict["muon"], strict=True):
            momentum.copy_(saved)
        if self._adam:
            self._adam.load_state_dict(state_dict["adam"])


def orthogonal(matrix_AB: Tensor, steps: int = 5) -> Tensor:
    """(A, B): about U V^T of the singular value decomposition U S V^T, by Newton and Schulz's iteration.

    "About": the singular values end between 0.7 and 1.2, which training does not mind.
    """
    wide = matrix_AB.mT if matrix_AB.shape[0] > matrix_AB.shape[1] else matrix_AB
    x = wide.to(compute_dtype(matrix_AB.device))
    x = x / x.norm().clamp(min=1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    x = x.to(matrix_AB.dtype)
    return x.mT if matrix_AB.shape[0] > matrix_AB.shape[1] else x
