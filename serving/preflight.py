"""What can be told of a run before its models are loaded: whether they are there, and of this version.

Promises: quick, without torch. Does not know whether weights are whole, nor whether the policy has a
word for all of the space; loading tells.
"""

from __future__ import annotations

from pathlib import Path

from flowtailor.errors import FlowtailorError

from ..models import policy_file, reward_file
from ..pipelines.catalog import read_world
from ..pipelines.stage import Run
from ..pipelines.trained import need, open_run

# One file of each part that no part goes without.
_POLICY = {
    "policy/sft": ("vocabulary.json", "sft"),
    "policy/grpo": ("adapter_config.json", "grpo"),
}


def servable(run_dir: str | Path) -> Run:
    """The run, with all that the service loads. Raises FlowtailorError that names what is missing or old."""
    run = open_run(run_dir)
    need(run.dir, "catalog.json", "reward/ensemble.json", *_POLICY)
    read_world(run)
    reward_file.read_description(run.path("reward"))
    for part, (file, maker) in _POLICY.items():
        if not run.path(f"{part}/{file}").is_file():
            raise FlowtailorError(f"{run.path(part)}: has no {file}, so no policy; run `flowtailor {maker}`")
        policy_file.read_description(run.path(part))
    return run
