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

from flowtailor.actors.comfy import ComfyClient
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


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"not weights")
    with pytest.raises(FlowtailorError, match=r"broken\.safetensors"):
        load_small(tmp_path / "broken.safetensors")


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
