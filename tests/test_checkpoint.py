"""Weights in their small form, and the checkpoint that the engine draws with."""

from __future__ import annotations

import dataclasses
import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny_weights import random_model, random_vae, word_features

from flowtailor.actors.client import ComfyClient
from flowtailor.errors import FlowtailorError
from flowtailor.studio.checkpoint import assemble, load_small, save_small, save_text_encoder
from flowtailor.studio.engine import EngineProcess, new_run_dir, studio_launch
from flowtailor.studio.install import Studio
from flowtailor.studio.text_encoder import build, load_tokenizer
from flowtailor.workflows.graph import Workflow


def test_eight_bits_come_close(tmp_path: Path) -> None:
    state = random_model().state_dict()
    save_small(state, tmp_path / "small.safetensors")
    assert (tmp_path / "small.safetensors").stat().st_size < 9.7e6
    again = load_small(tmp_path / "small.safetensors")
    assert again.keys() == state.keys()
    for name, weight in state.items():
        assert again[name].shape == weight.shape
        error = (again[name] - weight).square().mean().sqrt() / weight.square().mean().sqrt()
        assert error < 0.012, name
        as_float8 = (weight.to(torch.float8_e4m3fn).float() - weight).square().mean().sqrt()
        assert weight.dim() == 1 or error * weight.square().mean().sqrt() < as_float8 / 2


def test_differences_from_what_training_went_on_from_are_smaller_and_exact(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = random_model().state_dict()
    gone_on = {name: weight + 0.1 * weight.std() * torch.randn_like(weight) for name, weight in state.items()}
    save_small(state, tmp_path / "base.safetensors")
    save_small(gone_on, tmp_path / "whole.safetensors")
    save_small(gone_on, tmp_path / "on.npz", base=tmp_path / "base.safetensors")
    assert (tmp_path / "on.npz").stat().st_size < 0.75 * (tmp_path / "whole.safetensors").stat().st_size
    whole, on = load_small(tmp_path / "whole.safetensors"), load_small(tmp_path / "on.npz")
    assert whole.keys() == on.keys()
    assert all(torch.equal(whole[name], on[name]) for name in whole)


@pytest.mark.parametrize("name", ["broken.safetensors", "broken.npz"])
def test_a_file_that_is_none_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not weights")
    with pytest.raises(FlowtailorError, match=rf"{name}: no weights"):
        load_small(tmp_path / name)


@pytest.mark.engine
def test_the_engine_draws_with_an_assembled_checkpoint(
    studio: Studio, plain_api: dict[str, Any], tmp_path: Path
) -> None:
    save_small(random_model().state_dict(), tmp_path / "mmdit.safetensors")
    save_text_encoder(build(word_features, load_tokenizer(studio.comfyui)), tmp_path / "text_encoder.pt")
    save_file(random_vae(), tmp_path / "vae.safetensors")
    models = tmp_path / "models"
    assemble(
        tmp_path / "mmdit.safetensors",
        tmp_path / "text_encoder.pt",
        tmp_path / "vae.safetensors",
        models / "checkpoints" / "tiny.ckpt",
    )

    run_dir = new_run_dir()
    launch = studio_launch(dataclasses.replace(studio, models=models), run_dir, threads=1)
    engine = EngineProcess.start(launch, run_dir, timeout_s=90)
    client = ComfyClient(engine.url)
    try:
        plain_api["1"]["inputs"]["ckpt_name"] = "tiny.ckpt"
        for size in (128, 256):
            plain_api["4"]["inputs"] |= {"width": size, "height": size}
            flow = Workflow.from_api(plain_api).bind("a red apple", 1).to_api()
            start = time.perf_counter()
            drawn = client.render(flow)
            print(f"{size} px: {time.perf_counter() - start:.2f} s")
            assert np.asarray(Image.open(io.BytesIO(drawn.png))).shape == (size, size, 3)
    finally:
        client.close()
        engine.stop()
