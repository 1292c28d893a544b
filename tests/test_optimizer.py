"""The studio's optimizer: a matrix made orthogonal, and the way that torch's Muon goes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from flowtailor.studio.optimizer import Optimizer, orthogonal


@pytest.mark.parametrize("shape", [(64, 24), (24, 64), (48, 40)])
def test_an_update_gets_singular_values_near_one_and_keeps_its_directions(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    inside = u.mT @ orthogonal(matrix) @ vh.mT
    assert inside.diagonal().min() > 0.5
    assert inside.diagonal().max() < 1.3
    assert (inside - torch.diag(inside.diagonal())).abs().max() < 0.05


def test_steps_are_those_of_torch() -> None:
    torch.manual_seed(0)
    ours = nn.Linear(12, 8, bias=False)
    theirs = copy.deepcopy(ours)
    optimizer = Optimizer(ours.parameters(), weight_decay=0.1)
    muon = torch.optim.Muon(theirs.parameters(), lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    start = ours.weight.detach().clone()
    for _ in range(10):
        ours.weight.grad = torch.randn(8, 12)
        theirs.weight.grad = ours.weight.grad.clone()
        optimizer.step(0.02)
        muon.step()
    moved = (ours.weight - start).norm()
    assert (ours.weight - theirs.weight).norm() < 0.03 * moved  # theirs multiplies in bfloat16


def test_a_convolution_is_a_matrix_with_a_row_for_each_output_channel() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, 3)
    before = conv.weight.detach().clone()
    optimizer = Optimizer(conv.parameters(), weight_decay=0.0)
    conv(torch.randn(2, 4, 8, 8)).square().sum().backward()
    optimizer.step(0.1)
    step = (conv.weight.detach() - before).view(6, -1) / (0.1 * 0.2 * 36**0.5)
    assert torch.linalg.svdvals(step).mean() == pytest.approx(1, abs=0.3)
