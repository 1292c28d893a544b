"""`flowtailor run`: stages in order, a dry run that does not need what it would make."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from flowtailor.errors import FlowtailorError
from flowtailor.pipelines import run
from flowtailor.pipelines.config import Config
from flowtailor.pipelines.config_file import load_config


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """Stages that only note that they were called; `grpo` finds something missing in a dry run."""
    monkeypatch.chdir(tmp_path)  # where `runs` is made
    seen: list[tuple[str, bool]] = []

    def stage(name: str) -> SimpleNamespace:
        def run_stage(config: Config, *, dry_run: bool) -> None:
            seen.append((name, dry_run))
            if dry_run and name == "grpo":
                raise FlowtailorError("reward: not there yet")

        return SimpleNamespace(run_stage=run_stage)

    monkeypatch.setattr(run.importlib, "import_module", lambda name, package: stage(name.removeprefix(".")))
    return seen


def test_stages_run_in_order_and_the_end_says_what_is_next(
    calls: list[tuple[str, bool]], capsys: pytest.CaptureFixture[str]
):
    run.run_stage(load_config(None))
    assert [name for name, _ in calls] == ["collect", "fit_reward", "sft", "grpo", "evaluate", "report"]
    out = capsys.readouterr().out
    assert "[4/6] GRPO" in out
    assert "runs/quickstart/report/index.html" in out
    assert "flowtailor design" in out
    assert "flowtailor serve" in out


def test_a_round_that_was_killed_while_it_took_its_place_is_finished_first(
    calls: list[tuple[str, bool]], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(run, "finish", lambda config: calls.append(("finish", False)))
    run.run_stage(load_config(None))
    assert calls[0] == ("finish", False)


def test_rounds_of_refinement_come_between_grpo_and_evaluation(calls: list[tuple[str, bool]]):
    run.run_stage(load_config(None, ["refine.rounds=1"]))
    assert [name for name, _ in calls][3:5] == ["grpo", "refine"]


def test_what_no_stage_depends_on_reaches_a_finished_run(calls: list[tuple[str, bool]]):
    """`design` and `serve` read the run's own configuration."""
    for timeout_s in (60, 600):
        run.run_stage(load_config(None, [f"engine.render_timeout_s={timeout_s}"]))
    resolved = json.loads(Path("runs/quickstart/config.resolved.json").read_text())
    assert resolved["config"]["engine"]["render_timeout_s"] == 600


def test_a_dry_run_does_not_hide_that_the_first_stage_cannot_run():
    with pytest.raises(FlowtailorError, match=r"space\.flows = nowhere: no such folder"):
        run.run_stage(load_config(None, ["space.flows='nowhere'"]), dry_run=True)


def test_a_dry_run_goes_on_where_a_stage_needs_an_earlier_one(
    calls: list[tuple[str, bool]], capsys: pytest.CaptureFixture[str]
):
    run.run_stage(load_config(None), dry_run=True)
    assert calls[-1] == ("report", True)
    out = capsys.readouterr().out
    assert "grpo: what it would do depends on stages before it (reward: not there yet)" in out
    assert "Done in" not in out
