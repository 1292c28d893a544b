"""The fit-reward stage: which rows count, what it says, and that a killed worker changes nothing."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from killing import KillOneWorker
from safetensors.torch import load_file
from tiny_run import tiny_config

from flowtailor.datasets.rows import usable
from flowtailor.datasets.store import Store
from flowtailor.errors import FlowtailorError
from flowtailor.models.reward import RewardEnsemble
from flowtailor.models.reward_fit import MemberFit
from flowtailor.pipelines.config import Config
from flowtailor.pipelines.fit_reward import _Plan, not_held_out, prepare, run_stage, settings_of, summary
from flowtailor.pipelines.stage import Run

from .synthetic_rows import synthetic_rows


def config_in(folder: Path, *overrides: str) -> Config:
    """A run in `folder` with the synthetic scorers and little training."""
    settings = ["scorers.weights={match = 0.7, crisp = 0.3}", "reward.members=3", "reward.epochs=40"]
    return tiny_config(folder, *settings, *overrides)


@pytest.fixture
def collected(tmp_path) -> Path:
    """A root folder with a run that has a dataset and nothing else."""
    Store(tmp_path / "tiny/dataset").append(synthetic_rows(per_prompt=6))
    return tmp_path


def test_only_rendered_and_fully_scored_rows_count():
    rows = synthetic_rows(per_prompt=2).head(5).astype({"error_type": object})
    rows.loc[0, "error_type"] = "ComfyTimeout"
    rows.loc[1, "score_match"] = np.nan
    assert usable(rows, ["match", "crisp"])["row_id"].tolist() == ["2", "3", "4"]
    with pytest.raises(FlowtailorError, match="score_beauty"):
        usable(rows, ["beauty"])


def test_held_out_rows_are_not_trained_on():
    training = not_held_out(synthetic_rows(per_prompt=2))
    assert set(training["prompt_split"]) == set(training["workflow_split"]) == {"train"}


def test_every_worker_has_the_same_cycles():
    plan = _Plan(epochs=40, rounds=2)
    assert [plan[i] for i in range(len(plan))] == [(0, 15), (0, 30), (0, 40), (1, 15), (1, 30), (1, 40)]


def test_dry_run_says_what_and_does_nothing(collected, capsys):
    run_stage(config_in(collected), dry_run=True)
    assert "3 members, 40 epochs" in capsys.readouterr().out
    assert not (collected / "tiny/reward").exists()


def test_an_empty_dataset_is_explained(tmp_path):
    with pytest.raises(FlowtailorError, match="flowtailor collect"):
        run_stage(config_in(tmp_path))


def test_the_summary_names_each_held_out_split():
    numbers = {
        "rows": 5,
        "spearman_within_prompt": 0.8,
        "ridge_spearman_within_prompt": None,
        "boosted_trees_spearman_within_prompt": 0.7,
        "coverage_68": 0.7,
    }
    assert "both" in summary({"training": numbers, "both": numbers})
    assert "no held-out rows" in summary({"training": numbers, "both": {"rows": 0}})


@pytest.mark.ray
def test_a_killed_worker_resumes_and_the_second_call_skips(collected, capsys):
    config = config_in(collected)
    killer = KillOneWorker(collected / "tiny/ray", "*/cycle-0000/cycle-*.json")
    killer.start()
    run_stage(config)
    killer.join()
    assert killer.killed

    folder = collected / "tiny/reward"
    predictions = RewardEnsemble.load(folder).predict(["a pie"], [["VAEDecode", "KSampler", "steps=4"]])
    assert predictions.scorers == ("crisp", "match")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["training"]["spearman_within_prompt"] > 0.5
    assert not list((collected / "tiny/ray").iterdir())
    for k, whole in enumerate(uninterrupted(config)):
        fitted = load_file(folder / f"member-{k}.safetensors")
        for name, weight in whole.state_dict().items():
            torch.testing.assert_close(fitted[name], weight)

    run_stage(config)
    assert "up to date" in capsys.readouterr().out


def uninterrupted(config: Config) -> list[torch.nn.Module]:
    """The members that this configuration gives, fitted here, one after the other."""
    frame = usable(Run(config).comparable_rows(), ["crisp", "match"])
    _, data = prepare(config, not_held_out(frame), ["crisp", "match"])
    nets = []
    for member in range(config.reward.members):
        fit = MemberFit(data, settings_of(config), member)
        while not fit.done:
            fit.run_epoch()
        nets.append(fit.net)
    return nets
