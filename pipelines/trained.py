"""Reading what a finished run has learned: its configuration, space, policy and reward ensemble.

Every reader of a run folder (evaluate, design, the service) comes through here, so that a missing
stage is told in one way: what is not there, and which command makes it.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from flowtailor.errors import FlowtailorError

from ..workflows.space import Space
from .config import Config
from .provenance import fingerprint
from .stage import Run, bring_back

if TYPE_CHECKING:
    from ..models.designing import Designer
    from ..models.reward import RewardEnsemble

MAKERS = {
    "config.resolved.json": "run",
    "engine.json": "collect",
    "catalog.json": "collect",
    "space.toml": "collect",
    "dataset/rows": "collect",
    "reward": "fit-reward",
    "reward/ensemble.json": "fit-reward",
    "policy/sft": "sft",
    "policy/sft/known.json": "sft",
    "policy/score_conditioned": "sft",
    "policy/grpo": "grpo",
    "evaluation/summary.json": "evaluate",
}
"""Part of a run folder -> the command that makes it."""


def need(run_dir: Path, *parts: str) -> None:
    """Raise FlowtailorError that names the first of `parts` that is missing, and its command."""
    for part in parts:
        for place in (Path(part), *Path(part).parents[:-1]):  # a stage's output, or a file in one
            bring_back(run_dir / place)
        if not (run_dir / part).exists():
            maker = MAKERS[part]
            raise FlowtailorError(
                f"{run_dir}: has no {part}; make it with `flowtailor {maker}`, or all with `flowtailor run`"
            )


def open_run(run_dir: str | Path) -> Run:
    """The run in a folder, wherever it lies now, with the configuration that it was made with and the
    strength of guidance that its evaluation chose."""
    place = Path(run_dir)
    if not place.is_dir():
        raise FlowtailorError(f"{place}: no such run folder; make one with `flowtailor run` or name another")
    need(place, "config.resolved.json")
    try:
        content = json.loads((place / "config.resolved.json").read_text())["config"]
        content["run"] |= {"root": str(place.parent), "name": place.name}
        config = Config.model_validate(content)
    except (ValueError, KeyError, ValidationError) as error:
        raise FlowtailorError(
            f"{place}: its config.resolved.json is not of this version ({type(error).__name__}); "
            "run its stages again"
        ) from None
    return Run(as_evaluated(config, place))


def as_evaluated(config: Config, place: Path) -> Config:
    """With the strength of guidance that an evaluation chose for the adapter that lies there now."""
    file = place / "evaluation/guidance.json"
    if not config.design.choose_guidance or not file.is_file():
        return config
    chosen = json.loads(file.read_text())
    same = chosen.get("adapter") == adapter_hash(place)
    return with_guidance(config, chosen["chosen"]) if same else config


def adapter_hash(run_dir: Path) -> str:
    """What tells GRPO's adapters apart."""
    return fingerprint(run_dir / "policy/grpo/adapter_model.safetensors")


def with_guidance(config: Config, guidance: float) -> Config:
    """The configuration with another strength of guidance for designs."""
    return config.changed(design={"guidance": guidance})


def load_designer(
    run: Run, space: Space, *, adapter: Path | None = None, score_conditioned: bool = False
) -> Designer:
    """The policy of a run with its GRPO adapter, or with the one in the folder `adapter`, and the
    score-conditioned one if asked for; on the GPU where there is one."""
    need(run.dir, "policy/sft", "policy/grpo", *(["policy/score_conditioned"] if score_conditioned else []))
    import torch

    from ..models.designing import Designer

    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # between PEFT and transformers
        return Designer.load(
            run.path("policy/sft"),
            adapter or run.path("policy/grpo"),
            space,
            score_conditioned_dir=run.path("policy/score_conditioned") if score_conditioned else None,
            max_tokens=run.config.space.max_tokens,
            device="cuda" if torch.cuda.is_available() else "cpu",
        )


def load_ensemble(run: Run) -> RewardEnsemble:
    """The reward ensemble of a run."""
    need(run.dir, "reward/ensemble.json")
    from ..models.reward import RewardEnsemble

    return RewardEnsemble.load(run.path("reward"))
