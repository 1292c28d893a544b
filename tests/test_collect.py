"""Collection on the real engine: idempotent by row id, failures are rows, nothing finished is lost."""

from __future__ import annotations

import copy
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest

from flowtailor.actors.client import ComfyClient
from flowtailor.actors.comfy_errors import ComfyRejected
from flowtailor.datasets.flows import SHIPPED
from flowtailor.datasets.rows import row_id
from flowtailor.datasets.shipped import write_rows
from flowtailor.datasets.store import Store
from flowtailor.pipelines import collect, head_start
from flowtailor.pipelines.config import Config
from flowtailor.pipelines.config_file import load_config
from flowtailor.pipelines.engines import render
from flowtailor.pipelines.stage import Run

pytestmark = [pytest.mark.engine, pytest.mark.ray]
ROWS = 4 * 3


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    """Four prompts times three quick flows, one picture a block, on one engine."""
    flows = tmp_path / "flows"
    flows.mkdir()
    for name in ("plain", "few_steps", "tiny_canvas"):
        (flows / f"{name}.json").write_text((SHIPPED / f"{name}.json").read_text())
    file = tmp_path / "config.toml"
    file.write_text(
        f"""
        run = {{ name = "r", root = {json.dumps(str(tmp_path / "runs"))} }}
        engine = {{ count = 1 }}
        space = {{ flows = {json.dumps(str(flows))} }}
        prompts = {{ train = 4, validation = 0, test = 0 }}
        collect = {{ flows = 3, flows_per_prompt = 3, rows_per_block = 1 }}
        """
    )
    return file


@pytest.fixture
def config(config_file: Path) -> Config:
    return load_config(config_file)


def images(run: Run) -> dict[Path, int]:
    """The pictures of a run with the time that each was written, in ns."""
    return {path: path.stat().st_mtime_ns for path in run.path("dataset/images").rglob("*.png")}


def test_a_collection_is_complete_scored_and_done_once(config: Config, capsys: pytest.CaptureFixture[str]):
    run = Run(config)
    collect.run_stage(config)
    rows = Store(run.path("dataset")).rows()
    assert len(rows) == ROWS
    assert list(rows["error_type"].dropna()) == []
    scores = rows[["score_alignment", "score_sharpness"]].to_numpy()
    assert ((scores >= 0) & (scores <= 1)).all()
    assert rows["seconds"].min() > 0
    assert all(run.path("dataset").joinpath(image).is_file() for image in rows["image"])
    assert "12 with a picture, 0 failed" in run.path("dataset/README.md").read_text()
    assert run.path("catalog.json").is_file()
    assert run.path("space.toml").is_file()

    written = images(run)
    capsys.readouterr()
    collect.run_stage(config)
    assert capsys.readouterr().out == f"collect: up to date ({run.path('dataset')})\n"

    run.path("stages/collect.json").unlink()  # as if the command had died just before its end
    collect.run_stage(config)
    assert "12 there, 0 to render" in capsys.readouterr().out
    assert images(run) == written


def test_rows_that_were_rendered_elsewhere_are_taken_over_in_seconds_of_this_machine(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    collect.run_stage(config)
    rows = Store(Run(config).path("dataset")).rows()
    elsewhere = tmp_path / "rows.parquet"
    slowest = rows["seconds"].max() * 2  # none of those that the pace is told by
    unplanned = rows.iloc[:1].assign(row_id="unplanned", prompt="a newt", seconds=slowest)
    of_another = rows.iloc[:1].assign(row_id="of another engine", engine="comfyui-0.1")
    lent = pd.concat([rows.iloc[:-1], unplanned, of_another], ignore_index=True)
    older = lent.sort_values("seconds").index[len(lent) // 2]  # than a scorer; the pace is told by others
    lent.loc[older, "score_alignment"] = None
    write_rows(lent.assign(seconds=lent["seconds"] / 10), elsewhere)
    monkeypatch.setattr(head_start, "DRAWN_AGAIN", 2)
    config = config.changed(run={"name": "again"}, collect={"head_start": str(elsewhere)})
    capsys.readouterr()
    collect.run_stage(config)
    told = capsys.readouterr().out
    assert f"{ROWS} rows planned, 0 there, 2 to render" in told
    assert f"{ROWS} rows come from {elsewhere}" in told  # the unplanned one is more to learn from
    again = Store(Run(config).path("dataset")).rows()
    assert set(again["row_id"]) == {*rows["row_id"], "unplanned"}
    again = again.loc[again["row_id"] != "unplanned"].reset_index(drop=True)
    assert again["image"].notna().sum() == 4  # one that nobody had, one without a score, two for the pace
    assert list(again["score_alignment"]) == pytest.approx(list(rows["score_alignment"]), abs=1e-6)
    pace = (again["seconds"] / rows["seconds"])[again["image"].isna()] * 10
    assert pace.std() == pytest.approx(0, abs=1e-6)
    assert 2 < pace.iloc[0] < 50


def test_a_dry_run_leaves_out_what_cannot_be_drawn(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """The fault is injected: every other sample fails."""
    whole, calls = ComfyClient.render, []

    def render_every_other(self: ComfyClient, *arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) % 2:
            return whole(self, *arguments)
        raise ComfyRejected({"error": {"message": "no such sampler"}})

    monkeypatch.setattr(ComfyClient, "render", render_every_other)
    collect.run_stage(config, dry_run=True)
    told = capsys.readouterr().out
    assert "would render 12 pictures on 1 engines: about" in told
    assert "measured on 2, 3 failed)" in told
    assert not Run(config).path("dataset").exists()


def failing_flows() -> dict[str, dict[str, Any]]:
    """A flow that runs, one that the engine rejects, one that fails while it samples."""
    plain = json.loads((SHIPPED / "plain.json").read_text())
    loader = find(plain, "CheckpointLoaderSimple")
    unknown = {**plain, loader: {**plain[loader], "class_type": "NoSuchNode"}}
    # FreeU expects a UNet; the studio's models are transformers.
    freeu = {"model": [loader, 0], "b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2}
    broken = copy.deepcopy(plain) | {"99": {"class_type": "FreeU_V2", "inputs": freeu}}
    broken[find(plain, "KSampler")]["inputs"]["model"] = ["99", 0]
    return {"plain": plain, "rejected": unknown, "fails": broken}


def find(api: dict[str, Any], class_type: str) -> str:
    """The id of the only node of a class."""
    [node_id] = [i for i, node in api.items() if node["class_type"] == class_type]
    return node_id


def test_a_failed_render_is_a_row_and_the_others_go_on(config: Config, tmp_path: Path):
    planned = pd.DataFrame(
        {
            "row_id": row_id("engine", name, "a fox", 1),
            "prompt": "a fox",
            "seed": 1,
            "workflow_key": name,
            "workflow": json.dumps(api),
        }
        for name, api in failing_flows().items()
    )
    store = Store(tmp_path / "data")
    render(config, planned, store)
    rows = store.rows().set_index("workflow_key")
    errors = rows["error_type"]
    assert errors.isna().to_dict() == {"plain": True, "rejected": False, "fails": False}
    assert errors["rejected"] == "ComfyRejected"
    assert errors["fails"] == "ComfyExecutionError"
    assert rows.loc["fails", "error_message"]
    assert rows["score_alignment"].notna().to_dict() == {"plain": True, "rejected": False, "fails": False}
    assert store.missing(planned).empty


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGKILL, -9, marks=pytest.mark.slow)]
)
def test_a_collection_that_is_stopped_goes_on_where_it_was(
    number: signal.Signals, code: int, config_file: Path, config: Config
):
    run = Run(config)
    command = [sys.executable, "-m", "flowtailor", "collect", "--config", str(config_file)]
    ended, errors = stop(command, number, lambda: len(images(run)) >= 4)
    assert ended == code
    assert "Traceback" not in errors
    before = images(run)

    subprocess.run(command, check=True, timeout=200)
    after = images(run)
    assert len(Store(run.path("dataset")).rows()) == len(after) == ROWS
    assert {path: after[path] for path in before} == before


def stop(command: list[str], number: signal.Signals, when: Callable[[], bool]) -> tuple[int, str]:
    """Start a command, send it a signal when the time has come; returns exit code and stderr.

    Fails where a process that it had started outlives it.
    """
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stderr=errors, start_new_session=True)
        try:
            wait_until(when, process)
            family = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(number)
            process.wait(timeout=60)
        finally:
            process.kill()
            process.wait()
        # Two idle agents of a killed Ray take a minute to give up on telling its other processes.
        working = [p for p in family if "Agent" not in name_of(p)]
        assert not psutil.wait_procs(working, timeout=20)[1], "Ray or the engine outlived the command"
        errors.seek(0)
        return process.returncode, errors.read()


def name_of(process: psutil.Process) -> str:
    """The name of a process, empty when it has ended."""
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


def wait_until(condition: Callable[[], bool], process: subprocess.Popen, timeout_s: float = 120) -> None:
    """Poll until the condition holds; fails when the process ends or the time is over."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, "the command ended early"
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.05)
