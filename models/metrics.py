"""How well predicted scores rank, hit and know their own error: pure functions of arrays.

Shape legend: N rows. `prompt` arrays hold any labels; rows with the same label belong together.
Functions give NaN where the rows cannot answer (one workflow per prompt, no repeated seeds).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

Array = np.ndarray


def ranks(values: Array) -> Array:
    """Ranks from 0; equal values share their mean rank."""
    unique, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return ((last - counts + last - 1) / 2)[inverse] if len(unique) else np.zeros(0)


def spearman(left: Array, right: Array) -> float:
    """Rank correlation in [-1, 1]; NaN where one side is constant or has fewer than 3 values."""
    if len(left) < 3:
        return float("nan")
    a, b = ranks(np.asarray(left)), ranks(np.asarray(right))
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm > 0 else float("nan")


def spearman_within(prompt: Array, left: Array, right: Array) -> float:
    """Mean over prompts of the rank correlation among the prompt's rows."""
    return _nanmean([spearman(left[rows], right[rows]) for rows in _groups(prompt)])


def pair_accuracy(prompt: Array, measured: Array, predicted: Array, margin: float = 0.0) -> float:
    """Share of row pairs of a prompt, measured further apart than `margin`, that are predicted in order."""
    right = pairs = 0.0
    for rows in _groups(prompt):
        gap = measured[rows][:, None] - measured[rows][None, :]
        guess = predicted[rows][:, None] - predicted[rows][None, :]
        counted = gap > margin
        pairs += counted.sum()
        right += ((guess > 0) & counted).sum() + 0.5 * ((guess == 0) & counted).sum()
    return float(right / pairs) if pairs else float("nan")


def regret(prompt: Array, measured: Array, predicted: Array) -> float:
    """Mean over prompts of what is lost by taking the row that is predicted best, not the best one.

    In the unit of the scores, 0 at best; equal predictions are worth their mean.
    """
    losses = []
    for rows in _groups(prompt):
        favourites = predicted[rows] == predicted[rows].max()
        losses.append(measured[rows].max() - measured[rows][favourites].mean())
    return _nanmean(losses)


def coverage(measured: Array, mean: Array, std: Array, widths: float = 1.0) -> float:
    """Share of rows within `widths` predicted deviations: of one, 0.683 where the bars are right."""
    return _nanmean((np.abs(measured - mean) <= widths * std).astype(float))


def rmse(measured: Array, predicted: Array) -> float:
    """Root mean squared error, in the unit of the values."""
    return float(np.sqrt(np.mean((measured - predicted) ** 2))) if len(measured) else float("nan")


def median_relative_error(measured: Array, predicted: Array) -> float:
    """Median of |predicted - measured| / measured."""
    return float(np.median(np.abs(predicted - measured) / measured)) if len(measured) else float("nan")


def noise_ceiling(prompt: Array, workflow: Array, measured: Array) -> float:
    """The rank correlation within prompts that a perfect predictor could reach, given seed noise.

    From pairs that were rendered with two seeds: the correlation between first and second seed is
    the reliability of one render, and its square root bounds the correlation with the true mean.
    NaN where no prompt has three such workflows.
    """
    first: dict[tuple, float] = {}
    second: dict[tuple, float] = {}
    for key, value in zip(zip(prompt, workflow, strict=True), measured, strict=True):
        (second if key in first else first).setdefault(key, float(value))
    if not second:
        return float("nan")
    labels = np.array([key[0] for key in second])
    repeated = np.array([[first[key], value] for key, value in second.items()])
    reliability = spearman_within(labels, repeated[:, 0], repeated[:, 1])
    return float(np.sqrt(max(reliability, 0.0))) if reliability == reliability else float("nan")


def _groups(labels: Array) -> Iterator[Array]:
    """Indices of each label's rows, labels in their order."""
    if len(labels):
        _, place, counts = np.unique(labels, return_inverse=True, return_counts=True)
        yield from np.split(np.argsort(place, kind="stable"), np.cumsum(counts)[:-1])


def _nanmean(values: list[float] | Array) -> float:
    kept = np.asarray(values, dtype=float)
    kept = kept[~np.isnan(kept)]
    return float(kept.mean()) if len(kept) else float("nan")
