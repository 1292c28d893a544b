"""The hacking alarm: an audit is honest about failures, and a policy that fools the ensemble is stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from tiny_ensemble import RuleEnsemble
from tiny_rows import PROMPTS, SCORERS
from tiny_run import move_to, run_without_grpo, tiny_config
from trl.trainer.grpo_config import GRPOConfig

from flowtailor.actors.client import ComfyClient
from flowtailor.actors.comfy import engine_name
from flowtailor.datasets.store import Store
from flowtailor.errors import FlowtailorError
from flowtailor.models.constrained import AllowedMasks
from flowtailor.models.designing import Designer
from flowtailor.models.masked_trainer import MaskedGRPOTrainer, WordIds
from flowtailor.models.policy import Policy, policy_prompt
from flowtailor.models.reward import RewardEnsemble
from flowtailor.pipelines import grpo
from flowtailor.pipelines.audit import (
    Alarm,
    Audit,
    Auditor,
    alarm_callback,
    audit_prompts,
    compare,
    stop_on_alarm,
)
from flowtailor.pipelines.config import Config
from flowtailor.pipelines.config_file import load_config
from flowtailor.pipelines.statistics import Interval
from flowtailor.workflows.grammar import Grammar
from flowtailor.workflows.space import Space

LOVED = "ImageScaleBy"
RENDERED = 0.5  # what every picture scores in the tests without an engine
TRAINER = {
    "use_cpu": True,
    "bf16": False,
    "report_to": "none",
    "disable_tqdm": True,
    "logging_steps": 1,
    "save_strategy": "no",
    "dataloader_pin_memory": False,
    "gradient_checkpointing": False,
    "remove_unused_columns": False,
}


def found(step: int, gap: float) -> Audit:
    return Audit(step, RENDERED + gap, Interval(RENDERED, 0.4, 0.6), Interval(gap, gap, gap), 12, 0)


def test_a_design_that_fails_to_render_scores_nothing() -> None:
    rows = pd.DataFrame(
        {
            "predicted": [0.8, 0.6],
            "score_alignment": [0.7, np.nan],
            "score_sharpness": [0.5, np.nan],
            "error_type": [None, "ComfyExecutionError"],
        }
    )
    audit = compare(20, rows, {"alignment": 1.0, "sharpness": 1.0})
    assert (audit.step, audit.designs, audit.failed) == (20, 2, 1)
    assert audit.predicted == pytest.approx(0.7)
    assert audit.rendered.value == pytest.approx(0.3)
    assert audit.gap.value == pytest.approx(0.4)


def test_validation_prompts_are_audited_first() -> None:
    config = load_config(None, ["grpo.audit_designs=6", "prompts.validation=4"])
    assert [prompt.split for prompt in audit_prompts(config)] == ["validation"] * 4 + ["train"] * 2


def test_the_adapter_that_passed_last_is_what_an_alarm_leaves(tmp_path: Path) -> None:
    gaps = {0: 0.02, 5: 0.1, 10: 0.3}
    steps: list[int] = []

    def save(folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "adapter_config.json").write_text(json.dumps(steps[-1]))

    def audit(step: int) -> Audit:
        steps.append(step)
        return found(step, gaps[step])

    alarm = Alarm(audit, save, max_gap=0.15)
    for step in gaps:
        alarm.check(step, tmp_path)
    output = tmp_path / "output"
    output.mkdir()
    alarm.save(output)
    with pytest.raises(
        FlowtailorError, match=r"stopped after 10 steps.*gap of 0\.300 .*audit_max_gap = 0\.15"
    ):
        stop_on_alarm(output, tmp_path / "kept")
    assert json.loads((tmp_path / "kept/adapter_config.json").read_text()) == 5


def test_a_gap_that_is_no_number_is_none_to_trust(tmp_path: Path) -> None:
    alarm = Alarm(lambda step: found(step, np.nan), lambda folder: folder.mkdir(exist_ok=True), max_gap=0.15)
    alarm.check(0, tmp_path)
    assert alarm.raised is not None


def test_without_an_alarm_the_adapter_is_written_and_nothing_said(tmp_path: Path) -> None:
    alarm = Alarm(lambda step: found(step, 0.0), lambda folder: folder.mkdir(exist_ok=True), max_gap=0.15)
    alarm.check(0, tmp_path)
    alarm.save(tmp_path / "output")
    stop_on_alarm(tmp_path / "output", tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def loves_one_word() -> RewardEnsemble:
    """It foresees 1 for every design with one word in it, and the truth for the others."""
    return RuleEnsemble(lambda _, words: (1.0 if LOVED in words else RENDERED, 1.0), SCORERS)


def pretend_to_render(config: Config, missing: pd.DataFrame, store: Store) -> None:
    store.append(missing.assign(**{f"score_{name}": RENDERED for name in SCORERS}, error_type=None))


@pytest.fixture
def config(tmp_path: Path, space: Space) -> Config:
    """A configuration whose run has rows, a random policy and a random ensemble, but no adapter."""
    run_without_grpo(tmp_path, space)
    settings = ["grpo.audit_every=4", "grpo.audit_designs=4", "space.max_tokens=32"]
    tiny = ["grpo.prompts_per_step=2", "grpo.num_generations=4", "engine.count=1"]
    return tiny_config(tmp_path, *settings, *tiny)


def trained(
    config: Config, space: Space, folder: Path, *, steps: int, max_gap: float | None, learning_rate: float
) -> tuple[MaskedGRPOTrainer, Alarm]:
    """GRPO against the ensemble that loves one word, with an alarm where there is a limit."""
    torch.manual_seed(0)
    policy = Policy.load(Path(config.run.root) / "tiny/policy/sft", space.vocabulary)
    policy.add_adapter(8)
    to_words, ensemble = WordIds(policy.columns), loves_one_word()

    def words_of(ids: list[int]) -> tuple[str, ...]:
        return tuple(space.vocabulary[word] for word in to_words(torch.tensor(ids)).tolist()[:-1])

    trainer = MaskedGRPOTrainer(
        policy,
        AllowedMasks(Grammar(space, max_tokens=32), len(space.vocabulary)),
        reward_funcs=grpo.reward_function(ensemble, config, words_of, known=()),
        args=GRPOConfig(
            output_dir=str(folder),
            max_steps=steps,
            per_device_train_batch_size=16,
            num_generations=8,
            max_completion_length=32,
            learning_rate=learning_rate,
            beta=0.0,
            **TRAINER,
        ),
        train_dataset=Dataset.from_list(
            [{"prompt": policy_prompt(text), "text": text, "budget_s": None} for text in PROMPTS[:2]]
        ),
    )
    auditor = Auditor(config, space, Designer(policy, space, max_tokens=32), ensemble, pretend_to_render)
    alarm = Alarm(auditor, policy.save_adapter, max_gap or 0.0)
    if max_gap is not None:
        trainer.add_callback(alarm_callback(alarm, every=config.grpo.audit_every))
    trainer.train()
    return trainer, alarm


def test_a_policy_that_fools_the_ensemble_is_stopped(config: Config, space: Space, tmp_path: Path) -> None:
    """GRPO finds the loved word, the predictions rise, the pictures do not."""
    trainer, alarm = trained(config, space, tmp_path / "t", steps=60, max_gap=0.4, learning_rate=2e-2)
    audits = [entry for entry in trainer.state.log_history if "audit_gap" in entry]
    assert [entry["audit_step"] for entry in audits][:2] == [0, 4]
    assert audits[0]["audit_gap"] < 0.4 < audits[-1]["audit_gap"]
    assert trainer.state.global_step == audits[-1]["audit_step"] < 60
    with pytest.raises(FlowtailorError, match=rf"stopped after {trainer.state.global_step} steps"):
        alarm.save(tmp_path / "output")
        stop_on_alarm(tmp_path / "output", tmp_path / "kept")
    sft = tmp_path / "tiny/policy/sft"
    assert Designer.load(sft, tmp_path / "kept", space).adapters == ("grpo",)


def test_audits_change_nothing_in_training(config: Config, space: Space, tmp_path: Path) -> None:
    often = config.changed(grpo={"audit_every": 1})
    weights = []
    for max_gap in (None, 1.0):
        options: dict[str, Any] = {"steps": 3, "max_gap": max_gap, "learning_rate": 1e-2}
        trainer, _ = trained(often, space, tmp_path / str(max_gap), **options)
        weights.append({k: v for k, v in trainer.policy.model.named_parameters() if v.requires_grad})
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_known_designs_are_not_rendered_again(config: Config, space: Space, tmp_path: Path) -> None:
    designer = Designer.load(tmp_path / "tiny/policy/sft", tmp_path / "tiny/policy/random", space)
    rendered: list[int] = []

    def render(config: Config, missing: pd.DataFrame, store: Store) -> None:
        rendered.append(len(missing))
        pretend_to_render(config, missing, store)

    auditor = Auditor(config, space, designer, loves_one_word(), render)
    assert auditor(0).gap == auditor(4).gap
    assert rendered == [4]


@pytest.mark.engine
@pytest.mark.ray
@pytest.mark.slow
def test_the_stage_audits_on_an_engine_and_stops(
    config: Config, tmp_path: Path, space: Space, comfy: ComfyClient
) -> None:
    """A tiny run whose pictures are all worse than its ensemble foresees (limit 0), then a patient one."""
    run = tmp_path / "tiny"
    move_to(engine_name(config.engine, comfy), run, space)
    strict = config.changed(grpo={"steps": 2, "audit_every": 2, "audit_max_gap": 0.0})
    with pytest.raises(FlowtailorError, match=r"no adapter passed.*grpo\.beta or the limit"):
        grpo.run_stage(strict)
    assert not (run / "policy/grpo").exists()
    assert (run / "policy/grpo-stopped/log.jsonl").is_file()
    rows = Store(run / "policy/audit").rows()
    assert len(rows) == 4

    grpo.run_stage(strict.changed(grpo={"audit_max_gap": 1.0}))
    log = [json.loads(line) for line in (run / "policy/grpo/log.jsonl").read_text().splitlines()]
    assert [entry["audit_step"] for entry in log] == [0, 2]
    assert set(rows["row_id"]) <= set(Store(run / "policy/audit").rows()["row_id"])
