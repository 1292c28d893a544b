"""Eight bits a weight: the same layer within a hundredth, and adapters beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from tiny_policy import tiny_policy
from torch import nn

from flowtailor.models.int8 import Int8Linear, shrink
from flowtailor.models.policy import lora_config
from flowtailor.models.row_lora import BASE, with_rows


@pytest.mark.parametrize("rows", [(1,), (2, 3), (2, 1, 40)])
def test_a_layer_says_nearly_the_same(rows: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(576, 192, bias=False), torch.randn(*rows, 576)
    exact, short = layer(x), Int8Linear(layer)(x)
    assert short.shape == exact.shape and short.dtype == torch.float32
    assert (short - exact).std() < 0.015 * exact.std()


def test_the_largest_weights_stay_and_zeros_are_no_trouble() -> None:
    layer = nn.Linear(32, 32, bias=False)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[0, :3] = torch.tensor([1.0, -1.0, 0.5])
    assert torch.allclose(Int8Linear(layer)(torch.eye(32)), layer.weight.T, atol=0.01)


def test_layers_that_the_kernel_cannot_take_stay() -> None:
    odd, biased = nn.Linear(32, 31, bias=False), nn.Linear(32, 32)
    model = nn.Sequential(odd, biased)
    shrink(model)
    assert list(model) == [odd, biased]


def test_a_model_shrinks_and_its_adapters_do_not(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = get_peft_model(tiny_policy(tmp_path).model, lora_config(4)).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, std=0.1)
    ids = torch.tensor([[1, 2, 3]] * 2)

    def said() -> torch.Tensor:
        with torch.no_grad():
            return with_rows(model.get_base_model(), (BASE, "default"))(ids).logits

    exact = said()
    shrink(model)
    assert (said() - exact).std() < 0.03 * exact.std()
    kinds = {name.rpartition(".")[2]: type(module) for name, module in model.named_modules()}
    assert kinds["base_layer"] is Int8Linear
    halves = [module for name, module in model.named_modules() if name.endswith("lora_A.default")]
    assert halves and all(type(half) is nn.Linear for half in halves)
