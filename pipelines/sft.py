"""`flowtailor sft`: teach a language model to write workflows, by imitation.

Writes two policies. `policy/sft`: the base model with the space's words, trained on what a teacher
(`teachers.py`) would design for each training prompt; LoRA and the words' rows learn, and are folded into
the weights at the end. `policy/score_conditioned`: an adapter on it, trained on all designs with their score
as a wish (ComfyGen-FT's way), which the evaluation compares against.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..datasets.prompts import prompt_file, training_prompts
from ..workflows.rules import END
from .catalog import read_world, world_inputs
from .config import Config
from .examples import Example, designable, imitation_examples, score_examples, seconds_range, training_rows
from .known import workflows_of, write_known
from .policy_training import train, train_in_ray, trainer_options, worker_device
from .questions import askable, draw_questions
from .repertoire import repertoire
from .stage import Run, fingerprint, is_done, stage_output
from .teachers import EnsembleTeacher, RowsTeacher, Teacher
from .trained import load_ensemble

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset

    from ..models.masked_trainer import MaskedSFTTrainer
    from ..models.policy import Policy
    from ..workflows.grammar import Grammar
    from ..workflows.space import Space

LORA_RANK = 32


def run_stage(config: Config, *, dry_run: bool = False) -> None:
    """Train what is not up to date; with `dry_run` say on how many examples."""
    run = Run(config)
    train_part(config, run, "policy/sft", dry_run)
    train_part(config, run, "policy/score_conditioned", dry_run)


def train_part(config: Config, run: Run, name: str, dry_run: bool = False) -> None:
    """Train one of the two policies if it is not up to date."""
    inputs = stage_inputs(config, run, name)
    if is_done(run, name, inputs):
        return
    _, space = read_world(run)
    rows = training_rows(designable(run.comparable_rows(), space), config.scorers.weights)
    sft, imitates = config.sft, name == "policy/sft"
    steps = sft.steps if imitates else sft.score_conditioned_steps
    source = f"taught by {sft.teacher}" if imitates else "each with its score"
    knows_all = imitates and sft.teacher == "ensemble"
    scored = rows.dropna(subset="score")
    prompts = askable(config) if knows_all else sorted(set(scored["prompt"]))
    print(
        f"{name}: {steps} steps of {sft.batch_size} examples, {source} "
        f"({len(prompts)} prompts, {len(rows if knows_all else scored)} rows)",
        flush=True,
    )
    if dry_run:
        return
    count = steps * sft.batch_size
    if imitates:
        examples = imitation(config, run, rows, prompts, space, count)
    else:
        examples = score_examples(scored, count, each=sft.designs_per_prompt, seed=config.run.seed)
    setup = {"part": name, "examples": examples, "steps": steps}
    with stage_output(run, name, inputs) as folder:
        train_in_ray(config, _worker, setup, f"{Path(name).name}-{fingerprint(inputs)[:12]}", folder)
        if imitates:
            write_known(folder, rows)


def imitation(
    config: Config, run: Run, rows: pd.DataFrame, prompts: Sequence[str], space: Space, count: int
) -> list[Example]:
    """`count` designs of the configured teacher for `prompts`.

    Raises FlowtailorError without an ensemble to ask.
    """
    sft, seed = config.sft, config.run.seed
    questions = draw_questions(
        prompts,
        -(-count // sft.designs_per_prompt),
        seconds=seconds_range(rows),
        budgeted=sft.budgeted,
        seed=seed,
    )
    if sft.teacher == "rows":
        teacher: Teacher = RowsTeacher(rows.dropna(subset="score"), sft.keep)
    else:
        ensemble = load_ensemble(run)
        rendered = workflows_of(rows)
        asked = list(dict.fromkeys(question.prompt for question in questions))
        workflows = repertoire(rendered, asked, ensemble, space, config)
        print(f"policy/sft: {len(workflows)} workflows to choose from", flush=True)
        teacher = EnsembleTeacher(ensemble, asked, workflows, set(rendered), config)
    return imitation_examples(questions, teacher, each=sft.designs_per_prompt, seed=seed)


def stage_inputs(config: Config, run: Run, name: str) -> dict[str, Any]:
    """What a policy depends on."""
    inputs = {
        "rows": run.rows_hash(),
        "space": [*world_inputs(run), config.space.max_tokens],
        "prompts": prompt_file(config.prompts.file),
        "scorers": config.scorers,
        "seed": config.run.seed,
    }
    if name != "policy/sft":
        unused = {"steps", "teacher", "teacher_temperature", "variants", "keep", "budgeted"}
        sft = config.sft.model_dump(exclude=unused)
        return inputs | {"sft": sft, "policy": run.path("policy/sft/model.safetensors")}
    by_rows = config.sft.teacher == "rows"
    unused = {"score_conditioned_steps", *({"teacher_temperature", "variants"} if by_rows else {"keep"})}
    inputs |= {"sft": config.sft.model_dump(exclude=unused)}
    if by_rows:
        return inputs | {"backbone": config.reward.backbone}  # by which prompts have their labels
    reward, grpo = config.reward, config.grpo
    judged_by = [reward.kappa, reward.lambda_seconds, reward.novelty, grpo.over_budget_penalty]
    return inputs | {"reward": run.path("reward"), "objective": judged_by}


def _worker(setup: dict[str, Any]) -> None:
    """What the Ray Train worker does."""
    import torch

    from flowtailor.precision import compute_dtype

    from ..models.labels import Labels
    from ..models.policy import Policy
    from ..models.weights import resolve

    config: Config = setup["config"]
    run, device = Run(config), worker_device()
    torch.manual_seed(config.run.seed)
    _, space = read_world(run)
    from_base = setup["part"] == "policy/sft"
    source = resolve(config.sft.base) if from_base else run.path("policy/sft")
    policy = Policy.from_base(source, space.vocabulary, compute_dtype(device))
    if from_base:
        policy.labels = Labels.fit(training_prompts(config.prompts.file), config.reward.backbone)
    policy.add_adapter(LORA_RANK, train_words=from_base)
    options = _trl_options(config, device, setup["steps"])

    def save(folder: Path) -> None:
        if from_base:
            policy.merge_adapter()
            policy.model.to(torch.bfloat16)  # type: ignore[arg-type]
            policy.save(folder)
        else:
            policy.save_adapter(folder)

    train(_trainer(config, policy, space, setup["examples"], options), Path(setup["part"]).name, save)


def _trainer(
    config: Config, policy: Policy, space: Space, examples: Sequence[Example], options: dict[str, Any]
) -> MaskedSFTTrainer:
    """TRL's trainer, which shows the examples in their order."""
    from trl.trainer.sft_config import SFTConfig

    from ..models.constrained import AllowedMasks
    from ..models.masked_trainer import MaskedSFTTrainer
    from ..workflows.grammar import Grammar

    grammar = Grammar(space, max_tokens=config.space.max_tokens)
    return MaskedSFTTrainer(
        policy,
        AllowedMasks(grammar, len(space.vocabulary)),
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
