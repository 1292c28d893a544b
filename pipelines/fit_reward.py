"""`flowtailor fit-reward`: learn to predict scores and seconds from the collected rows.

The members of the ensemble are shared out among Ray Train workers. Every few epochs and after each
member a worker reports their state, so that a killed worker, or a killed command that is started
again, goes on from there. Failed renders are not learned from: nothing is known of their score. Rows that
are older than a scorer teach the other scores.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from flowtailor.errors import FlowtailorError
from flowtailor.memory import keep_freed_memory

from ..datasets.prompts import prompt_file, training_prompts
from ..datasets.rows import learnable, text_hash, usable
from ..models.reward_file import FORMAT
from .cluster import ensure_ray, share_of, training_run
from .config import Config
from .provenance import fingerprint
from .stage import Run, is_done, stage_output, write_json

if TYPE_CHECKING:  # torch and ray, seconds of import that a dry run can spare
    from ray.train import Checkpoint

    from ..models.reward_fit import FitSettings, MemberFit, TrainingSet
    from ..models.reward_net import RewardNet

EPOCHS_PER_REPORT = 15
FEWEST_ROWS = 20


def run_stage(config: Config, *, dry_run: bool = False) -> None:
    """Fit the ensemble of a run and write `reward/`; with `dry_run` say what would be fitted."""
    run = Run(config)
    inputs = stage_inputs(config, run)
    if is_done(run, "reward", inputs):
        return
    scorers = sorted(config.scorers.weights)
    reward = config.reward
    frame = learnable(run.comparable_rows(), scorers)
    training = not_held_out(frame)
    whole = len(usable(training, scorers))
    if whole < FEWEST_ROWS and not dry_run:
        raise FlowtailorError(
            f"{run.path('dataset')}: {whole} usable training rows, at least {FEWEST_ROWS} are "
            "needed; run `flowtailor collect` first, with more prompts or flows"
        )
    print(
        f"reward: {reward.members} members, {reward.epochs} epochs of {len(training)} rows "
        f"({whole} with every score), {', '.join(scorers)} and seconds",
        flush=True,
    )
    if dry_run:
        return
    with stage_output(run, "reward", inputs) as folder:
        # What a cut-short fit has done is counted in turns of that many workers.
        name = f"reward-{fingerprint(inputs)[:12]}-{config.reward.workers}"
        fit(config, run, frame, training, scorers, folder, name)


def stage_inputs(config: Config, run: Run) -> dict[str, Any]:
    """What the ensemble depends on: rows, its own settings, the weights it is reported under."""
    return {
        "rows": run.rows_hash(),
        "prompts": prompt_file(config.prompts.file),
        "reward": config.reward.model_dump(exclude={"workers", "kappa", "lambda_seconds", "novelty"}),
        "scorers": config.scorers,
        "seed": config.run.seed,
        "format": FORMAT,  # or a fit that was cut short would go on from members of another make
    }


def not_held_out(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of training prompts with training workflows."""
    return frame.loc[(frame["prompt_split"] == "train") & (frame["workflow_split"] == "train")]


def fit(
    config: Config,
    run: Run,
    frame: pd.DataFrame,
    training: pd.DataFrame,
    scorers: list[str],
    folder: Path,
    name: str,
) -> None:
    """Train the members, calibrate on validation prompts, write ensemble and metrics into `folder`."""
    from ..models.reward import RewardEnsemble
    from ..models.reward_report import report

    parts, data = prepare(config, training, scorers)
    nets = train(config, data, run.path("ray").resolve(), name)
    ensemble = RewardEnsemble(nets, **parts)
    ensemble.calibrate(frame.loc[frame["prompt_split"] == "validation"])
    ensemble.save(folder)
    metrics = report(ensemble, frame, config.scorers.weights)
    write_json(folder / "metrics.json", metrics)
    shutil.rmtree(run.path(f"ray/{name}"), ignore_errors=True)  # the members' states are not needed again
    print(summary(metrics), flush=True)


def prepare(config: Config, training: pd.DataFrame, scorers: list[str]) -> tuple[dict[str, Any], TrainingSet]:
    """What an ensemble is made of besides its networks, and the rows as the networks' tensors."""
    from ..models.reward_features import WordTable
    from ..models.reward_fit import Scale, targets, training_set
    from ..models.text import TextEncoder
    from ..models.traits import prompt_traits

    backbone = config.reward.backbone
    encoder = TextEncoder.load(backbone)
    # Words that no training row holds would keep random rows; as unknown words they speak by name.
    vocabulary = sorted({word for text in training["tokens"] for word in str(text).split()})
    scale = Scale.of(targets(training, scorers))
    # All training prompts say what prompts are like, the few that were rendered as well as the others.
    traits = prompt_traits(training_prompts(config.prompts.file), encoder)
    data = training_set(training, scorers, WordTable(vocabulary, encoder), encoder, scale, traits)
    known = {text_hash(str(prompt)) for prompt in training["prompt"]}
    parts = {"vocabulary": vocabulary, "scorers": scorers, "scale": scale, "backbone": backbone}
    return parts | {"known": known}, data


def settings_of(config: Config) -> FitSettings:
    """The part of the configuration that a member sees."""
    from ..models.reward_fit import FitSettings

    reward = config.reward
    return FitSettings(reward.epochs, reward.batch_size, reward.learning_rate, config.run.seed)


def train(config: Config, data: TrainingSet, storage: Path, name: str) -> list[RewardNet]:
    """Fit all members on Ray Train workers; returns their networks in order."""
    ensure_ray(config)
    import ray
    from ray.train import ScalingConfig
    from ray.train.torch import TorchTrainer

    reward = config.reward
    workers = min(reward.workers, reward.members)
    trainer = TorchTrainer(
        train_members,
        train_loop_config={"data": data, "settings": settings_of(config), "members": reward.members},
        scaling_config=ScalingConfig(num_workers=workers, **_resources(workers, ray.cluster_resources())),
        run_config=training_run(name, storage),
    )
    checkpoint = trainer.fit().checkpoint
    assert checkpoint is not None  # every worker reports at least once
    with checkpoint.as_directory() as folder:
        return [_network(data, Path(folder) / f"member-{k}.pt") for k in range(reward.members)]


def train_members(setup: dict[str, Any]) -> None:
    """What a Ray Train worker does: fit the members whose number is its rank modulo the workers."""
    import ray.train
    import ray.train.torch
    from ray.experimental.tqdm_ray import tqdm

    from ..models.reward_fit import MemberFit

    keep_freed_memory()
    logging.disable(logging.INFO)  # Ray Train tells of every report of every worker
    data, settings, members = setup["data"], setup["settings"], setup["members"]
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    device = ray.train.torch.get_device()
    fits = {k: MemberFit(data, settings, k, device) for k in range(rank, members, workers)}
    plan = _Plan(settings.epochs, rounds=math.ceil(members / workers))
    first = _resume(fits, ray.train.get_checkpoint())
    bar = tqdm(total=len(plan), desc="reward", unit="report") if rank == 0 else None
    for cycle in range(len(plan)):
        if cycle >= first:
            member, until = plan[cycle]
            loss = _advance(fits.get(rank + member * workers), until)
            _report(fits, rank, cycle, loss)
        if bar:
            bar.update(1)
    if bar:
        bar.close()


@dataclass(frozen=True)
class _Plan:
    """The cycles of a worker: one member after the other, a few epochs a cycle.

    All workers have the same number of cycles, because Ray Train waits in each report for all.
    """

    epochs: int
    rounds: int

    def __len__(self) -> int:
        return self.rounds * math.ceil(self.epochs / EPOCHS_PER_REPORT)

    def __getitem__(self, cycle: int) -> tuple[int, int]:
        """Which of its members a worker is at, and the epoch to reach."""
        member, part = divmod(cycle, math.ceil(self.epochs / EPOCHS_PER_REPORT))
        return member, min(self.epochs, (part + 1) * EPOCHS_PER_REPORT)


def _advance(fit: MemberFit | None, until: int) -> float:
    """Train one member up to an epoch; a worker that has no member left just waits."""
    loss = math.nan
    while fit is not None and fit.epoch < until:
        loss = fit.run_epoch()
    return loss


def _report(fits: dict[int, MemberFit], rank: int, cycle: int, loss: float) -> None:
    """Hand the states of this worker's members to Ray Train; the workers' files become one checkpoint."""
    import ray.train
    import torch

    with tempfile.TemporaryDirectory() as folder:
        for member, fit in fits.items():
            torch.save(fit.state_dict(), Path(folder) / f"member-{member}.pt")
        (Path(folder) / f"cycle-{rank}.json").write_text(json.dumps(cycle))
        ray.train.report(
            {"mse": loss, "cycle": cycle},
            checkpoint=ray.train.Checkpoint.from_directory(folder),
            checkpoint_dir_name=f"cycle-{cycle:04d}",
        )


def _resume(fits: dict[int, MemberFit], checkpoint: Checkpoint | None) -> int:
    """Load the states of a checkpoint, if there is one; returns the first cycle to be done."""
    import torch

    if checkpoint is None:
        return 0
    with checkpoint.as_directory() as folder:
        for member, fit in fits.items():
            file = Path(folder) / f"member-{member}.pt"
            fit.load_state_dict(torch.load(file, weights_only=True, map_location="cpu"))
        return 1 + json.loads((Path(folder) / "cycle-0.json").read_text())


def _network(data: TrainingSet, file: Path) -> RewardNet:
    import torch

    net = data.network()
    net.load_state_dict(torch.load(file, weights_only=True, map_location="cpu")["net"])
    return net


def _resources(workers: int, cluster: Mapping[str, float]) -> dict[str, Any]:
    """A core for each worker, or an equal share where there are fewer; GPUs likewise where there are any."""
    gpus = cluster.get("GPU", 0.0)
    per_worker = {"CPU": share_of(cluster.get("CPU", 1.0), workers)}
    if gpus:
        per_worker["GPU"] = share_of(gpus, workers)
    return {"use_gpu": gpus > 0, "resources_per_worker": per_worker}


def summary(metrics: dict[str, dict[str, Any]]) -> str:
    """One line per held-out split: how well it ranks, beside two baselines."""
    lines = []
    for split, numbers in metrics.items():
        if split != "training" and numbers["rows"]:
            ranked, ridge, trees = (
                _text(numbers[f"{who}spearman_within_prompt"]) for who in ("", "ridge_", "boosted_trees_")
            )
            lines.append(
                f"reward: {split}: rank correlation within prompts {ranked} (ridge {ridge}, boosted trees "
                f"{trees}), 68% bars cover {_text(numbers['coverage_68'])}, {numbers['rows']} rows"
            )
    return "\n".join(lines) or "reward: no held-out rows to judge it by"


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
