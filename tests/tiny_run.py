"""The run "tiny": all that a finished run has learned, small and random but real."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from tiny_policy import tiny_base
from tiny_rows import ENGINE, SCORERS, tiny_rows

from flowtailor.datasets.store import Store
from flowtailor.models.policy import Policy
from flowtailor.models.reward import RewardEnsemble
from flowtailor.models.reward_fit import Scale
from flowtailor.models.reward_net import RewardNet
from flowtailor.models.traits import Traits
from flowtailor.pipelines.config import Config
from flowtailor.pipelines.config_file import load_config
from flowtailor.pipelines.known import write_known
from flowtailor.workflows.rules import END
from flowtailor.workflows.space import STUDIO_SPACE, Space


def tiny_config(root: Path, *overrides: str) -> Config:
    """The defaults but for `overrides`, for the run "tiny" in `root`."""
    return load_config(None, [f"run.root={str(root)!r}", "run.name=tiny", *overrides])


def run_without_grpo(root: Path, space: Space) -> None:
    """The run "tiny" in `root` with rows, but its GRPO adapter is called "random", as if it were none."""
    run = tiny_run(root / "tiny", space)
    (run / "policy/grpo").rename(run / "policy/random")
    Store(run / "dataset").append(tiny_rows(space))


def tiny_run(folder: Path, space: Space) -> Path:
    """Write the configuration, catalog, space, policy with two adapters and ensemble of a run."""
    folder.mkdir(parents=True)
    resolved = {"config": Config().model_dump(mode="json"), "versions": {}, "git_revision": None}
    (folder / "config.resolved.json").write_text(json.dumps(resolved))
    (folder / "engine.json").write_text(json.dumps({"engine": ENGINE}))
    (folder / "catalog.json").write_text(json.dumps(space.catalog.to_json()))
    (folder / "space.toml").write_text(STUDIO_SPACE.read_text())
    base = tiny_base(folder / "base")
    Policy.from_base(base, space.vocabulary).save(folder / "policy/sft")
    write_known(folder / "policy/sft", tiny_rows(space))
    for name in ("grpo", "score_conditioned"):
        _random_adapter(Policy.from_base(base, space.vocabulary), folder / "policy" / name)
    _random_ensemble(space).save(folder / "reward")
    (folder / "reward/metrics.json").write_text(json.dumps({"both": {"rows": 0}}))
    return folder


def move_to(engine: str, folder: Path, space: Space) -> None:
    """Let a tiny run with rows be of another engine, as if they had been rendered there."""
    (folder / "engine.json").write_text(json.dumps({"engine": engine}))
    Store(folder / "dataset").append(tiny_rows(space).assign(engine=engine, created_at="2027"))


def _random_adapter(policy: Policy, folder: Path) -> None:
    policy.add_adapter(4)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:  # zero at first, an adapter that changes nothing
                torch.nn.init.normal_(parameter, std=0.2)
    policy.save_adapter(folder)


def _random_ensemble(space: Space) -> RewardEnsemble:
    torch.manual_seed(0)
    words = [word for word in space.vocabulary if word != END]
    outputs = len(SCORERS) + 1  # log-seconds come last
    nets = [RewardNet(len(words), outputs, Traits(categories=2), workflows=3) for _ in range(2)]
    with torch.no_grad():
        for parameter in (parameter for net in nets for parameter in net.parameters()):
            if not parameter.any():  # zero at first, networks that agree about all
                torch.nn.init.normal_(parameter, std=0.2)
    scale = Scale(np.array([0.6] * len(SCORERS) + [-0.7]), np.array([0.1] * len(SCORERS) + [0.3]))
    return RewardEnsemble(nets, words, SCORERS, scale, "minilm-l6")
