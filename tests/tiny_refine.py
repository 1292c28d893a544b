"""A complete run that is small enough to refine in a moment, and rounds in which nothing takes time.

Test modules take the fixtures `config` and `faked` over by name.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tiny_rows import SCORERS, tiny_rows
from tiny_run import tiny_config, tiny_run

from flowtailor.datasets.store import Store
from flowtailor.pipelines import fit_reward, grpo, refine, sft
from flowtailor.pipelines.config import Config
from flowtailor.pipelines.rounds import Round
from flowtailor.pipelines.stage import Run, record
from flowtailor.workflows.space import Space


@pytest.fixture
def config(tmp_path: Path, space: Space) -> Config:
    """A configuration of `complete_run`."""
    return complete_run(tmp_path, space)


def complete_run(tmp_path: Path, space: Space, *, seed: int = 0) -> Config:
    """A configuration whose run is complete and up to date, with random policies and a random ensemble."""
    run = tiny_run(tmp_path / "tiny", space)
    (run / "policy/grpo/log.jsonl").write_text('{"loss": 0.0, "step": 1}\n')
    Store(run / "dataset").append(tiny_rows(space))
    settings = [f"run.seed={seed}", "prompts.train=3", "prompts.validation=2", "refine.renders=4"]
    few = ["refine.draws=2", "refine.validation_designs=3", "refine.grpo_steps=1", "grpo.audit_every=0"]
    tiny = ["grpo.prompts_per_step=1", "grpo.num_generations=4", "engine.count=1", "reward.epochs=2"]
    config = tiny_config(tmp_path, *settings, *few, *tiny, "reward.members=2")
    accept(config)
    return config


def accept(config: Config) -> None:
    """Let the stages that a run has behind it count as up to date."""
    for name, inputs in inputs_of(config).items():
        record(Run(config), name, inputs, output=name, seconds=1.0)


def inputs_of(config: Config) -> dict[str, dict[str, Any]]:
    run = Run(config)
    policies = {
        name: sft.stage_inputs(config, run, name) for name in ("policy/sft", "policy/score_conditioned")
    }
    return {
        "reward": fit_reward.stage_inputs(config, run),
        **policies,
        "policy/grpo": grpo.stage_inputs(config, run),
    }


class Faked:
    """Rendering, fitting and training that take no time: for what the round does with their results."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.fail_at = ""
        monkeypatch.setattr(refine, "render", self._render)
        monkeypatch.setattr(fit_reward, "run_stage", self._fit)
        monkeypatch.setattr(refine, "teach", self._teach)
        monkeypatch.setattr(grpo, "train_adapter", self._train)

    def _note(self, call: str) -> None:
        if call == self.fail_at:
            raise KeyboardInterrupt
        self.calls.append(call)

    def _render(self, config: Config, missing: pd.DataFrame, store: Store, *, label: str) -> None:
        self._note("render")
        images = [f"images/{id_}.png" for id_ in missing["row_id"]]
        Path(store.images_dir).mkdir(parents=True, exist_ok=True)
        for image in images:
            Image.new("RGB", (8, 8)).save(Path(store.images_dir).parent / image)
        lengths = np.array([len(text.split()) for text in missing["tokens"]]) / 64
        scores = {f"score_{name}": lengths for name in SCORERS} | {"image": images, "seconds": 0.5}
        store.append(missing.assign(**scores, error_type=None, created_at="2026"))

    def _fit(self, config: Config) -> None:
        self._note("fit")
        shutil.copytree(Run(config).path("start/reward"), Run(config).path("reward"), dirs_exist_ok=True)

    def _teach(self, one: Round) -> None:
        self._note("teach")
        taught = one.own.path("policy/sft")
        shutil.copytree(one.own.path("start/policy/sft"), taught, dirs_exist_ok=True)
        taught.joinpath("taught").touch()

    def _train(
        self, config: Config, reward: Path, name: str, folder: Path, *, start: Path, seed: int
    ) -> None:
        self._note(f"train {config.grpo.steps}")
        shutil.copytree(start, folder, dirs_exist_ok=True)


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> Faked:
    return Faked(monkeypatch)
