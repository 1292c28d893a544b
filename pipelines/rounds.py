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

from ..datasets.prompts import prompt_file
from . import fit_reward, grpo, sft
from .catalog import WORLD, world_inputs
from .config import Config
from .provenance import fingerprint
from .renders import adopt
from .stage import Run, bring_back, is_recorded, read_record, record, stage_output, write_json
from .trained import as_evaluated

SFT_PARTS = ("policy/sft", "policy/score_conditioned")
LEARNED = ("reward", "policy/sft", "policy/grpo")
STARTS = (*LEARNED, *WORLD)  # of the run, which a round copies
GUIDANCE = "evaluation/guidance.json"  # too, where the run was evaluated
LINEAGE = "refined.json"  # in the adapter's folder: the round that made it
PROMOTING = "promoting.json"  # in the round's folder while `promote` is at work


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
        return self.run.within(self.name)

    @cached_property
    def start(self) -> Run:
        """The copy of what the round starts from, as a run that can be drawn with."""
        return self.own.within("start")

    @property
    def name(self) -> str:
        return f"refine/round-{self.number}"

    @property
    def taught(self) -> Run:
        """Whose SFT policy the round's adapter belongs to: the round's, or the run's, which it left alone."""
        return self.own if self.own.path("policy/sft").is_dir() else self.run

    @property
    def guidance(self) -> float:
        """With which the policy of the start designs, and its successor as well: that of its evaluation."""
        return as_evaluated(self.config, self.start.dir).design.guidance

    def inputs(self) -> dict[str, Any]:
        """What a round depends on."""
        config = self.config
        return {
            "start": [self.start.path("policy/grpo"), self.start.path("reward")],
            "sft": self.start.path("policy/sft/model.safetensors"),
            "refine": config.refine.model_dump(exclude={"rounds"}),
            "design": [self.guidance, config.design.temperature],
            "reward": config.reward.model_dump(exclude={"workers"}),
            "grpo": config.grpo,
            "prompts": [config.prompts.counts(), prompt_file(config.prompts.file)],
            "scorers": config.scorers,
            "max_tokens": config.space.max_tokens,
            "seed": config.run.seed,
        }


def begin(one: Round) -> None:
    """Copy what the round starts from, unless it has begun from that already.

    A finished round that is made again starts from what it started from then.
    """
    run, own, start = one.run, one.own, one.start
    has_begun = all(start.path(part).exists() for part in STARTS) and (
        lineage(run.dir) >= one.number or _held(start) == _held(run)
    )
    if not has_begun:
        own.path(PROMOTING).unlink(missing_ok=True)
        shutil.rmtree(own.path("policy"), ignore_errors=True)  # learned from another start
        with stage_output(own, "start", {}) as folder:
            for part in (*STARTS, *([GUIDANCE] if run.path(GUIDANCE).is_file() else [])):
                _copy(run.path(part), folder / part)
    for part in WORLD:
        _copy(start.path(part), own.path(part))


def _held(run: Run) -> str:
    """Stands for what a round would start from."""
    return fingerprint([*(run.path(part) for part in LEARNED), *world_inputs(run)])


def promote(one: Round, seconds: float = 0.0) -> None:
    """Put what a finished round has made in its place in the run, where later stages find it.

    Where that is cut short, a note stays, and `finish` goes on. Stages that were up to date count as such
    again; those of SFT among them, though they have not seen the new rows. A score-conditioned adapter goes
    with the SFT policy that it was trained on.

    seconds: that the round took.
    """
    run, own, note = one.run, one.own, one.own.path(PROMOTING)
    if not note.is_file():
        accepted = [name for name, inputs in stages(one.config) if is_recorded(run, name, inputs)]
        by = one.config.model_dump(mode="json")
        write_json(note, {"accepted": accepted, "seconds": seconds, "config": by})
    noted = json.loads(note.read_text())
    _promote_rows(one)
    if own.path("policy/sft").is_dir():
        shutil.rmtree(run.path("policy/score_conditioned"), ignore_errors=True)
        noted["accepted"] = [name for name in noted["accepted"] if name != "policy/score_conditioned"]
    for name, inputs in stages(one.config):
        accepted = name in noted["accepted"]
        if own.path(name).is_dir():
            with stage_output(run, name, inputs if accepted else {}) as folder:
                shutil.copytree(own.path(name), folder, dirs_exist_ok=True)
        elif accepted:
            took = float(read_record(run, name).get("seconds", 0.0))
            record(run, name, inputs, output=name, seconds=took)
    _copy(own.path("summary.json"), run.path("refine/summary.json"))
    record(run, one.name, one.inputs(), output=f"{one.name}/summary.json", seconds=noted["seconds"])
    note.unlink()


def finish(config: Config) -> None:
    """Go on where `promote` was cut short, by the configuration that the round was made with.

    Not where a stage was made anew since: its output would be overwritten. Such a round begins again.
    """
    last = lineage(Run(config).dir)
    for number in (last, last + 1):
        one = Round(config, number)
        note = one.own.path(PROMOTING)
        if not note.is_file():
            continue
        if _is_untouched(one):
            promote(Round(noted_config(note, config), number))
            print(f"{one.name}: its results are in their places now", flush=True)
        else:
            note.unlink()


def noted_config(note: Path, config: Config) -> Config:
    """The configuration that a note was left with, for the run where `config` finds it now."""
    by = json.loads(note.read_text())["config"]
    by["run"] |= {"root": config.run.root, "name": config.run.name}
    return Config.model_validate(by)


def _is_untouched(one: Round) -> bool:
    """Whether the run has learned nothing but what the round started from or has made."""
    for part in LEARNED:
        bring_back(one.run.path(part))  # one of them was on its way when the round was killed
    return all(
        fingerprint(one.run.path(part)) in [fingerprint(side.path(part)) for side in (one.start, one.own)]
        for part in LEARNED
    )


def _promote_rows(one: Round) -> None:
    """The pictures that the round rendered to learn from, also for picks that it made before a change of
    configuration, and the rows of those that failed."""
    learned, target = one.own.dataset.settled(), one.run.dataset
    adopt(one.own.dataset, target, learned, list(one.config.scorers.weights))
    target.append(target.missing(learned))  # the rows that failed have no picture to adopt


def _copy(source: Path, target: Path) -> None:
    """A file or a folder, to a place where none is or where a file may be replaced."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)


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
