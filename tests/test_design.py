"""The design command: what it refuses, what it writes, what it says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_run import tiny_run

from flowtailor.datasets.flows import load_seed_flows
from flowtailor.errors import FlowtailorError
from flowtailor.pipelines.config import Config
from flowtailor.pipelines.design import Designed, Request, design, told, write_flows
from flowtailor.pipelines.trained import open_run
from flowtailor.pipelines.why import Contribution
from flowtailor.workflows.catalog import Catalog
from flowtailor.workflows.space import Space
from flowtailor.workflows.validate import problems

REQUEST = Request("a red apple", n=2, guidance=1.5, temperature=0.7, budget_s=None, seed=3)
DESIGNED = Designed(
    tokens=("SaveImage", "steps=12"),
    summary="general · 128×128",
    score=0.71,
    score_std=0.04,
    reward=0.6,
    seconds=0.5,
    seconds_std=0.1,
    logprob=-3.0,
)


def run_design(run_dir: Path, **changes: Any) -> None:
    options = {
        "n": 1,
        "guidance": None,
        "temperature": None,
        "budget_s": None,
        "seed": 0,
        "render": False,
    }
    design("a red apple", run_dir=str(run_dir), **(options | changes))


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run folder in which nothing but the configuration is there yet."""
    folder = tmp_path / "elsewhere" / "moved"
    folder.mkdir(parents=True)
    resolved = {"config": Config().model_dump(mode="json"), "versions": {}}
    (folder / "config.resolved.json").write_text(json.dumps(resolved))
    return folder


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prompt": "  "}, "prompt"),
        ({"n": 0}, "-n 0"),
        ({"guidance": -1.0}, "--guidance -1"),
        ({"guidance": float("nan")}, "--guidance nan"),
        ({"temperature": 9.0}, "--temperature 9"),
        ({"budget_s": 0.0}, "--budget-s 0"),
        ({"seed": -1}, "--seed -1"),
    ],
)
def test_a_value_out_of_its_range_is_refused_by_name(changes: dict[str, Any], said: str):
    with pytest.raises(FlowtailorError, match=said):
        replace(REQUEST, **changes)


def test_a_missing_run_or_stage_names_the_command(run_dir: Path, tmp_path: Path):
    with pytest.raises(FlowtailorError, match=r"no such run folder.*flowtailor run"):
        run_design(tmp_path / "nowhere")
    with pytest.raises(FlowtailorError, match=r"no catalog.json.*flowtailor collect"):
        run_design(run_dir)
    (run_dir / "catalog.json").write_text("{}")
    with pytest.raises(FlowtailorError, match=r"flowtailor fit-reward"):
        run_design(run_dir)


def test_a_run_is_read_where_it_lies_now(run_dir: Path):
    assert open_run(run_dir).dir == run_dir
    (run_dir / "config.resolved.json").write_text('{"config": {"run": {}, "unknown": 1}}')
    with pytest.raises(FlowtailorError, match="not of this version"):
        open_run(run_dir)


def test_files_are_ready_for_the_engine(tmp_path: Path, catalog_0375: Catalog):
    (written,) = write_flows([DESIGNED], [load_seed_flows()["plain"]], REQUEST, tmp_path / "new" / "folder")
    api = json.loads(Path(written.file).read_text())
    assert problems(api, catalog_0375) == []
    assert "a red apple" in json.dumps(api)
    assert not any(slot in json.dumps(api) for slot in ("{prompt}", "{seed}", "{filename}"))


def test_what_is_said_of_designs():
    drawn = replace(DESIGNED, picture="out/1.png", measured_score=0.68, measured_seconds=0.45)
    failed = replace(DESIGNED, error="node 5 (KSampler): out of memory")
    text = told(REQUEST, [drawn, failed], Path("out"))
    assert "1. expected score 0.71 ± 0.04, 0.50 ± 0.10 s" in text
    assert "rendered score 0.68, 0.45 s: out/1.png" in text
    assert "not rendered: node 5 (KSampler): out of memory" in text
    assert "2 workflows, ready to queue in ComfyUI: out/" in text
    assert "foreseen to keep" not in text


def test_what_is_said_of_parts_and_of_a_budget_that_nothing_keeps():
    part = Contribution("upscaler x2", "left out", 0.06, 0.01, 0.3, 0.02, ("VAEDecode",))
    late = replace(DESIGNED, keeps_budget=False, components=(part,))
    request = replace(REQUEST, budget_s=0.3)
    text = told(request, [late], Path("out"))
    assert "   upscaler x2: +0.06 ± 0.01, +0.30 s" in text
    assert "No design is foreseen to keep 0.3 s" in text
    assert "foreseen to keep" not in told(request, [replace(late, keeps_budget=True), late], Path("out"))


def test_designs_from_a_trained_run_are_written_and_printed(tmp_path: Path, space: Space, capsys):
    run = tiny_run(tmp_path / "run", space)
    run_design(run, n=3, as_json=True)
    answer = json.loads(capsys.readouterr().out)
    assert answer["request"]["guidance"] == Config().design.guidance  # the run's own
    rewards = [one["reward"] for one in answer["designs"]]
    assert rewards == sorted(rewards, reverse=True)
    for one in answer["designs"]:
        assert Path(one["file"]).parent.parent == run / "designs"
        assert problems(json.loads(Path(one["file"]).read_text()), space.catalog) == []
        assert {"component", "change", "score", "score_std", "seconds", "without"} <= set(
            one["components"][0]
        )
    run_design(run, n=3, out=str(tmp_path / "mine"))
    assert sorted(file.name for file in (tmp_path / "mine").iterdir()) == ["1.json", "2.json", "3.json"]
    assert answer["designs"][0]["summary"] in capsys.readouterr().out  # the same seed, the same designs
