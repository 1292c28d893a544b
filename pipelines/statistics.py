"""Statistics of an evaluation: bootstrap intervals, win rates, balanced workflow effects.

Pure functions of arrays and data frames. Intervals resample prompts, the unit that a claim
about held-out prompts generalises over; they say nothing about another engine or other scorers.
With fewer than about ten prompts a percentile interval is somewhat too narrow.

Axis suffixes: P prompts, R rows (one rendered picture each), W workflows, B bootstrap resamples.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

RESAMPLES = 4000


class Interval(NamedTuple):
    """A value and the ends of its 95% interval, in the value's own unit."""

    value: float
    low: float
    high: float

    def told(self, form: str) -> str:
        """Value, low and high in one form: `told("{:.0%}")` is "60% (51% to 69%)"."""
        value, low, high = (form.format(number) for number in self)
        return f"{value} ({low} to {high})"


def bootstrap_mean(value_p: np.ndarray, *, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """The mean over prompts and its percentile bootstrap interval; ValueError on no prompts."""
    value_p = np.asarray(value_p, dtype=float)
    if value_p.size == 0:
        raise ValueError("no prompts to average over")
    choice_bp = np.random.default_rng(seed).integers(0, value_p.size, size=(resamples, value_p.size))
    low, high = np.quantile(value_p[choice_bp].mean(axis=1), [0.025, 0.975])
    return Interval(float(value_p.mean()), float(low), float(high))


def win_rate(
    rows: pd.DataFrame, method: str, other: str, *, column: str = "score", seed: int = 0
) -> Interval:
    """On which share of the prompts `method` scores above `other`; a tie counts one half.

    rows: columns prompt, seed, method and `column`. A prompt is won by the mean over the seeds that both
    drew. ValueError where the two share no (prompt, seed).
    """
    mine, theirs = (rows[rows["method"] == name] for name in (method, other))
    pair = mine.merge(theirs, on=["prompt", "seed"], suffixes=("", "_other"))
    gap_r = pair[column] - pair[f"{column}_other"]
    gap_p = np.asarray(gap_r.groupby(pair["prompt"]).mean(), dtype=float)
    return bootstrap_mean(np.where(np.abs(gap_p) < 1e-9, 0.5, gap_p > 0), seed=seed)


def workflow_effects(rows: pd.DataFrame, *, shrink: float = 5.0, sweeps: int = 200) -> pd.DataFrame:
    """How much better than usual each workflow scores, whichever prompts it happened to be tried on.

    Fits score = prompt level + workflow effect by alternating least squares, so that a workflow
    that met easy prompts gains nothing from it. Effects are shrunk towards 0 as if `shrink` more
    renders had scored at their prompt's level, so that one lucky render does not win.

    rows: columns prompt, workflow_key, score. Returns workflow_key -> effect, renders (a frame
    indexed by workflow_key, best first, ties by key).
    """
    prompt_r, prompts = pd.factorize(rows["prompt"])
    workflow_r, workflows = pd.factorize(rows["workflow_key"])
    score_r = np.asarray(rows["score"], dtype=float)
    renders_p = np.bincount(prompt_r, minlength=len(prompts))
    renders_w = np.bincount(workflow_r, minlength=len(workflows))
    effect_w = np.zeros(len(workflows))
    for _ in range(sweeps):
        level_p = np.bincount(prompt_r, score_r - effect_w[workflow_r], len(prompts)) / renders_p
        fitted_w = np.bincount(workflow_r, score_r - level_p[prompt_r], len(workflows)) / (renders_w + shrink)
        moved = np.abs(fitted_w - effect_w).max(initial=0.0)
        effect_w = fitted_w
        if moved < 1e-9:
            break
    frame = pd.DataFrame({"workflow_key": workflows, "effect": effect_w, "renders": renders_w})
    return frame.sort_values(["effect", "workflow_key"], ascending=[False, True]).set_index("workflow_key")


def category_effects(rows: pd.DataFrame, *, shrink: float = 5.0) -> pd.DataFrame:
    """The same per category of prompts: effect_W of all rows plus a shrunk correction per category.

    A pair of category and workflow that was never rendered keeps the workflow's general effect,
    so a thin category falls back to what is best everywhere. rows: columns prompt, category,
    workflow_key, score. Returns a frame with categories as rows and workflow keys as columns.
    """
    general = workflow_effects(rows, shrink=shrink)
    rows = rows.merge(general[["effect"]], left_on="workflow_key", right_index=True)
    rows = rows.assign(rest=rows["score"] - rows["effect"])
    rows["rest"] -= rows.groupby("prompt")["rest"].transform("mean")
    cell = {"index": "category", "columns": "workflow_key", "values": "rest", "fill_value": 0.0}
    correction = rows.pivot_table(aggfunc=lambda rest: rest.sum() / (len(rest) + shrink), **cell)
    return correction.reindex(columns=general.index).add(np.asarray(general["effect"]))
