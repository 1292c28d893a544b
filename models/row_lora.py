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

from .int8 import Int8Linear

BASE = "__base__"  # PEFT's name for "no adapter"


class RowLora(nn.Module):
    """A linear layer whose rows have an adapter each, by the order of `names`."""

    @torch.no_grad()
    def __init__(self, layer: LoraLayer, names: Sequence[str]) -> None:
        super().__init__()
        self.base = cast(nn.Linear | Int8Linear, layer.get_base_layer())
        dtype = self.base.dtype if isinstance(self.base, Int8Linear) else self.base.weight.dtype
        self.names, self.halves = tuple(names), {}
        for name in set(names) - {BASE}:
            down_rI, up_Or = (cast(torch.Tensor, half[name].weight) for half in (layer.lora_A, layer.lora_B))
            scaled_Or = up_Or * layer.scaling[name]
            self.halves[name] = tuple(half.T.to(dtype).contiguous() for half in (down_rI, scaled_Or))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.base(x)
        # Seven layers in each of thirty, for each word: few and small steps, written into what is there.
        heard, said = x.flatten(0, -2), out.view(-1, out.shape[-1])
        rows = len(heard) // len(self.names)
        for place, name in enumerate(self.names):
            if name != BASE:
                down_Ir, up_rO = self.halves[name]
                mine = heard.narrow(0, place * rows, rows)
                said.narrow(0, place * rows, rows).addmm_(mine @ down_Ir, up_rO)
        return out


def with_rows(model: Any, names: Sequence[str]) -> Any:
    """A twin of a model that shares its weights, for batches whose equal parts have the adapters `names`."""
    if isinstance(model, LoraLayer):
        return RowLora(model, names) if {*names} - {BASE} else model.get_base_layer()
    twin = copy.copy(model)
    twin.__dict__.pop("forward", None)  # TRL's trainers put one there that is bound to the model itself
    children = model.named_children()
    twin._modules = model._modules | {name: with_rows(child, names) for name, child in children}
    return twin
