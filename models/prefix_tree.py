"""Token sequences that begin alike, each shared beginning computed once.

Shapes: N nodes, one per distinct prefix; V words of the space.

A group of GRPO has one prompt, and the surer the policy the longer its designs agree. What a causal model
says after a prefix depends on the prefix alone; so one forward over a tree, in which a node sees its
ancestors and itself, says what a forward of all the rows would (up to rounding), with no row read twice
and no padding. Promises nothing about the size of the batch: attention is N x N, which is nothing beside
the linear layers for some tens of designs, but not for a thousand.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch


class PrefixTree:
    """Sequences are added, then the model reads all nodes in one forward, with gradients."""

    def __init__(self) -> None:
        self._tokens: list[int] = []
        self._paths: list[list[int]] = []  # of each node: its ancestors from the first token on, and itself
        self._children: dict[tuple[int, int], int] = {}  # (parent or -1, token) -> node

    def __len__(self) -> int:
        return len(self._tokens)

    def add(self, tokens: Iterable[int]) -> list[int]:
        """The node of each place of a sequence; new ones only where no earlier sequence began so."""
        path: list[int] = []
        for token in tokens:
            node = self._children.setdefault((path[-1] if path else -1, token), len(self))
            path.append(node)
            if node == len(self):
                self._tokens.append(token)
                self._paths.append(path.copy())
        return path

    def logits(self, model: Any) -> torch.Tensor:
        """(N, V): what comes after each node."""
        weight = next(model.parameters())
        return model(
            input_ids=torch.tensor([self._tokens], device=weight.device),
            position_ids=torch.tensor([[len(path) - 1 for path in self._paths]], device=weight.device),
            attention_mask=self._bias(weight.dtype).to(weight.device),
            use_cache=False,
        ).logits[0]

    def _bias(self, dtype: torch.dtype) -> torch.Tensor:
        """(1, 1, N, N) added to the attention: 0 where the column is the row's ancestor or itself."""
        readers = [node for node, path in enumerate(self._paths) for _ in path]
        seen = [ancestor for path in self._paths for ancestor in path]
        bias = torch.full((len(self), len(self)), torch.finfo(dtype).min, dtype=dtype)
        bias[readers, seen] = 0.0
        return bias[None, None]
