"""Where the variance of scores comes from: prompt, workflow, their interaction, the seed. Pure functions.

The model is score_PWS = mean + prompt_P + workflow_W + interaction_PW + seed_PS + noise_PWS with all
effects random. Every prompt meets every workflow on the same S seeds, which are the prompt's own, as
`pipelines/plan.py` gives them: part of what a seed does is then common to all workflows of the prompt
(`seed`), and the rest, which blurs comparisons between workflows, is `noise`. The components come from
the mean squares of this layout (analysis of variance with seeds nested in prompts), so they are unbiased
without an assumption about distributions; one that is nearly 0 may come out slightly negative.

Intervals are over prompts and take the workflows as they are: they say nothing about other workflows.

Axis suffixes: P prompts, W workflows, S seeds of a prompt, K named numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from flowtailor.pipelines.statistics import Interval, bootstrap_mean


class Effects(NamedTuple):
    """One number per source of variance: its mean square, or its variance component."""

    prompt: float
    workflow: float
    interaction: float
    seed: float
    noise: float


def mean_squares(score_PWS: np.ndarray) -> Effects:
    """Mean squares of the five sources; ValueError where an axis has fewer than two entries."""
    P, W, S = score_PWS.shape
    if min(P, W, S) < 2:
        raise ValueError(f"{P} prompts x {W} workflows x {S} seeds: variance needs two of each at least")
    mean = score_PWS.mean()
    prompt_P = score_PWS.mean(axis=(1, 2)) - mean
    workflow_W = score_PWS.mean(axis=(0, 2)) - mean
    cell_PW = score_PWS.mean(axis=2)
    interaction_PW = cell_PW - mean - prompt_P[:, None] - workflow_W
    seed_PS = score_PWS.mean(axis=1) - mean - prompt_P[:, None]
    noise_PWS = score_PWS - cell_PW[:, :, None] - seed_PS[:, None, :]
    return Effects(
        prompt=W * S * float(np.sum(prompt_P**2)) / (P - 1),
        workflow=P * S * float(np.sum(workflow_W**2)) / (W - 1),
        interaction=S * float(np.sum(interaction_PW**2)) / ((P - 1) * (W - 1)),
        seed=W * float(np.sum(seed_PS**2)) / (P * (S - 1)),
        noise=float(np.sum(noise_PWS**2)) / (P * (W - 1) * (S - 1)),
    )


def components(score_PWS: np.ndarray) -> Effects:
    """Unbiased variance components, in squared units of the score."""
    P, W, S = score_PWS.shape
    ms = mean_squares(score_PWS)
    return Effects(
        prompt=(ms.prompt - ms.interaction - ms.seed + ms.noise) / (W * S),
        workflow=(ms.workflow - ms.interaction) / (P * S),
        interaction=(ms.interaction - ms.noise) / S,
        seed=(ms.seed - ms.noise) / W,
        noise=ms.noise,
    )


def shares(score_PWS: np.ndarray) -> dict[str, float]:
    """Each source's share of the variance of a single picture's score; they add up to 1."""
    parts = components(score_PWS)._asdict()
    total = sum(parts.values())
    return {name: part / total for name, part in parts.items()}


def interaction_ratio(score_PWS: np.ndarray) -> float:
    """F ratio of interaction to noise: 1 on average where all prompts rank the workflows alike."""
    ms = mean_squares(score_PWS)
    return ms.interaction / ms.noise


def over_prompts(
    score_PWS: np.ndarray, statistic: Callable[[np.ndarray], Mapping[str, float]]
) -> dict[str, Interval]:
    """Values of a statistic with their 95% intervals over prompts, for three prompts or more.

    Bootstraps the prompts' jackknife pseudo-values. Drawing the prompts themselves with replacement
    would bias the components: two copies of a prompt have the same interaction.
    """
    prompts = len(score_PWS)
    whole_K = statistic(score_PWS)
    left_out = [statistic(np.delete(score_PWS, p, axis=0)) for p in range(prompts)]
    intervals: dict[str, Interval] = {}
    for name, whole in whole_K.items():
        without_P = np.array([values[name] for values in left_out])
        spread = bootstrap_mean(prompts * whole - (prompts - 1) * without_P)
        intervals[name] = Interval(whole, spread.low, spread.high)
    return intervals
