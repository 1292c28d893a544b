"""The upscaler: what spandrel makes of its weights, its degradations, and training that can be stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_pictures import silent

from flowtailor.studio import upscaler
from flowtailor.studio.install import Studio
from flowtailor.studio.upscaler import Upscaler, crop_pairs, degraded, halved, train_upscaler


@pytest.fixture
def small(monkeypatch):
    """Sizes at which a step takes a hundredth of a second."""
    for name, value in {"POOL": {64: 12}, "HELD_OUT": {64: 8}, "CROP": 16, "BATCH": 2}.items():
        monkeypatch.setattr(upscaler, name, value)


@pytest.mark.engine
def test_spandrel_reads_the_network_from_its_weights(studio: Studio, tmp_path):
    torch.manual_seed(0)
    model = Upscaler()
    save_file({key: value.half() for key, value in model.state_dict().items()}, tmp_path / "x2.safetensors")
    assert (tmp_path / "x2.safetensors").stat().st_size < 1e6
    low = torch.rand(1, 3, 24, 32)
    torch.save(low, tmp_path / "low.pt")
    launch = Path(upscaler.__file__).with_name("launch.py")
    program = f"""
import runpy, sys
sys.path.insert(0, {str(studio.site)!r})
sys.meta_path.insert(0, runpy.run_path({str(launch)!r})["DeclareOperators"]())
import spandrel, torch
from safetensors.torch import load_file
found = spandrel.ModelLoader().load_from_state_dict(load_file({str(tmp_path / "x2.safetensors")!r})).eval()
assert isinstance(found, spandrel.ImageModelDescriptor), found
print(found.architecture.id, found.scale, *found.tags)
torch.save(found(torch.load({str(tmp_path / "low.pt")!r})), {str(tmp_path / "theirs.pt")!r})
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["Compact", "2", "48nf", "8nc"]
    ours = Upscaler.load(tmp_path / "x2.safetensors")(low)
    assert torch.allclose(torch.load(tmp_path / "theirs.pt"), ours.clamp(0, 1), atol=1e-5)


def test_degraded_pictures_are_half_as_large_and_differ(pictures):
    high = np.asarray(pictures.rgba(1, "flat")[..., :3])
    lows = [degraded(high, np.random.default_rng(seed)) for seed in range(6)]
    assert all(low.shape == (128, 128, 3) and low.dtype == np.uint8 for low in lows)
    assert len({low.tobytes() for low in lows}) == 6
    assert max(np.abs(low - halved(high, np.random.default_rng(0)).astype(float)).mean() for low in lows) < 12


def test_crops_of_a_pair_show_the_same_place():
    high = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    low = high.reshape(3, 16, 2, 16, 2, 3).mean((2, 4)).round().astype(np.uint8)
    x, y = crop_pairs(low, high, 8, 6, np.random.default_rng(0))
    assert x.shape == (8, 3, 6, 6) and y.shape == (8, 3, 12, 12)
    assert (torch.nn.functional.avg_pool2d(y, 2) - x).abs().max() < 1 / 255


def test_training_writes_what_it_gains(pictures, small, tmp_path):
    said: list[str] = []
    path = tmp_path / "weights.safetensors"
    train_upscaler(pictures, path, out=tmp_path, steps=40, echo=said.append)
    report = json.loads((tmp_path / "upscaler_x2.json").read_text())
    assert set(report) == {"clean", "degraded"}
    for table in report.values():
        assert set(table["gain"]) == {"3d", "flat", "line", "pixel", "all"}
        assert table["gain"]["all"] == pytest.approx(
            table["psnr"]["all"] - table["bicubic"]["all"], abs=0.011
        )
    assert any("dB above bicubic on clean held-out scenes" in line for line in said)


def test_a_stopped_training_ends_the_same(pictures, small, tmp_path, monkeypatch):
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    train_upscaler(pictures, whole, out=tmp_path / "whole", steps=6, echo=silent)
    real = upscaler.detail_loss
    left = iter(range(3))

    def stops(output, target):
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGINT)
        return real(output, target)

    monkeypatch.setattr(upscaler, "detail_loss", stops)
    with pytest.raises(KeyboardInterrupt):
        train_upscaler(pictures, parts, out=tmp_path, steps=6, echo=silent)
    monkeypatch.setattr(upscaler, "detail_loss", real)
    train_upscaler(pictures, parts, out=tmp_path, steps=6, echo=silent)
    first, second = load_file(whole), load_file(parts)
    assert all(torch.equal(value, second[key]) for key, value in first.items())
