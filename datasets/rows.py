"""What one rendered picture is as a row: its columns, its identity, its splits.

A row stands for one (engine, workflow, prompt, seed), the four things that determine the picture;
its id is their hash. A render that failed is a row too, with `error_type` set and no scores.
Scores are columns `score_NAME`, one per scorer, null where the render failed or the scorer is younger.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
import pyarrow as pa

from flowtailor.errors import FlowtailorError

COLUMNS = pa.schema(
    [
        ("row_id", pa.string()),
        ("prompt", pa.string()),
        ("prompt_hash", pa.string()),
        ("category", pa.string()),
        ("prompt_split", pa.string()),  # train, validation or test
        ("workflow_split", pa.string()),  # train or test
        ("workflow_key", pa.string()),
        ("workflow", pa.string()),  # canonical JSON, prompt and seed as slots
        ("tokens", pa.string()),  # joined by spaces, without the end token
        ("seed", pa.int64()),
        ("engine", pa.string()),
        ("catalog_hash", pa.string()),
        ("seconds", pa.float64()),  # of the render on its engine
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("image", pa.string()),  # relative to the dataset's folder; null for a row that was taken over
        ("image_sha256", pa.string()),  # of the pixels, not of the file
        ("error_type", pa.string()),
        ("error_message", pa.string()),
        ("created_at", pa.string()),  # ISO 8601, UTC
    ]
)
PLANNED = COLUMNS.names[: COLUMNS.names.index("seconds")]  # what is known of a row before it is rendered
_SCORE_PREFIX = "score_"

# Failures of the moment. Any other failed render would fail again and is not tried again.
RETRYABLE_ERRORS = frozenset(
    {
        "ComfyBusy",
        "ComfyInterrupted",
        "ComfyMachineError",
        "ComfyOutOfMemory",
        "ComfyTimeout",
        "ComfyUnavailable",
        "EngineChanged",
        "PictureUnreadable",
    }
)
# Those that say nothing of the design that was to be drawn; the others it may have brought about.
LOST = RETRYABLE_ERRORS - {"ComfyMachineError", "ComfyOutOfMemory", "ComfyTimeout"}


def text_hash(text: str) -> str:
    """16 hex digits that stand for a text: stable over runs, machines and Python versions."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def row_id(engine: str, workflow_key: str, prompt: str, seed: int) -> str:
    """The identity of a picture: 32 hex digits of what determines it."""
    parts = "\x1f".join((engine, workflow_key, prompt, str(seed)))
    return hashlib.sha256(parts.encode()).hexdigest()[:32]


def share(text: str, salt: str) -> float:
    """A number in [0, 1) that belongs to a text; splits by it never move an item."""
    return int(hashlib.sha256(f"{salt}\x1f{text}".encode()).hexdigest()[:13], 16) / 16**13


def workflow_split(workflow_key: str, held_out: float = 0.2) -> str:
    """ "test" for the held-out share of workflows, else "train"; decided by the key alone."""
    return "test" if share(workflow_key, "workflow") < held_out else "train"


def score_column(scorer: str) -> str:
    """The name of the column that holds what a scorer says."""
    return f"{_SCORE_PREFIX}{scorer}"


def score_columns(names: Iterable[str]) -> list[str]:
    """Those of the column names that hold scores, in order."""
    return [name for name in names if name.startswith(_SCORE_PREFIX)]


def weighted_score(rows: pd.DataFrame, weights: Mapping[str, float]) -> np.ndarray:
    """(N,) in [0, 1]: the weighted mean of the `score_<name>` columns.

    A failed render has no picture and scores 0, the worst: a design that does not run is worth nothing to
    the person who asked for it. NaN for a picture that one of the scorers has not seen. Raises
    FlowtailorError where none of the rows has met one of the scorers.
    """
    _refuse_unknown(rows, weights)
    scores_NS = rows[[score_column(name) for name in weights]].to_numpy(dtype=float)
    share_S = np.array(list(weights.values())) / sum(weights.values())
    return np.where(rows["error_type"].notna(), 0.0, scores_NS @ share_S)


def learnable(rows: pd.DataFrame, scorers: Iterable[str]) -> pd.DataFrame:
    """The rows that were rendered and have some of the scores: a scorer may be younger than they are.

    Raises FlowtailorError where none of the rows has met one of the scorers.
    """
    columns = [score_column(name) for name in scorers]
    if rows.empty:
        return rows
    _refuse_unknown(rows, scorers)
    seen = rows[columns].notna().any(axis=1) & rows["error_type"].isna()
    return rows.loc[seen & (rows["seconds"] > 0)].reset_index(drop=True)


def _refuse_unknown(rows: pd.DataFrame, scorers: Iterable[str]) -> None:
    """Raise FlowtailorError where the rows have no column of one of the scorers."""
    for column in map(score_column, scorers):
        if column not in rows.columns:
            raise FlowtailorError(
                f"scorers.weights: the rows have no {column}; take that scorer out, or collect with it"
            )


def settled(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows without failures of the moment, of which nobody knows yet how they end."""
    return rows.loc[~rows["error_type"].isin(list(RETRYABLE_ERRORS))].reset_index(drop=True)


def unscored(rows: pd.DataFrame, scorers: Iterable[str]) -> pd.Series:
    """Which rows have a picture that one of the scorers has not seen, as booleans."""
    scores = rows.reindex(columns=[score_column(name) for name in scorers])
    return rows["error_type"].isna() & scores.isna().any(axis=1)


def usable(rows: pd.DataFrame, scorers: Iterable[str]) -> pd.DataFrame:
    """The learnable rows that have every score; errors as there."""
    names = list(scorers)
    rows = learnable(rows, names)
    if rows.empty:
        return rows
    return rows.dropna(subset=[score_column(name) for name in names]).reset_index(drop=True)


def to_table(frame: pd.DataFrame) -> pa.Table:
    """A frame of rows as an Arrow table with exactly the schema's columns and the scores.

    Columns that are missing become null, other columns are left out. Raises
    `pyarrow.ArrowInvalid` or `ArrowTypeError` where a value does not fit its column.
    """
    scores = [pa.field(name, pa.float64()) for name in score_columns(map(str, frame.columns))]
    schema = pa.schema([*COLUMNS, *scores])
    full = frame.reindex(columns=schema.names)
    return pa.Table.from_arrays(
        [pa.array(full[field.name], type=field.type, from_pandas=True) for field in schema], schema=schema
    )
