"""Token sequences that begin alike, each shared beginning computed once.

Shapes: N nodes, one per distinct prefix; M of them read last; V words of the space; C copies; H heads of D
numbers each.

A group of GRPO has one prompt, and the surer the policy the longer its designs agree. What a causal model
says after a prefix depends on the prefix alone; so one forward over a tree, in which a node sees its
ancestors and itself, says what a forward of all the rows would (up to rounding), with no row read twice
and no padding. Promises nothing about the size of the batch: attention is N x N, which is nothing beside
the linear layers for some tens of designs, but not for a thousand.

Prompts may be read by the policy alone. An adapter then changes what is said, not what is heard: it acts from
the last token of a prompt on, as in activated LoRA (arXiv 2504.12397). So the policy and its adapters share
what they know of a prompt, and GRPO, which leaves the policy as it is, reads a step's prompts once, without
gradients.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from transformers import DynamicCache


class PrefixTree:
    """Sequences are added, then a model reads the new nodes in one forward, with gradients."""

    def __init__(self) -> None:
        self._tokens: list[int] = []
        self._paths: list[list[int]] = []  # of each node: its ancestors from the first token on, and itself
        self._children: dict[tuple[int, int, bool], int] = {}  # (parent or -1, token, is said) -> node
        self._memory: list[tuple[torch.Tensor, torch.Tensor]] = []  # of each layer: keys, values (C, H, N, D)
        self.seen = 0  # nodes that were read

    def __len__(self) -> int:
        return len(self._tokens)

    def copy(self) -> PrefixTree:
        """A tree with the same nodes, as far as they were read, that grows by itself."""
        twin = copy.copy(self)
        twin._tokens, twin._paths = self._tokens.copy(), self._paths.copy()
        twin._children = self._children.copy()
        return twin

    def add(self, tokens: Iterable[int], after: Sequence[int] | None = None) -> list[int]:
        """The node of each place of a sequence; new ones only where no earlier sequence began so.

        after: the path of a prompt, which the tokens are said after. What is said has nodes of its own, even
        where another prompt goes on with the same tokens.
        """
        path = list(after or ())
        for token in tokens:
            key = (path[-1] if path else -1, token, after is not None)
            node = self._children.setdefault(key, len(self))
            path.append(node)
            if node == len(self):
                self._tokens.append(token)
                self._paths.append(path.copy())
        return path[len(after or ()) :]

    def read(self, model: Any, copies: int = 1) -> torch.Tensor:
        """(C, M, V): what comes after each node that is new since the last reading, and sees the earlier ones
        as they were read then.

        copies: C, rows of the batch with the same tokens, for a model that treats its rows differently; what
        was read in one copy before serves all.
        """
        weight = next(model.parameters())
        new = slice(self.seen, len(self))
        places = [len(path) - 1 for path in self._paths[new]]
        cache = DynamicCache(ddp_cache_data=[_copied(layer, copies) for layer in self._memory] or None)
        logits = model(
            input_ids=torch.tensor([self._tokens[new]] * copies, device=weight.device),
            position_ids=torch.tensor([places] * copies, device=weight.device),
            attention_mask=self._bias(weight.dtype).to(weight.device).expand(copies, -1, -1, -1),
            past_key_values=cache,
            use_cache=True,
        ).logits
        self._memory = [(layer.keys, layer.values) for layer in cache.layers]  # type: ignore[misc]
        self.seen = len(self)
        return logits

    def _bias(self, dtype: torch.dtype) -> torch.Tensor:
        """(1, 1, M, N) added to the attention: 0 where the column is the row's ancestor or itself."""
        new = self._paths[self.seen :]
        readers = [row for row, path in enumerate(new) for _ in path]
        seen = [ancestor for path in new for ancestor in path]
        bias = torch.full((len(new), len(self)), torch.finfo(dtype).min, dtype=dtype)
        bias[readers, seen] = 0.0
        return bias[None, None]


def _copied(layer: tuple[torch.Tensor, torch.Tensor], copies: int) -> tuple[torch.Tensor, torch.Tensor]:
    keys, values = layer
    return keys.expand(copies, -1, -1, -1), values.expand(copies, -1, -1, -1)


class PromptReader:
    """Reads prompts with a model that has no adapter, or none that acts; remembers the last ones."""

    def __init__(self, model: Any) -> None:
        self._model, self._tree = model, PrefixTree()

    @torch.no_grad()
    def read(self, prompts: Sequence[Sequence[int]]) -> tuple[PrefixTree, list[list[int]]]:
        """A tree in which all but the last token of each prompt were read, and the paths to there."""
        heard = [prompt[:-1] for prompt in prompts]
        tree = self._tree.copy()
        paths = [tree.add(tokens) for tokens in heard]
        if len(tree) > tree.seen:
            tree = PrefixTree()
            paths = [tree.add(tokens) for tokens in heard]
            tree.read(self._model)
            self._tree = tree
        return tree.copy(), paths
