"""The picture model and its text encoder compute what ComfyUI's own code computes from the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from engine_code import answers
from tiny_weights import random_model, random_vae, word_features

from flowtailor.studio.checkpoint import write_checkpoint
from flowtailor.studio.install import Studio
from flowtailor.studio.mmdit import MMDiT, positions
from flowtailor.studio.text_encoder import Captions, build, load_tokenizer

TEXTS = ["a red apple", "", "two cats, a dog's bone and three blue umbrellas on a yellow"]


@pytest.mark.engine
def test_equals_the_engines_own_code(studio: Studio, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(studio.comfyui)
    text, model = build(word_features, tokenizer), random_model()
    write_checkpoint(model.state_dict(), text, random_vae(), tmp_path / "random.ckpt")
    assert (tmp_path / "random.ckpt").stat().st_size < 24e6
    x = [torch.randn(16, *size) for size in ((16, 16), (32, 32), (16, 24))]
    t = [torch.tensor(time) for time in (900.0, 301.5, 20.0)]
    said = answers(studio, tmp_path / "random.ckpt", TEXTS, x, t)

    captions = Captions(text, tokenizer)
    for theirs, caption, latent, time in zip(said, TEXTS, x, t, strict=True):
        context, pooled = captions([caption])
        assert torch.equal(context[0, :16], theirs["context"][0, :16, :768])
        assert torch.equal(context[0, 16:].expand(61, -1), theirs["context"][0, 16:, :768])
        assert torch.allclose(pooled, theirs["pooled"][:, :768], atol=2e-6)
        bias = captions.key_bias(latent[0].numel() // 4)
        with torch.inference_mode():
            ours = model(latent[None], time[None], context, pooled, bias)
        assert theirs["out"].std() > 0.1  # not the trivial zero
        assert torch.allclose(ours, theirs["out"], atol=1e-4)


def test_predicts_nothing_before_training() -> None:
    model = MMDiT(depth=2)
    out = model(torch.randn(3, 16, 8, 8), torch.rand(3), torch.randn(3, 5, 768), torch.randn(3, 768))
    assert out.shape == (3, 16, 8, 8)
    assert not out.any()


def test_the_same_place_has_the_same_position_at_every_size() -> None:
    small, large = (positions(n, n, 256, torch.device("cpu")).view(n, n, 256) for n in (8, 16))
    for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        assert torch.allclose(small[corner], large[corner], atol=1e-6)
