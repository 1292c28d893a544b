"""From rendered rows to the comparison of methods in `summary.json`.

Axis suffix: R rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ..datasets.rows import score_column, weighted_score
from ..workflows.catalog import Catalog
from ..workflows.graph import Workflow
from ..workflows.similarity import likeness
from ..workflows.validate import problems
from .methods import METHODS, Materials
from .statistics import bootstrap_mean, lead, win_rate

JUDGE = "held_out_alignment"  # nothing was rewarded by it
JUDGED = score_column(JUDGE)
# How alike a design and the nearest of the workflows known before it are (`Materials.known`).
NEAREST = tuple(f"nearest_training_{side}" for side in ("similarity", "structure", "parameters"))


def measure(rows: pd.DataFrame, materials: Materials, catalog: Catalog) -> pd.DataFrame:
    """Rendered rows of planned designs with what was scored, foreseen and found about them.

    Adds to the columns of a dataset's rows: method, design_seconds, score, predicted_score,
    predicted_std, predicted_seconds, valid, nearest_training_similarity, and of the same nearest workflow
    nearest_training_structure and nearest_training_parameters.
    """
    weights = materials.config.scorers.weights
    tokens = [tuple(text.split()) for text in rows["tokens"]]
    found = {words: materials.known.nearest(words) for words in set(tokens)}
    alike = {words: likeness(words, known) for words, (_, known) in found.items()}
    predictions = materials.ensemble.predict_rows(rows)
    mean_r, std_r = predictions.score(weights)
    return rows.assign(
        score=weighted_score(rows, weights),
        predicted_score=mean_r,
        predicted_std=std_r,
        predicted_seconds=predictions.seconds,
        valid=[
            not problems(Workflow.loads(flow).bind(prompt, int(seed)).to_api(), catalog)
            for flow, prompt, seed in zip(rows["workflow"], rows["prompt"], rows["seed"], strict=True)
        ],
        nearest_training_similarity=[found[words][0] for words in tokens],
        nearest_training_structure=[alike[words].structure for words in tokens],
        nearest_training_parameters=[alike[words].parameters for words in tokens],
    )


def summarise(rows: pd.DataFrame, reward: Mapping[str, Any]) -> dict[str, Any]:
    """`summary.json` from measured rows; `reward` holds the ensemble's metrics per split."""
    present = set(rows["method"])
    names = [method for method in METHODS if method in present]
    rows = rows.assign(**{JUDGED: rows[JUDGED].fillna(0.0)})  # a failed render has no picture to like
    return {
        "methods": {name: _method(rows, name, names) for name in names},
        "reward": dict(reward),
        "prompts": len(set(rows["prompt"])),
        "seeds": max(len(set(group["seed"])) for _, group in rows.groupby("prompt")),
    }


def _method(rows: pd.DataFrame, name: str, names: list[str]) -> dict[str, Any]:
    mine = rows.loc[rows["method"] == name]
    seconds_r = np.asarray(mine["seconds"], dtype=float)
    rendered_r = np.array([not isinstance(error, str) for error in mine["error_type"]])
    return {
        **_compared(rows, name, names, "score"),
        "held_out_scorer": _compared(rows, name, names, JUDGED),
        "valid": float(np.mean(mine["valid"])),
        "executed": float(rendered_r.mean()),
        "unique_workflows": len(set(mine["workflow_key"])),
        **{name: float(np.mean(mine[name])) for name in NEAREST},
        "design_seconds_p50": float(np.median(mine["design_seconds"])),
        "render_seconds_mean": float(seconds_r[rendered_r].mean()) if rendered_r.any() else None,
    }


def _compared(rows: pd.DataFrame, name: str, names: list[str], column: str) -> dict[str, Any]:
    """Mean over prompts of the score in `column`; how often and by how much it is above each other's."""
    mine = rows.loc[rows["method"] == name]
    score = bootstrap_mean(np.array([np.mean(group[column]) for _, group in mine.groupby("prompt")]))
    others = [other for other in names if other != name]
    return {
        "score": score.value,
        "score_ci95": [score.low, score.high],
        "win_rate_vs": {other: list(win_rate(rows, name, other, column=column)) for other in others},
        "lead_over": {other: list(lead(rows, name, other, column=column)) for other in others},
    }
