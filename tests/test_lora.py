"""LoRAs: what they add, and that ComfyUI adds the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from engine_code import answers
from tiny_weights import random_model, random_vae, word_features

from flowtailor.studio.checkpoint import write_checkpoint
from flowtailor.studio.install import Studio
from flowtailor.studio.lora import adapt, save_lora
from flowtailor.studio.text_encoder import Captions, build, load_tokenizer


def test_additions_start_at_nothing_and_are_all_that_is_trained() -> None:
    model = random_model()
    inputs = torch.randn(2, 16, 8, 8), torch.tensor([100.0, 900]), torch.randn(2, 5, 768), torch.randn(2, 768)
    before = model(*inputs)
    additions = adapt(model, rank=4)
    after = model(*inputs)
    assert torch.equal(before, after)
    after.square().mean().backward()
    assert all(p.grad is not None for name, p in additions.items() if name.endswith("up"))
    assert {id(p) for p in model.parameters() if p.requires_grad} == {id(p) for p in additions.values()}


@pytest.mark.engine
def test_the_engine_adds_the_same(studio: Studio, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(studio.comfyui)
    text, model = build(word_features, tokenizer), random_model()
    write_checkpoint(model.state_dict(), text, random_vae(), tmp_path / "random.ckpt")
    additions = adapt(model, rank=4)
    with torch.no_grad():
        for p in additions.values():
            p.copy_(p.normal_(std=0.1).half().float())
    save_lora(
        {name.replace("/", "."): p.detach() for name, p in additions.items()}, tmp_path / "some.safetensors"
    )
    x, t = torch.randn(16, 16, 16), torch.tensor(700.0)
    checkpoint = tmp_path / "random.ckpt"
    [plain] = answers(studio, checkpoint, ["a cat"], [x], [t])
    [adapted] = answers(studio, checkpoint, ["a cat"], [x], [t], lora=tmp_path / "some.safetensors")

    captions = Captions(text, tokenizer)
    with torch.inference_mode():
        ours = model(x[None], t[None], *captions(["a cat"]), captions.key_bias(64))
    assert (plain["out"] - adapted["out"]).abs().mean() > 0.01
    assert torch.allclose(ours, adapted["out"], atol=1e-3)
