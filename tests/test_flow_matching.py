"""Training the picture model on a few made-up subjects: pools of latents, batches, steps, previews, LoRAs."""

from __future__ import annotations

import dataclasses
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_pictures import silent
from tiny_weights import WordTokenizer, word_features
from torch import Tensor
from torch.nn import functional as F

from flowtailor.datasets import scenes
from flowtailor.datasets.pictures import Pictures
from flowtailor.datasets.scenes import Scene
from flowtailor.errors import FlowtailorError
from flowtailor.studio.flow_matching import Recipe, draw_sigma, flow_loss, train_checkpoint
from flowtailor.studio.latents import Batches, Pool, encode_pool
from flowtailor.studio.lora import train_lora
from flowtailor.studio.mmdit import MMDiT
from flowtailor.studio.previews import Montage, sample
from flowtailor.studio.text_encoder import Captions, build

RECIPE = Recipe(steps=8, warmup=2, tokens=128, sizes={64: 0.5, 96: 0.5}, compile=False)
PER_SUBJECT = {"3d": 2, "line": 1}


def encode(images: Tensor) -> Tensor:
    """In place of the autoencoder: mean colours of 8 x 8 px, over and over."""
    return F.avg_pool2d(images * 2 - 1, 8).repeat(1, 6, 1, 1)[:, :16]


def decode(latents: Tensor) -> Tensor:
    return F.interpolate(latents[:, :3] / 2 + 0.5, scale_factor=8)


@pytest.fixture(scope="module")
def captions() -> Captions:
    return Captions(build(word_features, WordTokenizer()), WordTokenizer())


@pytest.fixture(scope="module")
def pools(pictures: Pictures, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Pool]:
    folder = tmp_path_factory.mktemp("pools")
    return {
        size: encode_pool(pictures, encode, folder, size, PER_SUBJECT, encoder="mean") for size in (64, 96)
    }


@pytest.fixture(scope="module")
def batches(pictures: Pictures, pools: dict[int, Pool]) -> Batches:
    return Batches(pools, lambda scene, random: scenes.caption(pictures, scene, random))


def test_an_interrupted_pool_goes_on(pictures: Pictures, pools: dict[int, Pool], tmp_path: Path, monkeypatch):
    monkeypatch.setattr("flowtailor.studio.latents._CHUNK", 20)
    calls: list[int] = []

    def failing(images: Tensor) -> Tensor:
        calls.append(len(images))
        if len(calls) == 2:
            raise RuntimeError("power cut")
        return encode(images)

    with pytest.raises(RuntimeError):
        encode_pool(pictures, failing, tmp_path, 64, PER_SUBJECT, encoder="mean")
    again = encode_pool(pictures, failing, tmp_path, 64, PER_SUBJECT, encoder="mean")
    assert sum(calls) == len(again.scenes) + 20  # nothing but the chunk that failed came twice
    assert np.array_equal(again.latents, pools[64].latents)
    with pytest.raises(FlowtailorError, match="another encoder"):
        encode_pool(pictures, encode, tmp_path, 64, PER_SUBJECT, encoder="median")


def test_a_specialist_is_shown_what_it_is_for(pictures: Pictures, pools: dict[int, Pool]) -> None:
    weights = np.zeros(len(pictures.subjects))
    weights[[3, 5]] = 1, 3
    seen: list[Scene] = []
    special = Batches(pools, lambda scene, _: seen.append(scene) or "", weights, {"3d": 0.5, "line": 0.5})
    latents, _ = special.draw(64, 400, np.random.default_rng(0))
    assert latents.shape == (400, 16, 8, 8)
    assert 0.65 < np.mean([scene.subject == 5 for scene in seen]) < 0.85
    assert 0.4 < np.mean([scene.style == "line" for scene in seen]) < 0.6  # though there are half as many
    assert {scene.subject for scene in seen} == {3, 5}
    with pytest.raises(FlowtailorError, match="no scene"):
        Batches(pools, lambda scene, _: "", weights, styles={"pixel": 1.0})


def test_noise_levels_cover_everything_and_prefer_the_middle() -> None:
    sigma = draw_sigma(4000, np.random.default_rng(0))
    assert 0 < sigma.min() < 0.01
    assert 0.99 < sigma.max() < 1
    assert 0.55 < sigma.median() < 0.6
    assert draw_sigma(4000, np.random.default_rng(0), middle=-1.0).median() < 0.35
    assert (draw_sigma(16, np.random.default_rng(1)).sort().values.diff() < 0.3).all()


def test_training_that_was_stopped_ends_the_same(
    pictures: Pictures, pools: dict[int, Pool], captions: Captions, tmp_path: Path
) -> None:
    phrased = []

    def caption(scene: Scene, random: np.random.Generator) -> str:
        phrased.append(scene)
        if len(phrased) == 12:
            signal.raise_signal(signal.SIGINT)
        return scenes.caption(pictures, scene, random)

    batches = Batches(pools, caption)
    with pytest.raises(KeyboardInterrupt):
        train_checkpoint(RECIPE, batches, captions, out=tmp_path, name="parts", echo=silent)
    assert (tmp_path / "parts.state.pt").exists()
    parts = train_checkpoint(RECIPE, batches, captions, out=tmp_path, name="parts", echo=silent)
    whole = train_checkpoint(RECIPE, batches, captions, out=tmp_path, name="whole", echo=silent)
    assert all(torch.equal(parts[name], weight) for name, weight in whole.items())


def test_learns_and_shows_what_it_learned(batches: Batches, captions: Captions, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, steps=30, ema=0.9)
    montage = Montage(captions, ["thing 1", "thing 2"], decode, tmp_path / "previews", (64, 96), steps=2)
    weights = train_checkpoint(
        recipe, batches, captions, out=tmp_path, name="all", echo=silent, preview=montage, preview_every=30
    )
    with Image.open(tmp_path / "previews" / "000030.png") as sheet:
        assert sheet.size == (192, 192)

    model, untrained = MMDiT(), MMDiT()
    model.load_state_dict(weights)
    losses = [error(m, batches, captions) for m in (model, untrained)]
    assert losses[0] < 0.75 * losses[1]
    first, second = (sample(model, captions, ["thing 1"], size=64, steps=2, seed=seed) for seed in (1, 2))
    assert torch.equal(first, sample(model, captions, ["thing 1"], size=64, steps=2, seed=1))
    assert not torch.equal(first, second)

    lora = train_lora(
        dataclasses.replace(RECIPE, steps=2),
        weights,
        batches,
        captions,
        out=tmp_path,
        name="lora",
        rank=4,
        echo=silent,
    )
    assert lora["joint_blocks.0.x_block.attn.qkv.down"].shape == (4, 256)
    assert lora["joint_blocks.3.x_block.mlp.fc2.up"].any()


@torch.no_grad()
def error(model: MMDiT, batches: Batches, captions: Captions) -> float:
    """Of one batch at fixed noise levels."""
    torch.manual_seed(0)
    x0, texts = batches.draw(64, 16, np.random.default_rng(0))
    return float(flow_loss(model, x0, torch.linspace(0.05, 0.95, 16), *captions(texts), captions).mean())
