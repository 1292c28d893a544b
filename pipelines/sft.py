"""`flowtailor sft`: teach a language model to write workflows, by imitation.

Writes two policies. `policy/sft`: the base model with the space's words, trained on what a teacher
(`teachers.py`) would design for each training prompt; LoRA and the words' rows learn, and are folded into
the weights at the end. `policy/score_conditioned`: an adapter on it, trained on all designs with their score
as a wish (ComfyGen-FT's way), which the evaluation compares against.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..datasets.prompts import prompt_file, training_prompts
from ..models.policy_file import POLICY_FORMAT
from ..workflows.rules import END
from .catalog import read_world, world_inputs
from .config import Config
from .examples import Example, designable, imitation_examples, score_examples, seconds_range, training_rows
from .known import known_to, workflows_of, write_known
from .policy_training import train, train_in_ray, trainer_options, worker_device
from .provenance import fingerprint
from .questions import askable, draw_questions
from .repertoire import repertoire
from .stage import Run, is_done, stage_output
from .teachers import EnsembleTeacher, RowsTeacher, Teacher
from .trained import load_ensemble

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from datasets import Dataset

    from ..models.masked_trainer import MaskedSFTTrainer
    from ..models.policy import Policy
    from ..workflows.grammar import Grammar
    from ..workflows.space import Space

LORA_RANK = 32


class Imitation:
    """`policy/sft`: the base model, which imitates what a teacher would design."""

    name = "policy/sft"
    merged = True

    def __init__(self, config: Config) -> None:
        self.config, self.steps = config, config.sft.steps
        self.taught = f"taught by {config.sft.teacher}"
        self.by_rows = config.sft.teacher == "rows"

    def inputs(self, run: Run) -> dict[str, Any]:
        """What it depends on, besides what both parts do."""
        unused = {
            "score_conditioned_steps",
            *({"teacher_temperature", "variants"} if self.by_rows else {"keep"}),
        }
        inputs = {"sft": self.config.sft.model_dump(exclude=unused)}
        if self.by_rows:
            return inputs | {"backbone": self.config.reward.backbone}  # by which prompts have their labels
        reward, grpo = self.config.reward, self.config.grpo
        objective = [reward.kappa, reward.lambda_seconds, reward.novelty, grpo.over_budget_penalty]
        return inputs | {"reward": run.path("reward"), "objective": objective}

    def lessons(self, rows: pd.DataFrame) -> tuple[list[str], pd.DataFrame]:
        """The prompts that it is asked about, and the rows that the teacher knows."""
        return _rendered(rows) if self.by_rows else (askable(self.config), rows)

    def examples(
        self, run: Run, prompts: Sequence[str], rows: pd.DataFrame, space: Space, count: int
    ) -> list[Example]:
        """`count` designs of the teacher for `prompts`. Raises FlowtailorError without an ensemble to ask."""
        sft, seed = self.config.sft, self.config.run.seed
        questions = draw_questions(
            prompts,
            -(-count // sft.designs_per_prompt),
            seconds=seconds_range(rows),
            budgeted=sft.budgeted,
            seed=seed,
        )
        if self.by_rows:
            teacher: Teacher = RowsTeacher(rows, sft.keep)
        else:
            ensemble, rendered, known = load_ensemble(run), workflows_of(rows), set(known_to(sft.base, rows))
            asked = list(dict.fromkeys(question.prompt for question in questions))
            workflows = repertoire(rendered, known, asked, ensemble, space, self.config)
            print(f"{self.name}: {len(workflows)} workflows to choose from", flush=True)
            teacher = EnsembleTeacher(ensemble, asked, workflows, known, self.config)
        return imitation_examples(questions, teacher, each=sft.designs_per_prompt, seed=seed)

    def policy(self, run: Run, space: Space, dtype: torch.dtype) -> Policy:
        """What is trained."""
        from ..models.labels import Labels
        from ..models.policy import Policy
        from ..models.weights import resolve

        policy = Policy.from_base(resolve(self.config.sft.base), space.vocabulary, dtype)
        policy.labels = Labels.fit(training_prompts(self.config.prompts.file), self.config.reward.backbone)
        policy.add_adapter(LORA_RANK, train_words=True)
        return policy

    def save(self, policy: Policy, folder: Path) -> None:
        import torch

        policy.merge_adapter()
        policy.model.to(torch.bfloat16)  # type: ignore[arg-type]
        policy.save(folder)

    def finish(self, rows: pd.DataFrame, folder: Path) -> None:
        """Note in the output which workflows were known then."""
        write_known(folder, rows)


class ScoreConditioned:
    """`policy/score_conditioned`: an adapter on it, which says any design of the rows after its score."""

    name = "policy/score_conditioned"
    merged = False

    def __init__(self, config: Config) -> None:
        self.config, self.steps = config, config.sft.score_conditioned_steps
        self.taught = "each with its score"

    def inputs(self, run: Run) -> dict[str, Any]:
        unused = {"steps", "teacher", "teacher_temperature", "variants", "keep", "budgeted"}
        sft = self.config.sft.model_dump(exclude=unused)
        policy = run.path("policy/sft/model.safetensors")
        return {"sft": sft, "policy": policy}

    def lessons(self, rows: pd.DataFrame) -> tuple[list[str], pd.DataFrame]:
        return _rendered(rows)

    def examples(
        self, run: Run, prompts: Sequence[str], rows: pd.DataFrame, space: Space, count: int
    ) -> list[Example]:
        each, seed = self.config.sft.designs_per_prompt, self.config.run.seed
        return score_examples(rows, count, each=each, seed=seed)

    def policy(self, run: Run, space: Space, dtype: torch.dtype) -> Policy:
        from ..models.policy import Policy

        policy = Policy.from_base(run.path("policy/sft"), space.vocabulary, dtype)
        policy.add_adapter(LORA_RANK)
        return policy

    def save(self, policy: Policy, folder: Path) -> None:
        policy.save_adapter(folder)

    def finish(self, rows: pd.DataFrame, folder: Path) -> None:
        pass


PARTS: dict[str, type[Imitation] | type[ScoreConditioned]] = {
    part.name: part for part in (Imitation, ScoreConditioned)
}


def run_stage(config: Config, *, dry_run: bool = False) -> None:
    """Train what is not up to date; with `dry_run` say on how many examples."""
    for name in PARTS:
        train_part(config, Run(config), name, dry_run)


def train_part(config: Config, run: Run, name: str, dry_run: bool = False) -> None:
    """Train one of the two policies if it is not up to date."""
    inputs = stage_inputs(config, run, name)
    if is_done(run, name, inputs):
        return
    part = PARTS[name](config)
    _, space = read_world(run)
    rows = training_rows(designable(run.comparable_rows(), space), config.scorers.weights)
    prompts, known = part.lessons(rows)
    print(
        f"{name}: {part.steps} steps of {config.sft.batch_size} examples, {part.taught} "
        f"({len(prompts)} prompts, {len(known)} rows)",
        flush=True,
    )
    if dry_run:
        return
    examples = part.examples(run, prompts, known, space, part.steps * config.sft.batch_size)
    budgeted = any(example.budget_s is not None for example in examples)
    setup = {"part": name, "examples": examples, "budgets_s": seconds_range(known) if budgeted else None}
    with stage_output(run, name, inputs) as folder:
        train_in_ray(config, _worker, setup, f"{Path(name).name}-{fingerprint(inputs)[:12]}", folder)
        part.finish(rows, folder)


def stage_inputs(config: Config, run: Run, name: str) -> dict[str, Any]:
    """What a policy depends on."""
    inputs = {
        "rows": run.rows_hash(),
        "space": [*world_inputs(run), config.space.max_tokens],
        "prompts": prompt_file(config.prompts.file),
        "scorers": config.scorers,
        "seed": config.run.seed,
        "format": POLICY_FORMAT,
    }
    return inputs | PARTS[name](config).inputs(run)


def _rendered(rows: pd.DataFrame) -> tuple[list[str], pd.DataFrame]:
    """The rows with a score, and their prompts."""
    scored = rows.dropna(subset="score")
    return sorted(set(scored["prompt"])), scored


def _worker(setup: dict[str, Any]) -> None:
    """What the Ray Train worker does."""
    import torch

    from flowtailor.precision import compute_dtype

    config: Config = setup["config"]
    part, run, device = PARTS[setup["part"]](config), Run(config), worker_device()
    torch.manual_seed(config.run.seed)
    _, space = read_world(run)
    policy = part.policy(run, space, compute_dtype(device))
    policy.budgets_s = setup["budgets_s"] or policy.budgets_s
    options = _trl_options(config, device, part.steps)
    trainer = _trainer(config, policy, space, setup["examples"], options, merged=part.merged)
    train(trainer, Path(part.name).name, partial(part.save, policy))


def _trainer(
    config: Config,
    policy: Policy,
    space: Space,
    examples: Sequence[Example],
    options: dict[str, Any],
    *,
    merged: bool,
) -> MaskedSFTTrainer:
    """TRL's trainer, which shows the examples in their order. merged: see `MaskedSFTTrainer`."""
    from trl.trainer.sft_config import SFTConfig

    from ..models.constrained import AllowedMasks
    from ..models.masked_trainer import MaskedSFTTrainer
    from ..workflows.grammar import Grammar

    grammar = Grammar(space, max_tokens=config.space.max_tokens)
    return MaskedSFTTrainer(
        policy,
        AllowedMasks(grammar, len(space.vocabulary)),
        merged=merged,
        args=SFTConfig(**options),
        train_dataset=_dataset(policy, grammar, examples),
    )


def _trl_options(config: Config, device: Any, steps: int) -> dict[str, Any]:
    sft = config.sft
    given = {
        "per_device_train_batch_size": sft.batch_size,
        "learning_rate": sft.learning_rate,
        "max_length": None,
        # Examples come as they were drawn, those of one prompt side by side.
        "train_sampling_strategy": "sequential",
    }
    return trainer_options(device, steps, config.run.seed, given | sft.trl)


def _dataset(policy: Policy, grammar: Grammar, examples: Sequence[Example]) -> Dataset:
    """Token ids, labels that count for the words of the design only, and what may stand in their places."""
    from datasets import Dataset

    columns = []
    for example in examples:
        prompt = policy.encode_prompt(policy.prompt(example.prompt, example.budget_s, example.score))
        words = [*example.tokens, END]
        design = policy.vocabulary.columns(words).tolist()
        shares = example.shares or [{word: 1.0} for word in words]
        columns.append(
            {
                "input_ids": prompt + design,
                "labels": [-100] * len(prompt) + design,
                "share_words": [[grammar.ids[word] for word in place] for place in shares],
                "shares": [[*place.values()] for place in shares],
            }
        )
    return Dataset.from_list(columns)
