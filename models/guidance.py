"""Guided decoding: next-word logits `l_base + w * (l_adapter - l_base)`.

Shapes: P prompts, R rows, V words of the space.

w = 0 is the base policy, w = 1 the adapted one, w > 1 goes on in the direction that the adapter
learnt, like classifier-free guidance. Both halves are one forward of 2R rows, after a prompt that is read
once for both (`prefix_tree.py`). The grammar's mask comes after the mixing (-inf minus -inf is no number),
in `constrained.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .constrained import CachedDecoder
from .prefix_tree import PromptReader
from .row_lora import BASE


def mix(base: torch.Tensor, adapted: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Logits (R, V) of both policies and w (R,) -> guided logits (R, V)."""
    return base + w[:, None] * (adapted - base)


class GuidedDecoder:
    """A `Decoder` that mixes a policy with one of its adapters, with one w per prompt."""

    def __init__(
        self,
        model: nn.Module,
        columns: torch.Tensor,
        *,
        adapter: str,
        w: Sequence[float],
        reader: PromptReader | None = None,
    ) -> None:
        self._pair = CachedDecoder(model, columns, adapters=(BASE, adapter), reader=reader)
        self._w = torch.tensor(w, dtype=torch.float32, device=self._pair.device)

    def start(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        return self._mixed(self._pair.start(prompts))

    def feed(self, words: Sequence[Sequence[int]]) -> torch.Tensor:
        return self._mixed(self._pair.feed(words))

    def keep(self, rows: Sequence[int]) -> None:
        self._pair.keep(rows)
        self._w = self._w[list(rows)]

    def _mixed(self, logits: torch.Tensor) -> torch.Tensor:
        base, adapted = logits.chunk(2)
        return mix(base, adapted, self._w)
