"""A round of `refine`: where it works, what it starts from, and how its results take their places.

A round is a run folder of its own, `refine/round-N`, with a copy of what it started with in `start/`. It has
an SFT policy of its own where it takes in new models. The adapter's folder tells which round made it, so that
a round knows whether the run still holds what it started from. It does not know what a round does
(`refine.py`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from . import fit_reward, grpo, sft
from .config import Config
from .renders import adopt
from .stage import Run, bring_back, fingerprint, is_recorded, read_record, record, stage_output, write_json

SFT_PARTS = ("policy/sft", "policy/score_conditioned")
LINEAGE = "refined.json"  # in the adapter's folder: the round that made it


@dataclass(frozen=True)
class Round:
    """One round of a run, and where it works."""

    config: Config
    number: int

    @cached_property
    def run(self) -> Run:
        return Run(self.config)

    @cached_property
    def own(self) -> Run:
        """The round's folder, as a run of the same configuration."""
        place = {"root": str(self.run.path("refine")), "name": f"round-{self.number}"}
        return Run(self.config.model_copy(update={"run": self.config.run.model_copy(update=place)}))

    @property
    def name(self) -> str:
        return f"refine/round-{self.number}"

    @property
    def taught(self) -> Run:
        """Whose SFT policy the round's adapter belongs to: the round's, or the run's, which it left alone."""
        return self.own if self.own.path("policy/sft").is_dir() else self.run

    def inputs(self) -> dict[str, Any]:
        """What a round depends on."""
        config = self.config
        return {
            "start": [self.own.path("start/policy/grpo"), self.own.path("start/reward")],
            "sft": self.own.path("start/policy/sft/model.safetensors"),
            "refine": config.refine.model_dump(exclude={"rounds"}),
            "design": [config.design.guidance, config.design.temperature],
            "reward": config.reward.model_dump(exclude={"workers"}),
            "grpo": config.grpo,
            "prompts": config.prompts,
            "scorers": config.scorers,
            "max_tokens": config.space.max_tokens,
            "seed": config.run.seed,
        }


def begin(one: Round) -> None:
    """Copy what the round starts from, unless it has begun from that already."""
    run, start = one.run, one.own.path("start")
    same = fingerprint(start / "policy/grpo") == fingerprint(run.path("policy/grpo"))
    if start.is_dir() and (same or lineage(run.dir) >= one.number):
        return
    with stage_output(one.own, "start", {}) as folder:
        for part in ("reward", "policy/sft", "policy/grpo"):
            shutil.copytree(run.path(part), folder / part)
        write_json(
            folder / "up_to_date.json",
            [name for name, inputs in stages(one.config) if is_recorded(run, name, inputs)],
        )
    for part in ("catalog.json", "space.toml"):
        shutil.copyfile(run.path(part), one.own.path(part))


def promote(one: Round, picks: pd.DataFrame) -> None:
    """Put rows, ensemble and policies in their places in the run, where later stages find them.

    Stages that were up to date when the round began count as up to date again; those of SFT among them,
    though they have not seen the new rows.
    """
    run, own = one.run, one.own
    source, target = own.dataset, run.dataset
    adopt(source, target, picks, list(one.config.scorers.weights))
    missing = set(target.missing(picks)["row_id"])  # the rows that failed have no picture to adopt
    learned = source.rows()
    target.append(learned[learned["row_id"].isin(missing)])
    accepted = json.loads(own.path("start/up_to_date.json").read_text())
    for name, inputs in stages(one.config):
        if not own.path(name).is_dir():
            if name in accepted:
                seconds = float(read_record(run, name).get("seconds", 0.0))
                record(run, name, inputs, output=name, seconds=seconds)
        else:
            with stage_output(run, name, inputs if name in accepted else {}) as folder:
                shutil.copytree(own.path(name), folder, dirs_exist_ok=True)


def stages(config: Config) -> Iterator[tuple[str, dict[str, Any]]]:
    """The stages that a round touches, in order, with their inputs as they are at that moment."""
    run = Run(config)
    yield "reward", fit_reward.stage_inputs(config, run)
    for part in SFT_PARTS:
        yield part, sft.stage_inputs(config, run, part)
    yield "policy/grpo", grpo.stage_inputs(config, run)


def lineage(run_dir: Path) -> int:
    """The round that made the adapter of the run in `run_dir`; 0 for the GRPO stage."""
    bring_back(run_dir / "policy/grpo")
    file = run_dir / "policy/grpo" / LINEAGE
    return int(json.loads(file.read_text())["round"]) if file.is_file() else 0
