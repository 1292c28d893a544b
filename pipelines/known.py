"""The workflows of the training rows when SFT began: against them the policy's designs are new.

They are kept beside the policy, because later rounds of `refine` render what it designs itself, and no design
becomes less new by having been looked at.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from .objective import Words
from .stage import Run, write_json
from .trained import need

FILE = "known.json"


def workflows_of(rows: pd.DataFrame) -> list[Words]:
    """The different workflows of rows, as words, sorted."""
    return [tuple(text.split()) for text in sorted(set(rows["tokens"]))]


def write_known(folder: Path, rows: pd.DataFrame) -> None:
    """Note in a policy's folder which workflows the training rows hold."""
    write_json(folder / FILE, sorted(set(rows["tokens"])))


def read_known(run: Run) -> list[Words]:
    """The workflows of the training rows when SFT began, sorted; FlowtailorError where no note tells."""
    need(run.dir, f"policy/sft/{FILE}")
    return _noted(run.path("policy/sft"))


def known_to(base: str, rows: pd.DataFrame) -> list[Words]:
    """Those that a policy in the folder `base` noted, which goes on; to any other language model, those of
    the rows."""
    return _noted(Path(base)) if (Path(base) / FILE).is_file() else workflows_of(rows)


def _noted(folder: Path) -> list[Words]:
    return [tuple(text.split()) for text in json.loads((folder / FILE).read_text())]
