"""The text encoder: how it is stored, what it keeps of a caption, and how training reads it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_weights import WordTokenizer, word_features
from torch import Tensor

from flowtailor.studio.checkpoint import load_text_encoder, save_text_encoder
from flowtailor.studio.install import Studio
from flowtailor.studio.text_encoder import Captions, build, load_tokenizer


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return build(word_features, WordTokenizer())


@pytest.fixture(scope="module")
def captions(weights: dict[str, Tensor]) -> Captions:
    return Captions(weights, WordTokenizer())


def test_123_million_weights_take_three_megabytes(weights: dict[str, Tensor], tmp_path: Path) -> None:
    assert sum(w.numel() for w in weights.values()) > 120e6
    save_text_encoder(weights, tmp_path / "text_encoder.pt")
    assert (tmp_path / "text_encoder.pt").stat().st_size < 3.5e6
    loaded = load_text_encoder(tmp_path / "text_encoder.pt")
    assert all(torch.equal(loaded[name], weight) for name, weight in weights.items())


def test_the_pooled_text_is_a_bag_of_words(captions: Captions) -> None:
    context, pooled = captions(["a cat on a dog", "a dog on a cat", "a cat on a hat"])
    same = torch.cosine_similarity(pooled[0], pooled[1], dim=0)
    other = torch.cosine_similarity(pooled[0], pooled[2], dim=0)
    assert other < same - 0.02
    assert not torch.equal(context[0], context[1])  # the context knows the order


def test_long_captions_are_cut(captions: Captions) -> None:
    many = " ".join(f"word{i}" for i in range(40))
    cut = " ".join(f"word{i}" for i in range(14))
    assert torch.equal(captions([many])[0], captions([cut])[0])


@pytest.mark.engine
def test_words_are_tokenized_as_in_the_whole_caption(studio: Studio, weights: dict[str, Tensor]) -> None:
    tokenizer = load_tokenizer(studio.comfyui)
    captions = Captions(weights, tokenizer)
    for text in ("mrs. claus, pixel art", "a woman's hat", "an 8-bit sprite of a  t-rex!", "piñata"):
        assert captions.tokenize(text) == tokenizer(text)["input_ids"][1:-1]
