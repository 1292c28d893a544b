"""Trains LoRAs: small additions to a frozen picture model, which ComfyUI's LoraLoader adds at any strength.

Shape legend: R rank, I inputs and O outputs of a weight.

Promises: the file that `save_lora` writes has the names that LoraLoader reads, and at strength 1 changes
the model exactly as in training. Touches the blocks' linear layers alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from .flow_matching import Preview, Recipe, fit
from .latents import Batches
from .mmdit import MMDiT
from .text_encoder import Captions

_ADAPTED = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")


class Adapted(nn.Module):
    """A frozen linear layer with an addition of rank R that starts at zero."""

    def __init__(self, frozen: nn.Linear, rank: int) -> None:
        super().__init__()
        self.frozen = frozen.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(rank, frozen.in_features) / frozen.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(frozen.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.frozen(x) + F.linear(F.linear(x, self.down), self.up)


def adapt(model: MMDiT, rank: int) -> nn.ParameterDict:
    """Freeze `model`, put additions beside its layers, and return these under their layers' names.

    Names have no dots: `joint_blocks/0/x_block/attn/qkv/down`.
    """
    model.requires_grad_(False)
    found = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and n.endswith(_ADAPTED)]
    additions = nn.ParameterDict()
    for name in found:
        parent, _, last = name.rpartition(".")
        holder = model.get_submodule(parent)
        layer = holder.get_submodule(last)
        assert isinstance(holder, nn.ModuleDict)
        assert isinstance(layer, nn.Linear)
        holder[last] = adapted = Adapted(layer, rank)
        additions[f"{name}.down".replace(".", "/")] = adapted.down
        additions[f"{name}.up".replace(".", "/")] = adapted.up
    return additions


def train_lora(
    recipe: Recipe,
    start: dict[str, Tensor],
    batches: Batches,
    captions: Captions,
    *,
    out: Path,
    name: str,
    rank: int = 16,
    preview: Preview | None = None,
    preview_every: int = 1000,
    echo: Callable[[str], None] = print,
) -> dict[str, Tensor]:
    """Train additions to the checkpoint `start` and return them; write them with `save_lora`."""
    torch.manual_seed(recipe.seed)
    model = MMDiT()
    model.load_state_dict(start)
    additions = adapt(model, rank)
    fit(
        recipe,
        model,
        additions,
        batches,
        captions,
        out=out,
        name=name,
        preview=preview,
        preview_every=preview_every,
        echo=echo,
    )
    return {key.replace("/", "."): value.detach().cpu() for key, value in additions.items()}


def save_lora(additions: dict[str, Tensor], path: Path) -> None:
    """Write a .safetensors for LoraLoader, float16, 1 MB at rank 16."""
    state: dict[str, Tensor] = {}
    for name, weight in additions.items():
        layer, _, side = name.rpartition(".")
        state[f"diffusion_model.{layer}.lora_{side}.weight"] = weight.half().contiguous()
        if side == "down":
            state[f"diffusion_model.{layer}.alpha"] = torch.tensor(float(len(weight)))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path)
