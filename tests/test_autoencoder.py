"""The autoencoder: standard latents, ComfyUI's names and numbers, and training that can be stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_pictures import silent

from flowtailor.studio import autoencoder
from flowtailor.studio.autoencoder import Autoencoder, export, measure, standardise, train_autoencoder
from flowtailor.studio.install import Studio
from flowtailor.studio.pixels import draw_pool, to_tensor


@pytest.fixture(scope="module")
def pool(pictures):
    return draw_pool(pictures, {64: 8}, seed=0, echo=silent)


@pytest.fixture(scope="module")
def model(pool) -> Autoencoder:
    """An untrained autoencoder whose latents are standard on the pool."""
    torch.manual_seed(0)
    model = Autoencoder().eval()
    assert isinstance(model.norm, torch.nn.BatchNorm2d)
    model.norm.train()(model.taesd_encoder(to_tensor(pool.pictures[0])).detach())
    model.norm.eval()
    standardise(model, pool)
    return model.requires_grad_(False)


def test_an_eighth_of_the_side_and_back(model):
    latents = model.encode(torch.rand(2, 3, 64, 96))
    assert latents.shape == (2, 16, 8, 12)
    assert model.decode(latents).shape == (2, 3, 64, 96)


def test_latents_have_zero_mean_and_unit_variance_in_every_channel(model, pool):
    latents = model.encode(to_tensor(pool.pictures[0]))
    assert latents.mean((0, 2, 3)).abs().max() < 1e-3
    assert (latents.std((0, 2, 3)) - 1).abs().max() < 1e-3


def test_standardising_leaves_the_pictures_as_they_are(pool):
    """But for the clamp, which is nearly linear for most latents, and the padding at the borders."""
    torch.manual_seed(0)
    model = Autoencoder().eval().requires_grad_(False)
    pixels = to_tensor(pool.pictures[0])
    raw = model.taesd_encoder(pixels)
    assert isinstance(model.norm, torch.nn.BatchNorm2d)
    model.norm.running_mean = raw.mean((0, 2, 3)) + 0.3 * raw.std((0, 2, 3))
    model.norm.running_var = (1.2 * raw.std((0, 2, 3))) ** 2
    latents, before = model.encode(pixels), model.decode(model.encode(pixels))
    standardise(model, pool)
    inner = (..., slice(24, -24), slice(24, -24))
    error, without = (
        (model.decode(z) - before)[inner].std((0, 2, 3)) for z in (model.encode(pixels), latents)
    )
    assert (error < 0.2 * before[inner].std((0, 2, 3))).all() and (error < 0.3 * without).all()


def test_blocks_start_as_nothing():
    block = Autoencoder().taesd_decoder[3]
    maps = torch.rand(1, 64, 4, 4)
    assert torch.equal(block(maps), maps)


def test_export_has_the_names_that_comfyui_looks_for(model, tmp_path):
    weights = export(model)
    assert weights["taesd_decoder.1.weight"].shape == (64, 16, 3, 3)
    assert weights["vae_scale"] == torch.tensor(1.5305)
    save_file(weights, tmp_path / "vae.safetensors")
    assert (tmp_path / "vae.safetensors").stat().st_size < 5.2e6
    loaded = Autoencoder.load(tmp_path / "vae.safetensors")
    pixels = torch.rand(1, 3, 32, 32)
    assert torch.allclose(loaded.encode(pixels), model.encode(pixels), atol=2e-2)


@pytest.mark.engine
def test_the_engines_own_code_computes_the_same(model, studio: Studio, tmp_path):
    """Through its VAE detection, its VAE class and the scaling that it does around the model."""
    save_file(export(model), tmp_path / "vae.safetensors")
    pixels = torch.rand(1, 3, 64, 64)
    torch.save(pixels, tmp_path / "pixels.pt")
    launch = Path(autoencoder.__file__).with_name("launch.py")
    program = f"""
import runpy, sys
sys.argv = ["main.py", "--cpu"]
sys.path[:0] = [{str(studio.comfyui)!r}, {str(studio.site)!r}]
sys.meta_path.insert(0, runpy.run_path({str(launch)!r})["DeclareOperators"]())
import torch, comfy.options
comfy.options.enable_args_parsing()
import comfy.sd, comfy.utils, comfy.latent_formats
vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file({str(tmp_path / "vae.safetensors")!r}))
scaling = comfy.latent_formats.SD3()
seen = scaling.process_in(vae.encode(torch.load({str(tmp_path / "pixels.pt")!r}).movedim(1, -1)))
decoded = vae.decode(scaling.process_out(seen)).movedim(-1, 1)
torch.save([seen, decoded], {str(tmp_path / "theirs.pt")!r})
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)
    latents, output = torch.load(tmp_path / "theirs.pt")
    ours = Autoencoder.load(tmp_path / "vae.safetensors")
    assert torch.allclose(latents, ours.encode(pixels), atol=1e-4)
    assert torch.allclose(output, ours.decode(latents).clamp(0, 1), atol=1e-4)


@pytest.fixture
def small(monkeypatch):
    """Sizes at which a step takes a few hundredths of a second."""
    for name, value in {"POOL": {32: 12}, "HELD_OUT": {32: 8}, "CROP": 16, "BATCH": 2}.items():
        monkeypatch.setattr(autoencoder, name, value)


def test_training_writes_standard_latents_and_a_report(pictures, model, small, tmp_path):
    said: list[str] = []
    path = tmp_path / "weights.safetensors"
    train_autoencoder(pictures, path, out=tmp_path, steps=20, echo=said.append)
    report = json.loads((tmp_path / "autoencoder.json").read_text())
    assert {"psnr_3d", "psnr_flat", "psnr_line", "psnr_pixel"} < report.keys()
    assert report["latent_std"] == pytest.approx(1, abs=0.3)  # of other subjects than it was made standard on
    held_out = draw_pool(pictures, autoencoder.HELD_OUT, seed=0, held_out=True, echo=silent)
    assert measure(Autoencoder.load(path), held_out) == report
    assert report["psnr_3d"] > measure(model, held_out)["psnr_3d"] + 1  # 20 steps are better than none


def test_a_stopped_training_ends_the_same(pictures, small, tmp_path, monkeypatch):
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    train_autoencoder(pictures, whole, out=tmp_path / "whole", steps=5, echo=silent)
    real = autoencoder.colour_loss
    for calls in (3, 4):  # in the joint part, which ends with the second of them, and in the decoder's
        left = iter(range(calls - 1))

        def stops(output, target, left=left):
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGINT)
            return real(output, target)

        monkeypatch.setattr(autoencoder, "colour_loss", stops)
        with pytest.raises(KeyboardInterrupt):
            train_autoencoder(pictures, parts, out=tmp_path, steps=5, echo=silent)
    monkeypatch.setattr(autoencoder, "colour_loss", real)
    train_autoencoder(pictures, parts, out=tmp_path, steps=5, echo=silent)
    first, second = load_file(whole), load_file(parts)
    assert all(torch.equal(value, second[key]) for key, value in first.items())
