"""What Ray is asked for: engines fit the machine, whatever it has, and share its GPUs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flowtailor.actors import comfy
from flowtailor.actors.comfy import EngineConfig
from flowtailor.errors import FlowtailorError
from flowtailor.pipelines.config_file import load_config
from flowtailor.pipelines.engines import _actors

BOX = {"CPU": 16.0, "GPU": 1.0}


def asked(cluster: dict[str, float], **engine: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    values = {"count": 16, **engine}
    return _actors(
        load_config(None, [f"engine.{key}={str(value).lower()}" for key, value in values.items()]), cluster
    )


def test_engines_that_draw_on_gpus_share_them() -> None:
    renderer, scorer = asked(BOX, gpu=True)
    assert renderer["num_gpus"] == pytest.approx(0.06)
    assert 16 * renderer["num_gpus"] <= 1
    assert "num_gpus" not in scorer
    assert asked({"CPU": 16, "GPU": 8}, gpu=True, count=4)[0]["num_gpus"] == 1
    assert asked({"CPU": 16, "GPU": 2}, gpu=True, count=3)[0]["num_gpus"] == 0.5  # not 0.66: one would wait
    assert asked({"CPU": 16}, gpu=True)[0]["num_gpus"] == 0


def test_a_cluster_whose_gpus_have_not_come_yet_does_not_draw_on_its_head(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert asked(BOX, gpu=True)[0]["num_gpus"] > 0
    with pytest.raises(FlowtailorError, match="no GPU yet"):
        asked({"CPU": 4.0}, gpu=True)


def test_engines_that_draw_elsewhere_leave_them_alone() -> None:
    assert asked(BOX)[0]["num_gpus"] == 0
    assert asked(BOX, kind="urls", urls='["http://127.0.0.1:8188"]')[0]["num_gpus"] == 0
    assert asked(BOX, kind="checkout", path='"/comfyui"', count=2)[0]["num_gpus"] == 0.5


def test_a_node_without_a_gpu_asks_and_draws_on_its_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = EngineConfig(kind="checkout", path=Path("/comfyui"), args=("--lowvram", "--fast"))
    studio = EngineConfig(gpu=True)
    monkeypatch.setattr(comfy, "has_gpu", lambda: True)
    assert comfy.as_here(checkout) == checkout
    monkeypatch.setattr(comfy, "has_gpu", lambda: False)
    assert comfy.as_here(checkout).args == ("--fast", "--cpu")  # it refuses the other beside it
    assert not comfy.as_here(studio).gpu


@pytest.mark.parametrize("cores", [1, 2, 16, 64])
def test_engines_and_scorer_fit_the_cores(cores: int) -> None:
    renderer, scorer = asked({"CPU": cores})
    assert 16 * renderer["num_cpus"] + scorer["num_cpus"] <= cores
    assert 0 < renderer["num_cpus"] <= 1
