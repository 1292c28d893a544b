"""Statistics of an evaluation: bootstrap intervals, win rates, leads, balanced workflow effects.

Pure functions of arrays and data frames. Intervals resample prompts, the unit that a claim
about held-out prompts generalises over; they say nothing about another engine or other scorers.
With fewer than about ten prompts a percentile interval is somewhat too narrow.

Axis suffixes: P prompts, K categories, R rows (one rendered picture each), W workflows, B bootstrap
resamples.
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

    rows: as for `lead`. A prompt is won by the mean over the seeds that both drew. ValueError where the two
    share no (prompt, seed).
    """
    gap_p = _gaps(rows, method, other, column)
    return bootstrap_mean(np.where(np.abs(gap_p) < 1e-9, 0.5, gap_p > 0), seed=seed)


def lead(rows: pd.DataFrame, method: str, other: str, *, column: str = "score", seed: int = 0) -> Interval:
    """By how much `method` scores above `other` on the same prompts and seeds, on average over prompts.

    rows: columns prompt, seed, method and `column`. ValueError where the two share no (prompt, seed).
    """
    return bootstrap_mean(_gaps(rows, method, other, column), seed=seed)


def _gaps(rows: pd.DataFrame, method: str, other: str, column: str) -> np.ndarray:
    """(P,) score of `method` less that of `other`, averaged over the seeds that both drew."""
    mine, theirs = (rows[rows["method"] == name] for name in (method, other))
    pair = mine.merge(theirs, on=["prompt", "seed"], suffixes=("", "_other"))
    gap_r = pair[column] - pair[f"{column}_other"]
    return np.asarray(gap_r.groupby(pair["prompt"]).mean(), dtype=float)


def category_effects(rows: pd.DataFrame, *, shrink: float = 5.0, sweeps: int = 200) -> pd.DataFrame:
    """How much better than usual each workflow scores for each category of prompts.

    Fits score = prompt level + workflow effect + the workflow's effect on the category by alternating least
    squares, so that a workflow that met easy prompts gains nothing from it. Both effects are shrunk towards 0
    as if `shrink` more renders had scored at their level: one lucky render does not win, and no category
    says more of a workflow in general than `shrink` renders do, because a policy tries workflows where they
    suit. A pair that was never rendered has the workflow's general effect.

    rows: columns prompt, category, workflow_key, score. Returns a frame with categories as rows and workflow
    keys as columns.
    """
    prompt_r, prompts = pd.factorize(rows["prompt"])
    category_r, categories = pd.factorize(rows["category"], use_na_sentinel=False)
    workflow_r, workflows = pd.factorize(rows["workflow_key"])
    score_r = np.asarray(rows["score"], dtype=float)
    shape = len(categories), len(workflows)
    cell_r = np.ravel_multi_index((category_r, workflow_r), shape)
    renders_p = np.bincount(prompt_r, minlength=len(prompts))
    renders_kw = np.bincount(cell_r, minlength=shape[0] * shape[1]).reshape(shape)
    told_kw = renders_kw / (renders_kw + shrink)
    effect_kw = np.zeros(shape)
    for _ in range(sweeps):
        level_p = np.bincount(prompt_r, score_r - effect_kw.ravel()[cell_r], len(prompts)) / renders_p
        total_kw = np.bincount(cell_r, score_r - level_p[prompt_r], renders_kw.size).reshape(shape)
        mean_kw = total_kw / np.maximum(renders_kw, 1)
        general_w = (told_kw * mean_kw).sum(0) / (told_kw.sum(0) + 1)
        fitted_kw = general_w + told_kw * (mean_kw - general_w)
        moved = np.abs(fitted_kw - effect_kw).max(initial=0.0)
        effect_kw = fitted_kw
        if moved < 1e-9:
            break
    return pd.DataFrame(effect_kw, index=pd.Index(categories, name="category"), columns=workflows)


def workflow_effects(rows: pd.DataFrame, *, shrink: float = 5.0) -> pd.DataFrame:
    """How good each workflow is for prompts in general, whichever of them it happened to be tried on.

    Returns a frame indexed by workflow_key, best first, ties by key: `effect`, the mean of its
    `category_effects` over prompts; `score`, which an average prompt has with it; `renders`.
    """
    table = category_effects(rows, shrink=shrink)
    prompts_k = rows.drop_duplicates("prompt")["category"].value_counts(dropna=False)
    effect_w = np.average(table, axis=0, weights=prompts_k.reindex(table.index))
    category_r = table.index.get_indexer(pd.Index(rows["category"]))
    workflow_r = table.columns.get_indexer(pd.Index(rows["workflow_key"]))
    level_r = rows["score"] - table.to_numpy()[category_r, workflow_r]
    score_w = float(level_r.groupby(rows["prompt"]).mean().mean()) + effect_w
    renders_w = rows["workflow_key"].value_counts().reindex(table.columns).to_numpy()
    frame = pd.DataFrame({"effect": effect_w, "score": score_w, "renders": renders_w}, index=table.columns)
    frame.index.name = "workflow_key"
    return frame.sort_values(["effect", "workflow_key"], ascending=[False, True])
