"""Token sequences that begin alike, each shared beginning computed once.

Shapes: N nodes, one per distinct prefix; M of them read last; V words of the space; R rows; P tokens of the
longest prompt; H heads of D numbers each.

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
        self._memory: list[tuple[torch.Tensor, torch.Tensor]] = []  # of each layer: keys, values (1, H, N, D)
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

    def read(self, model: Any) -> torch.Tensor:
        """(M, V): what comes after each node that is new since the last reading, and sees the earlier ones as
        they were read then."""
        weight = next(model.parameters())
        new = slice(self.seen, len(self))
        cache = _cache(self._memory)
        logits = model(
            input_ids=torch.tensor([self._tokens[new]], device=weight.device),
            position_ids=torch.tensor([[len(path) - 1 for path in self._paths[new]]], device=weight.device),
            attention_mask=self._bias(weight.dtype).to(weight.device),
            past_key_values=cache,
            use_cache=True,
        ).logits[0]
        self._memory = [(layer.keys, layer.values) for layer in cache.layers]  # type: ignore[misc]
        self.seen = len(self)
        return logits

    def rows(self, paths: Sequence[Sequence[int]]) -> tuple[DynamicCache, torch.Tensor]:
        """What was read along the paths as a cache of R rows, and which of its places are real, (R, P).

        Paths are padded on the left.
        """
        longest = max(map(len, paths))
        padded = torch.tensor([[0] * (longest - len(path)) + list(path) for path in paths])
        real = torch.tensor([[0] * (longest - len(path)) + [1] * len(path) for path in paths])
        if not longest:
            return _cache([]), real.long()
        device = self._memory[0][0].device
        place = padded.to(device)
        taken = [tuple(part[0][:, place].transpose(0, 1) for part in layer) for layer in self._memory]
        return _cache(taken), real.to(device)

    def _bias(self, dtype: torch.dtype) -> torch.Tensor:
        """(1, 1, M, N) added to the attention: 0 where the column is the row's ancestor or itself."""
        new = self._paths[self.seen :]
        readers = [row for row, path in enumerate(new) for _ in path]
        seen = [ancestor for path in new for ancestor in path]
        bias = torch.full((len(new), len(self)), torch.finfo(dtype).min, dtype=dtype)
        bias[readers, seen] = 0.0
        return bias[None, None]


def _cache(memory: Sequence[tuple[torch.Tensor, ...]]) -> DynamicCache:
    """What a model goes on from that has read them: keys and values of each layer, or nothing."""
    return DynamicCache(ddp_cache_data=memory) if memory else DynamicCache()


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
