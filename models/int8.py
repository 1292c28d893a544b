"""Linear layers with weights of eight bits, for decoding on a CPU.

Shapes: B rows, I inputs and O outputs of a layer.

A word costs a CPU the reading of all weights, whatever it computes with them. As whole numbers with one scale
per output they are a quarter as many bytes, and a second row, the other half of guided decoding, costs nearly
nothing. Products are computed in bfloat16, so logits agree with those of the full weights to about a
hundredth. Not for training: nothing here has a gradient.
"""

from __future__ import annotations

import torch
from torch import nn

LEVELS = 127  # of a weight's size
BLOCK = 32  # PyTorch's kernel reads and writes so many numbers at once, and looks at no end before


class Int8Linear(nn.Module):
    """A linear layer without a bias, as whole numbers times a scale per output."""

    weight: torch.Tensor
    scale: torch.Tensor

    @torch.no_grad()
    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        assert fits(layer), f"{layer}: sizes must be multiples of {BLOCK}"
        self.dtype = layer.weight.dtype  # of what comes in and goes out
        scale_O = (layer.weight.abs().amax(dim=1) / LEVELS).clamp(min=1e-12).bfloat16()
        weight_OI = (layer.weight / scale_O.float()[:, None]).round().clamp(-LEVELS, LEVELS)
        self.register_buffer("weight", weight_OI.to(torch.int8))
        self.register_buffer("scale", scale_O)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows_BI = x.flatten(0, -2).bfloat16()
        out_BO = torch.ops.aten._weight_int8pack_mm(rows_BI, self.weight, self.scale)
        return out_BO.to(x.dtype).unflatten(0, x.shape[:-1])


def shrink(model: nn.Module) -> None:
    """Give a model on a CPU such layers in place of its own, but LoRA's halves and those that have a bias or
    odd sizes."""
    for module in list(model.modules()):
        if isinstance(module, nn.ModuleDict):  # an adapter's halves, by its name
            continue
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear and child.bias is None and fits(child):
                setattr(module, name, Int8Linear(child))


def fits(layer: nn.Linear) -> bool:
    return layer.in_features % BLOCK == 0 and layer.out_features % BLOCK == 0
