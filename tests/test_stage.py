"""Stages: whole or not at all, skipped when nothing changed."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from flowtailor.errors import FlowtailorError
from flowtailor.pipelines.config_file import load_config
from flowtailor.pipelines.provenance import fingerprint
from flowtailor.pipelines.stage import Run, is_done, record, stage_output, write_json
from flowtailor.pipelines.trained import need


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(load_config(None, [f"run.root={json.dumps(str(tmp_path))}", "run.name=r"]))


def test_a_finished_stage_is_up_to_date_until_its_inputs_change(run: Run, capsys: pytest.CaptureFixture[str]):
    assert not is_done(run, "reward", {"members": 4})
    with stage_output(run, "reward", {"members": 4}) as folder:
        (folder / "metrics.json").write_text("{}")
        assert not run.path("reward").exists()
    assert run.path("reward/metrics.json").is_file()
    assert is_done(run, "reward", {"members": 4})
    assert capsys.readouterr().out == f"reward: up to date ({run.path('reward')})\n"
    assert not is_done(run, "reward", {"members": 5})


def test_a_lost_output_is_made_again(run: Run):
    with stage_output(run, "reward", {}):
        pass
    run.path("reward").rmdir()
    assert not is_done(run, "reward", {})


def test_a_failed_stage_leaves_the_former_output(run: Run):
    with stage_output(run, "policy/sft", {"v": 1}) as folder:
        (folder / "model").write_text("old")
    with pytest.raises(RuntimeError), stage_output(run, "policy/sft", {"v": 2}) as folder:
        (folder / "model").write_text("half")
        raise RuntimeError
    assert run.path("policy/sft/model").read_text() == "old"
    assert is_done(run, "policy/sft", {"v": 1})
    assert [p.name for p in run.path("policy").iterdir()] == ["sft"]


def test_a_report_does_not_say_that_the_run_was_made_by_its_configuration(run: Run):
    with stage_output(run, "reward", {}):
        pass
    made_by = run.path("config.resolved.json").read_text()
    other = Run(
        load_config(None, [f"run.root={json.dumps(str(run.dir.parent))}", "run.name=r", "run.seed=9"])
    )
    with stage_output(other, "report", {}, by_config=False):
        pass
    assert run.path("config.resolved.json").read_text() == made_by


@pytest.fixture
def killed(run: Run) -> Run:
    """A run whose process was killed as a new adapter took the place of the old one."""
    with stage_output(run, "policy/grpo", {"v": 1}) as folder:
        (folder / "adapter").write_text("old")
    run.path("policy/grpo").rename(run.path("policy/.grpo.old"))
    return run


def test_an_output_that_was_set_aside_is_up_to_date_again(killed: Run):
    assert is_done(killed, "policy/grpo", {"v": 1})
    assert killed.path("policy/grpo/adapter").read_text() == "old"


def test_an_output_that_was_set_aside_outlives_a_stage_that_fails(killed: Run):
    with pytest.raises(RuntimeError), stage_output(killed, "policy/grpo", {"v": 2}):
        raise RuntimeError
    assert killed.path("policy/grpo/adapter").read_text() == "old"


def test_an_output_that_was_set_aside_is_not_missing(killed: Run):
    need(killed.dir, "policy/grpo")
    assert killed.path("policy/grpo/adapter").read_text() == "old"
    with stage_output(killed, "reward", {}) as folder:
        (folder / "ensemble.json").touch()
    killed.path("reward").rename(killed.path(".reward.old"))
    need(killed.dir, "reward/ensemble.json")


KILLED = """
import os, sys
from flowtailor.pipelines.config_file import load_config
from flowtailor.pipelines.stage import Run, stage_output
with stage_output(Run(load_config(None, sys.argv[1:])), "reward", {}):
    os._exit(9)
"""


def test_what_a_killed_process_left_half_done_is_removed(run: Run):
    settings = [f"run.root={json.dumps(str(run.dir.parent))}", "run.name=r"]
    assert subprocess.run([sys.executable, "-c", KILLED, *settings], check=False).returncode == 9
    [left] = run.dir.glob(".reward.partial-*")
    with stage_output(run, "reward", {}):
        assert not left.exists()


def test_a_stage_may_be_named_otherwise_than_its_output(run: Run):
    with stage_output(run, "grpo", {}, output="policy/grpo"):
        pass
    assert is_done(run, "grpo", {}, output="policy/grpo")
    assert run.path("stages/grpo.json").is_file()


def test_a_record_says_what_made_the_output(run: Run):
    run.open()
    run.path("dataset").mkdir()
    record(run, "collect", {"flows": 3}, output="dataset", seconds=1.234)
    content = json.loads(run.path("stages/collect.json").read_text())
    assert content["output"] == "dataset"
    assert content["seconds"] == 1.23
    assert content["versions"]["ray"][0].isdigit()
    assert content["inputs_hash"] == fingerprint({"flows": 3})


def test_the_resolved_config_is_written_with_versions(run: Run):
    run.open()
    resolved = json.loads(run.path("config.resolved.json").read_text())
    assert resolved["config"]["run"]["name"] == "r"
    assert resolved["versions"]["torch"]


def test_only_rows_of_the_latest_engine_are_learned_from_together(run: Run):
    """Other weights under the same names draw other pictures."""
    rows = pd.DataFrame({"row_id": ["a", "b"], "prompt": "a fox", "engine": ["comfyui-1", "comfyui-2"]})
    run.dataset.append(rows.assign(created_at=["2026-01-01", "2026-01-02"]))
    assert run.comparable_rows()["row_id"].tolist() == ["b"]


def test_a_collection_on_another_engine_that_was_given_up_has_no_say(run: Run):
    rows = pd.DataFrame({"row_id": ["a", "b"], "prompt": "a fox", "engine": "comfyui-1", "seconds": 1.0})
    run.dataset.append(rows.assign(created_at="2026-01-01"))
    write_json(run.path("engine.json"), {"engine": "comfyui-1"})
    before = run.rows_hash()
    run.dataset.append(rows.assign(row_id=["c", "d"], engine="comfyui-2", created_at="2026-01-02"))
    assert run.comparable_rows()["row_id"].tolist() == ["a", "b"]
    assert run.rows_hash() == before


def test_rows_are_the_same_in_other_files_and_with_other_failures_of_the_moment(run: Run):
    rows = pd.DataFrame({"row_id": ["a", "b"], "seconds": 1.0, "score_sharpness": 0.5, "created_at": "2026"})
    rows["engine"] = "comfyui-1"
    run.dataset.append(rows)
    before = run.rows_hash()
    late = pd.DataFrame({"row_id": ["c"], "error_type": "ComfyTimeout", "created_at": "2027"})
    late["engine"] = "comfyui-2"
    for _ in range(2):  # it is tried again by each call
        run.dataset.append(late)
        run.dataset.compact()
        assert run.rows_hash() == before
    assert set(run.comparable_rows()["row_id"]) == {"a", "b"}
    run.dataset.append(rows.tail(1).assign(score_sharpness=0.6, created_at="2028"))
    assert run.rows_hash() != before


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    blocked = Run(load_config(None, [f"run.root={json.dumps(str(tmp_path / 'file'))}"]))
    with pytest.raises(FlowtailorError, match=r"choose another run\.root"):
        blocked.open()
