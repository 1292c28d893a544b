"""What several tests share: saved catalogs, small pictures, the embedded engine, a plain workflow for it."""

from __future__ import annotations

import gzip
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Threads of several small processes that share two cores cost far more than they bring.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

from tiny_pictures import tiny_pictures

from flowtailor.actors.client import ComfyClient
from flowtailor.actors.comfy import EngineConfig, engine
from flowtailor.datasets.pictures import Pictures
from flowtailor.studio.install import Studio, install
from flowtailor.workflows.catalog import Catalog
from flowtailor.workflows.space import Space

DATA = Path(__file__).parent / "data"

# A shell that starts the tests in the background has switched SIGINT off.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several workers (`pytest -n 2 --dist loadgroup`), one has all of Ray and one all engines."""
    for item in items:
        for group in ("ray", "engine"):
            if item.get_closest_marker(group):
                item.add_marker(pytest.mark.xdist_group(group))
                break


CHECKPOINTS = ("general", "ink", "kitchen", "nature", "people", "sprite", "things", "town")
LORAS = ("fine_detail", "flat_style", "pixel_style", "smiling_faces")
INSTALLED = {
    ("CheckpointLoaderSimple", "ckpt_name"): [f"{name}.ckpt" for name in CHECKPOINTS],
    ("LoraLoader", "lora_name"): [f"{name}.safetensors" for name in LORAS],
    ("UpscaleModelLoader", "model_name"): [
        "realesr-animevideov3-x2.pth",
        "realesr-animevideov3.pth",
        "studio_x2.safetensors",
    ],
}


def saved_catalog(version: str) -> Catalog:
    """A real engine's answer to /object_info, its installed models replaced by the studio's."""
    info = json.loads(gzip.decompress((DATA / f"object_info.{version}.json.gz").read_bytes()))
    for (class_type, name), models in INSTALLED.items():
        declared = info[class_type]["input"]["required"]
        new_form = declared[name][0] == "COMBO"
        declared[name] = ["COMBO", {"options": models}] if new_form else [models]
    return Catalog(info)


@pytest.fixture(scope="session")
def catalog_0375() -> Catalog:
    """Nodes of ComfyUI 0.3.75 (the old form)."""
    return saved_catalog("0.3.75")


@pytest.fixture(scope="session")
def catalog_0300() -> Catalog:
    """Nodes of ComfyUI 0.30.0 (the new form)."""
    return saved_catalog("0.30.0")


@pytest.fixture(scope="session")
def space(catalog_0375: Catalog) -> Space:
    """The studio's space on ComfyUI 0.3.75."""
    return Space.default(catalog_0375)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    """Made-up pictures to train on, which no test changes."""
    return tiny_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="session")
def studio() -> Studio:
    """The embedded engine and its models, installed once per machine."""
    return install()


@pytest.fixture(scope="session")
def studio_engine() -> EngineConfig:
    """Configuration of one embedded engine."""
    return EngineConfig(kind="studio", count=1)


@pytest.fixture(scope="session")
def comfy(studio: Studio, studio_engine: EngineConfig) -> Iterator[ComfyClient]:
    """A client on a running embedded engine that all tests of a session share."""
    with engine(studio_engine) as client:
        yield client


@pytest.fixture(scope="session")
def studio_catalog(comfy: ComfyClient) -> Catalog:
    """The catalog of the running embedded engine."""
    return Catalog(comfy.object_info())


@pytest.fixture
def plain_api() -> dict[str, Any]:
    """API JSON of the plainest workflow, with its slots: 8 steps at 128 px, 0.3 to 0.5 s."""
    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "general.ckpt"}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "{prompt}", "clip": ["1", 1]}},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["1", 1]}},
        "4": {"class_type": "EmptySD3LatentImage", "inputs": {"width": 128, "height": 128, "batch_size": 1}},
        "5": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["1", 0],
                "positive": ["2", 0],
                "negative": ["3", 0],
                "latent_image": ["4", 0],
                "seed": "{seed}",
                "steps": 8,
                "cfg": 2.0,
                "sampler_name": "euler",
                "scheduler": "simple",
                "denoise": 1.0,
            },
        },
        "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 2]}},
        "7": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "{filename}"}},
    }
