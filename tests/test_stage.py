"""Stages: whole or not at all, skipped when nothing changed."""

import json
from pathlib import Path

import pytest

from flowtailor.errors import FlowtailorError
from flowtailor.pipelines.config import load_config
from flowtailor.pipelines.stage import Run, fingerprint, is_done, record, stage_output


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


def test_fingerprints_follow_content_not_names_order_or_time(run: Run, tmp_path: Path):
    folder = tmp_path / "inputs"
    folder.mkdir()
    missing = fingerprint({"data": folder / "a"})
    (folder / "a").write_text("1")
    first = fingerprint({"data": folder, "config": run.config.reward})
    assert first == fingerprint({"config": run.config.reward, "data": folder})
    (folder / "a").write_text("2")
    assert first != fingerprint({"data": folder, "config": run.config.reward})
    assert missing != fingerprint({"data": folder / "a"})
    assert fingerprint(["ab", "c"]) != fingerprint(["a", "bc"])


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    blocked = Run(load_config(None, [f"run.root={json.dumps(str(tmp_path / 'file'))}"]))
    with pytest.raises(FlowtailorError, match=r"choose another run\.root"):
        blocked.open()
