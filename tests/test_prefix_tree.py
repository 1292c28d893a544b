"""One forward over a tree against a forward of every row."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_policy import tiny_policy

from flowtailor.models.policy import Policy
from flowtailor.models.prefix_tree import PrefixTree, PromptReader

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
    logits = tree.read(policy.model)[0]
    once = [logits[path] for path in paths]
    each = [policy.model(torch.tensor([row])).logits[0] for row in ROWS]
    for shared, plain in zip(once, each, strict=True):
        assert torch.allclose(shared, plain, atol=1e-5)
    shared, plain = (
        gradients(policy, sum((row.square().sum() for row in rows), torch.tensor(0.0)))
        for rows in (once, each)
    )
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-3) for a, b in zip(shared, plain, strict=True))


def test_what_is_said_after_a_prompt_is_none_of_another_prompt() -> None:
    tree = PrefixTree()
    prompt, longer = tree.add([5, 6]), tree.add([5, 6, 7])
    said = tree.add([7, 8], after=prompt)
    assert (prompt, longer, said) == ([0, 1], [0, 1, 2], [3, 4])
    assert tree.add([7, 9], after=prompt) == [3, 5]


def test_nodes_that_were_read_earlier_are_seen_as_they_were(tmp_path: Path) -> None:
    policy = tiny_policy(tmp_path)
    tree = PrefixTree()
    heard = [tree.add(row[:2]) for row in ROWS]
    tree.read(policy.model)
    said = [tree.add(row[2:], after=path) for row, path in zip(ROWS, heard, strict=True)]
    known, logits = tree.seen, tree.read(policy.model)[0]
    for row, nodes in zip(ROWS, said, strict=True):
        plain = policy.model(torch.tensor([row])).logits[0, 2:]
        assert torch.allclose(logits[[node - known for node in nodes]], plain, atol=1e-5)


def test_copies_go_on_from_what_was_read_once(tmp_path: Path) -> None:
    policy = tiny_policy(tmp_path)
    tree = PrefixTree()
    path = tree.add([5, 6, 7])
    tree.read(policy.model)
    for token, before in ((8, [5, 6, 7]), (9, [5, 6, 7, 8])):
        path += tree.add([token], after=path)
        logits = tree.read(policy.model, copies=2)
        plain = policy.model(torch.tensor([[*before, token]])).logits[0, -1]
        assert torch.allclose(logits[:, 0], plain.expand(2, -1), atol=1e-5)


def test_prompts_are_read_once(tmp_path: Path) -> None:
    policy, readings = tiny_policy(tmp_path), []
    policy.model.register_forward_hook(lambda *_: readings.append(1))
    reader = PromptReader(policy.model)
    for asked, forwards in ((ROWS[:4], 1), (ROWS[1:3], 1), (ROWS[3:], 2), ([[5], [6]], 2)):
        tree, paths = reader.read(asked)
        assert len(readings) == forwards
        assert [len(path) for path in paths] == [len(row) - 1 for row in asked]
        tree.add([3, 4], after=paths[0])  # what is said stays with who says it
