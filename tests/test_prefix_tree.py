"""One forward over a tree against a forward of every row."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_policy import tiny_policy

from flowtailor.models.policy import Policy
from flowtailor.models.prefix_tree import PrefixTree

ROWS = ([5, 6, 7, 8], [5, 6, 7, 9, 10], [5, 6, 7, 8], [5, 11], [12, 6, 7])


def gradients(policy: Policy, loss: torch.Tensor) -> list[torch.Tensor]:
    parameters = [p for p in policy.model.parameters() if p.requires_grad]
    return list(torch.autograd.grad(loss, parameters, allow_unused=False))


def test_a_beginning_that_was_seen_is_no_new_node() -> None:
    tree = PrefixTree()
    assert tree.add([5, 6, 7]) == [0, 1, 2]
    assert tree.add([5, 6, 8]) == [0, 1, 3]
    assert tree.add([6, 6]) == [4, 5]  # the same token after another beginning is another node
    assert tree.add([5, 6, 8]) == [0, 1, 3]
    assert len(tree) == 6


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_logits_and_gradients_are_those_of_the_rows(tmp_path: Path, attention: str) -> None:
    policy = tiny_policy(tmp_path)
    policy.model.set_attn_implementation(attention)  # type: ignore[operator]
    tree = PrefixTree()
    paths = [tree.add(row) for row in ROWS]
    assert len(tree) == 10 < sum(map(len, ROWS))
    once = [tree.logits(policy.model)[path] for path in paths]
    each = [policy.model(torch.tensor([row])).logits[0] for row in ROWS]
    for shared, plain in zip(once, each, strict=True):
        assert torch.allclose(shared, plain, atol=1e-5)
    shared, plain = (
        gradients(policy, sum((row.square().sum() for row in rows), torch.tensor(0.0)))
        for rows in (once, each)
    )
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-3) for a, b in zip(shared, plain, strict=True))
