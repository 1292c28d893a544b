"""`flowtailor grpo`: reinforcement learning against the reward ensemble.

Each step draws groups of designs for a few training prompts, each with a time budget or with none,
asks the ensemble how they would score, and moves a LoRA adapter on the SFT policy towards the better
ones of each group. Nothing is rendered but the few pictures of the audits (`audit.py`), which stop the
run where the ensemble no longer foresees them. Writes `policy/grpo`: the adapter and `log.jsonl`, one
line a step.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..datasets.prompts import prompt_file
from ..models.policy_file import POLICY_FORMAT
from .audit import Alarm, Auditor, alarm_callback, stop_on_alarm
from .catalog import read_world
from .config import Config
from .examples import seconds_range, training_rows
from .known import read_known
from .objective import Objective, Words, limit
from .policy_training import train, train_in_ray, trainer_options, worker_device
from .provenance import fingerprint
from .questions import Question, askable, draw_questions
from .stage import Run, is_done, stage_output
from .trained import need

if TYPE_CHECKING:
    from ..models.masked_trainer import MaskedGRPOTrainer
    from ..models.policy import Policy
    from ..models.reward import RewardEnsemble
    from ..workflows.space import Space


def run_stage(config: Config, *, dry_run: bool = False) -> None:
    """Train the adapter if it is not up to date; with `dry_run` say how much would be sampled."""
    run = Run(config)
    inputs = stage_inputs(config, run)
    if is_done(run, "policy/grpo", inputs):
        return
    grpo = config.grpo
    per_step = grpo.prompts_per_step * grpo.num_generations
    print(f"policy/grpo: {grpo.steps} steps of {per_step} designs, judged by the ensemble", flush=True)
    if dry_run:
        return
    need(run.dir, "policy/sft", "policy/sft/known.json", "reward/ensemble.json")
    with stage_output(run, "policy/grpo", inputs) as folder:
        train_adapter(config, run.path("reward"), f"grpo-{fingerprint(inputs)[:12]}", folder)


def train_adapter(
    config: Config, reward: Path, name: str, folder: Path, *, start: Path | None = None, seed: int = 0
) -> None:
    """Train an adapter on the run's SFT policy against the ensemble in `reward`; write it into `folder`.

    name: of the Ray run, by which an interrupted one goes on. start: an adapter to go on from. seed: added
    to the run's. Raises FlowtailorError where an audit finds the ensemble deceived.
    """
    run = Run(config)
    rows = training_rows(run.comparable_rows(), config.scorers.weights)
    seed += config.run.seed
    questions = draw_questions(
        askable(config),
        config.grpo.steps * config.grpo.prompts_per_step,
        seconds=seconds_range(rows),
        budgeted=config.grpo.budgeted,
        seed=seed,
    )
    setup = {
        "questions": questions,
        "reward": reward.resolve(),
        "start": start.resolve() if start else None,
        "seed": seed,
    }
    train_in_ray(config, _worker, setup, name, folder)
    stop_on_alarm(folder, run.path("policy/grpo-stopped"))


def stage_inputs(config: Config, run: Run) -> dict[str, Any]:
    """What the adapter depends on."""
    unused = set() if config.grpo.audit_every else {"audit_every", "audit_designs", "audit_max_gap"}
    return {
        "policy": run.path("policy/sft/model.safetensors"),
        "reward": run.path("reward"),
        "rows": run.rows_hash(),
        "prompts": prompt_file(config.prompts.file),
        "grpo": config.grpo.model_dump(mode="json", exclude=unused),
        "objective": [config.reward.kappa, config.reward.lambda_seconds, config.reward.novelty],
        "scorers": config.scorers,
        "max_tokens": config.space.max_tokens,
        "seed": config.run.seed,
        "format": POLICY_FORMAT,
    }


def reward_function(
    ensemble: RewardEnsemble,
    config: Config,
    words_of: Callable[[list[int]], Words],
    known: Collection[Words],
) -> Callable[..., list[float]]:
    """TRL's reward function: what designs are worth by `objective.py`.

    words_of: token ids of a design -> its canonical words, lest a policy is rewarded for how it puts them.
    Logs the ensemble's doubt, the predicted seconds, how many budgets are broken, how many designs of the
    step differ, and how many are none of `known`.
    """
    weights = config.scorers.weights

    def score(
        *,
        completion_ids: list[list[int]],
        text: list[str],
        budget_s: list[float | None],
        log_metric: Callable[[str, float], None],
        **_: Any,
    ) -> list[float]:
        words = [words_of(ids) for ids in completion_ids]
        known_N = np.array([each in known for each in words])
        predictions = ensemble.predict(text, words)
        budgets = np.array([limit(budget) for budget in budget_s])
        mean = predictions.score(weights)[0]
        log_metric("doubt", float(predictions.doubted(weights).mean()))
        log_metric("predicted_score", float(mean.mean()))
        log_metric("predicted_seconds", float(predictions.seconds.mean()))
        log_metric("unique_workflows", len(set(words)) / len(words))
        log_metric("new_workflows", float((~known_N).mean()))
        if np.isfinite(budgets).any():
            log_metric("over_budget", float((predictions.seconds > budgets)[np.isfinite(budgets)].mean()))
        return Objective.of(predictions, known_N, config).within(budgets).tolist()

    return score


def _worker(setup: dict[str, Any]) -> None:
    """What the Ray Train worker does."""
    import torch

    from flowtailor.precision import compute_dtype

    from ..models.designing import Designer
    from ..models.policy import Policy
    from ..models.reward import RewardEnsemble

    config: Config = setup["config"]
    run, device, grpo = Run(config), worker_device(), config.grpo
    torch.manual_seed(setup["seed"])
    _, space = read_world(run)
    policy = Policy.load(run.path("policy/sft"), space.vocabulary, dtype=compute_dtype(device))
    _add_adapter(policy, grpo.lora_rank, setup["start"])
    ensemble = RewardEnsemble.load(setup["reward"])
    options = _trl_options(config, device, setup["seed"])
    trainer = _trainer(config, policy, space, ensemble, setup["questions"], options)
    save = policy.save_adapter
    if grpo.audit_every:
        designer = Designer(policy, space, max_tokens=config.space.max_tokens)
        alarm = Alarm(Auditor(config, space, designer, ensemble), save, grpo.audit_max_gap)
        trainer.add_callback(alarm_callback(alarm, grpo.audit_every))
        save = alarm.save
    train(trainer, "grpo", save)


def _trainer(
    config: Config,
    policy: Policy,
    space: Space,
    ensemble: RewardEnsemble,
    questions: Sequence[Question],
    options: dict[str, Any],
) -> MaskedGRPOTrainer:
    """TRL's trainer, which asks the questions in their order and the ensemble for rewards."""
    import torch
    from datasets import Dataset
    from trl.trainer.grpo_config import GRPOConfig

    from ..models.constrained import AllowedMasks
    from ..models.masked_trainer import MaskedGRPOTrainer, WordIds
    from ..workflows.codec import respelled
    from ..workflows.grammar import Grammar

    to_words = WordIds(policy.columns)

    def words_of(ids: list[int]) -> tuple[str, ...]:
        return respelled([space.vocabulary[word] for word in to_words(torch.tensor(ids)).tolist()], space)

    asked = [
        {"prompt": policy.prompt(text, budget), "text": text, "budget_s": budget}
        for text, budget in questions
    ]
    return MaskedGRPOTrainer(
        policy,
        AllowedMasks(Grammar(space, max_tokens=config.space.max_tokens), len(space.vocabulary)),
        mask_loss=config.grpo.mask_loss,
        reward_funcs=reward_function(ensemble, config, words_of, set(read_known(Run(config)))),
        args=GRPOConfig(**options),
        train_dataset=Dataset.from_list(asked),
    )


def _trl_options(config: Config, device: Any, seed: int) -> dict[str, Any]:
    grpo = config.grpo
    per_step = grpo.prompts_per_step * grpo.num_generations
    at_once = next(size for size in range(min(16, per_step), 0, -1) if per_step % size == 0)
    given = {
        "per_device_train_batch_size": at_once,
        "gradient_accumulation_steps": per_step // at_once,
        "num_generations": grpo.num_generations,
        "max_completion_length": config.space.max_tokens,
        "learning_rate": grpo.learning_rate,
        "temperature": grpo.temperature,
        "beta": grpo.beta,
        # In the reward's own unit, so that `beta` is a temperature: the policy tends to the SFT policy times
        # exp(reward (G - 1) / (G beta)) in groups of G, whose mean each design is part of. Scaled by a
        # deviation, designs that differ by a hair push as hard as any, and it ends with one workflow for
        # everything.
        "scale_rewards": "none",
        "lr_scheduler_type": "constant_with_warmup",
        "shuffle_dataset": False,
        "remove_unused_columns": False,
    }
    return trainer_options(device, grpo.steps, seed, given | grpo.trl)


def _add_adapter(policy: Policy, rank: int, start: Path | None) -> None:
    """A fresh adapter, or one that goes on from where `start` ended, at its rank."""
    from peft import load_peft_weights, set_peft_model_state_dict

    if start is None:
        policy.add_adapter(rank)
    else:
        policy.add_adapter(json.loads((start / "adapter_config.json").read_text())["r"])
        set_peft_model_state_dict(policy.model, load_peft_weights(str(start), device="cpu"))
