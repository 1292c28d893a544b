"""The GRPO stage: its questions, its reward, and a run on a tiny model."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest
from tiny_ensemble import RuleEnsemble
from tiny_rows import SCORERS
from tiny_run import run_without_grpo, tiny_config

from flowtailor.errors import FlowtailorError
from flowtailor.models.designing import Designer
from flowtailor.pipelines.config import Config
from flowtailor.pipelines.grpo import reward_function, run_stage, stage_inputs
from flowtailor.pipelines.stage import Run
from flowtailor.workflows.space import Space


def config_in(folder: Path, *overrides: str) -> Config:
    settings = ["grpo.steps=3", "grpo.prompts_per_step=2", "grpo.num_generations=4", "grpo.audit_every=0"]
    return tiny_config(folder, *settings, *overrides)


def counted(prompt: str, words: tuple[str, ...]) -> tuple[float, float]:
    """Three tenths a word, a second a word."""
    return 0.3 * len(words), len(words)


def rewards(
    config: Config,
    designs: list[list[int]],
    budgets: list[float | None],
    known: Collection[tuple[str, ...]] = (),
) -> tuple[list[float], dict]:
    metrics: dict[str, float] = {}
    ensemble = RuleEnsemble(counted, SCORERS, std=0.3, doubt=0.1)
    score = reward_function(ensemble, config, lambda ids: tuple(str(i) for i in ids), known)
    given = score(
        completion_ids=designs,
        text=["an owl"] * len(designs),
        budget_s=budgets,
        log_metric=metrics.__setitem__,
        prompts=[],
    )
    return given, metrics


def test_the_reward_is_cautious_and_fines_broken_budgets(tmp_path: Path) -> None:
    settings = ("reward.kappa=1.0", "reward.lambda_seconds=0.01", "grpo.over_budget_penalty=1.0")
    config = config_in(tmp_path, *settings)
    plain = 0.3 * 2 - 0.1 - 0.01 * 2
    given, metrics = rewards(config, [[1, 2]] * 4, [None, 2.0, 2.0 / 1.125, 0.1])
    assert given == pytest.approx([plain, plain, plain - 0.5 - np.log(1.125), plain - 1.0 - np.log(20)])
    assert metrics["over_budget"] == pytest.approx(2 / 3)
    assert metrics["doubt"] == pytest.approx(0.1)
    assert metrics["unique_workflows"] == 0.25


def test_a_workflow_that_was_known_is_fined_for_being_no_news(tmp_path: Path) -> None:
    config = config_in(tmp_path, "reward.novelty=0.02")
    given, metrics = rewards(config, [[1, 2], [3, 4]], [None, None], known={("1", "2")})
    assert given[0] == pytest.approx(given[1] - 0.02)
    assert metrics["new_workflows"] == 0.5


def test_without_budgets_no_share_of_broken_ones_is_logged(tmp_path: Path) -> None:
    assert "over_budget" not in rewards(config_in(tmp_path), [[1], [2]], [None, None])[1]


def test_settings_of_audits_count_only_where_there_are_any(tmp_path: Path) -> None:
    def inputs(*overrides: str) -> dict:
        config = config_in(tmp_path, *overrides)
        return stage_inputs(config, Run(config))

    assert inputs() == inputs("grpo.audit_max_gap=0.3")
    assert inputs("grpo.audit_every=2") != inputs("grpo.audit_every=2", "grpo.audit_max_gap=0.3")


@pytest.fixture
def folder(tmp_path: Path, space: Space) -> Path:
    """A root folder with the run "tiny": rows, a random policy, a random ensemble; no adapter yet."""
    run_without_grpo(tmp_path, space)
    return tmp_path


def test_dry_run_says_what_would_be_sampled(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_stage(config_in(folder), dry_run=True)
    assert "3 steps of 8 designs" in capsys.readouterr().out


def test_without_a_policy_the_command_that_makes_it_is_named(folder: Path) -> None:
    (folder / "tiny/policy/sft").rename(folder / "elsewhere")
    with pytest.raises(FlowtailorError, match="flowtailor sft"):
        run_stage(config_in(folder))


@pytest.mark.ray
def test_the_adapter_designs_and_the_curves_are_logged(
    folder: Path, space: Space, capsys: pytest.CaptureFixture[str]
) -> None:
    run_stage(config_in(folder))
    policy = folder / "tiny/policy"
    log = [json.loads(line) for line in (policy / "grpo/log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == [1, 2, 3]
    wanted = ("reward", "reward_std", "entropy", "kl", "doubt", "completions/mean_length")
    for name in (*wanted, "frac_reward_zero_std", "unique_workflows"):
        assert all(np.isfinite(entry[name]) for entry in log), name

    designs = Designer.load(policy / "sft", policy / "grpo", space).design(["an owl"], n=2, guidance=1.5)
    assert all(design.tokens for design in designs[0])
    run_stage(config_in(folder))
    assert "up to date" in capsys.readouterr().out
