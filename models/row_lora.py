"""LoRA adapters side by side in one batch, for decoding.

Shapes: B rows, N names with B / N rows each, I inputs and O outputs of a layer, r rank.

PEFT mixes adapters too (`adapter_names`), but hangs a hook on every layer for each call and looks the rows
up in each of them, which costs a decoding step of few rows more than the adapter itself. Here the rows of a
name lie together, so that its part is a slice. The model that is trained stays as it is, and what it learns
later is not seen.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, cast

import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from torch.nn.functional import linear

BASE = "__base__"  # PEFT's name for "no adapter"


class RowLora(nn.Module):
    """A linear layer whose rows have an adapter each, by the order of `names`."""

    @torch.no_grad()
    def __init__(self, layer: LoraLayer, names: Sequence[str]) -> None:
        super().__init__()
        self.base = cast(nn.Linear, layer.get_base_layer())
        self.names, self.down, self.up = tuple(names), {}, {}
        for name in set(names) - {BASE}:
            down_rI, up_Or = (part[name].weight for part in (layer.lora_A, layer.lora_B))
            self.down[name] = down_rI.to(self.base.weight.dtype)
            self.up[name] = (up_Or * layer.scaling[name]).to(self.base.weight.dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.base(x)
        rows = len(x) // len(self.names)
        for place, name in enumerate(self.names):
            if name != BASE:
                mine = slice(place * rows, (place + 1) * rows)
                out[mine] += linear(linear(x[mine], self.down[name]), self.up[name])
        return out


def with_rows(model: Any, names: Sequence[str]) -> Any:
    """A twin of a model that shares its weights, for batches whose equal parts have the adapters `names`."""
    if isinstance(model, LoraLayer):
        return RowLora(model, names)
    twin = copy.copy(model)
    twin.__dict__.pop("forward", None)  # TRL's trainers put one there that is bound to the model itself
    children = model.named_children()
    twin._modules = model._modules | {name: with_rows(child, names) for name, child in children}
    return twin
