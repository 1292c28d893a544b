"""Which of a policy's designs to render for a round of `refine`, and how a round is judged. Pure functions.

What the ensemble is unsure of teaches it most; what the policy says most often is where an error of the
ensemble costs most. Half of the pictures go to each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from ..models import metrics
from .statistics import bootstrap_mean

UNSURE, FREQUENT, NEW = "unsure", "frequent", "new"


def pick(candidates: pd.DataFrame, renders: int, trials: pd.DataFrame | None = None) -> pd.DataFrame:
    """At most `renders` of the candidates, with the reason as `why`, the two reasons by turns; before them
    the first of the `trials` of what is new, for half of the renders.

    candidates: a row per prompt and workflow with prompt, workflow_key, doubt (about the predicted score),
    drawn (how often this prompt got it) and said (how often the policy says this workflow to any prompt).
    Unsure: the most doubted, each prompt once before any twice. Frequent: workflows in proportion to
    `said`, each on the prompts that were picked least.
    """
    if trials is not None and len(trials):
        new = trials.head((renders + 1) // 2).assign(why=NEW)
        return pd.concat([new, pick(candidates, renders - len(new))], ignore_index=True)
    left = [{str(name): value for name, value in row.items()} for row in candidates.to_dict("records")]
    met: Counter[str] = Counter()  # picks of a prompt
    shown: Counter[str] = Counter()  # picks of a workflow
    rules: dict[str, Callable[[dict[str, Any]], tuple[float, ...]]] = {
        UNSURE: lambda row: (-met[row["prompt"]], row["doubt"]),
        # Quotients of the highest averages method, which shares seats out among parties.
        FREQUENT: lambda row: (
            row["said"] / (1 + shown[row["workflow_key"]]),
            -met[row["prompt"]],
            row["drawn"],
        ),
    }
    picked = []
    while left and len(picked) < renders:
        why = (UNSURE, FREQUENT)[len(picked) % 2]
        row = max(left, key=rules[why])
        left.remove(row)
        met[row["prompt"]] += 1
        shown[row["workflow_key"]] += 1
        picked.append(row | {"why": why})
    return pd.DataFrame(picked, columns=[*candidates.columns, "why"])


def per_prompt(rows: pd.DataFrame) -> pd.DataFrame:
    """How well the rows of each prompt were foreseen: a line per prompt, NaN where they cannot tell.

    rows: prompt, first (the policy's answer, the others being alternatives), score, predicted, std.
    score: of the answer alone. bias: predicted less rendered score.
    """
    lines = {}
    for prompt, group in rows.groupby("prompt", sort=True):
        label = np.zeros(len(group))
        score, predicted, std = (group[name].to_numpy(dtype=float) for name in ("score", "predicted", "std"))
        lines[prompt] = {
            "score": float(score[group["first"].to_numpy(dtype=bool)].mean()),
            "spearman_within_prompt": metrics.spearman(score, predicted),
            "pair_accuracy": metrics.pair_accuracy(label, score, predicted),
            "coverage_68": metrics.coverage(score, predicted, std),
            "bias": float((predicted - score).mean()),
        }
    return pd.DataFrame.from_dict(lines, orient="index")


def averages(table: pd.DataFrame) -> dict[str, list[float] | None]:
    """[mean, low, high] of each column over prompts, with 95% bootstrap intervals; None where it is empty."""
    columns = {str(name): table[name].dropna().to_numpy(dtype=float) for name in table.columns}
    return {
        name: list(bootstrap_mean(value_p)) if len(value_p) else None for name, value_p in columns.items()
    }


def judge(before: pd.DataFrame, refit: pd.DataFrame, after: pd.DataFrame) -> dict[str, Any]:
    """A round in numbers, each as of `per_prompt`'s rows, and what changed on the same prompts.

    refit: the rows of `before` with the predictions of the ensemble that was fitted again.
    """
    sides = {"before": before, "refit": refit, "after": after}
    tables = {name: per_prompt(rows) for name, rows in sides.items()}
    told = {
        name: {**averages(tables[name]), "prompts": len(tables[name]), "designs": len(rows)}
        for name, rows in sides.items()
    }
    return {**told, "change": averages(tables["after"] - tables["before"])}
