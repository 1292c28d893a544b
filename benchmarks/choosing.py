"""What choosing the workflow for the prompt is worth, measured fairly. Pure functions.

The best of many noisy scores looks better than it is. So everything here is chosen on one seed and
measured on the others, once for each seed in turn; a choice among equals then measures as 0 on average.
All of it speaks of the workflows that were tried: others may be better.

Axis suffixes: P prompts, W workflows, S seeds.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from flowtailor.pipelines.statistics import Interval, bootstrap_mean


def folds(score_PWS: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(chosen_PW, measured_PW): the scores of each seed in turn, and the mean of the other seeds."""
    if score_PWS.shape[2] < 2:
        raise ValueError("one seed to choose on and another one to measure on are needed")
    for seed in range(score_PWS.shape[2]):
        yield score_PWS[:, :, seed], np.delete(score_PWS, seed, axis=2).mean(axis=2)


def best_fixed(chosen_PW: np.ndarray) -> int:
    """The one workflow for all prompts: the best on average."""
    return int(chosen_PW.mean(axis=0).argmax())


def gain_over_fixed(score_PWS: np.ndarray) -> np.ndarray:
    """gain_P: how much the best workflow of each prompt scores above the best fixed one."""
    gains = []
    for chosen_PW, measured_PW in folds(score_PWS):
        own_P = _at(measured_PW, chosen_PW.argmax(axis=1))
        gains.append(own_P - measured_PW[:, best_fixed(chosen_PW)])
    return np.mean(gains, axis=0)


def different_bests(score_PWS: np.ndarray, least: float = 0.05) -> float:
    """How many workflows are the best for at least a share `least` of the prompts; mean over the folds.

    One counts if it wins so many prompts on the seed to choose on and scores, over those prompts, no less
    than the best fixed workflow on the others.
    """
    counts = []
    for chosen_PW, measured_PW in folds(score_PWS):
        winner_P = chosen_PW.argmax(axis=1)
        gain_PW = measured_PW - measured_PW[:, [best_fixed(chosen_PW)]]
        frequent = [w for w in np.unique(winner_P) if np.mean(winner_P == w) >= least]
        counts.append(sum(gain_PW[winner_P == w, w].mean() >= 0 for w in frequent))
    return float(np.mean(counts))


def different_bests_by_chance(
    score_PWS: np.ndarray, least: float = 0.05, *, repeats: int = 100, seed: int = 0
) -> float:
    """What `different_bests` would be if all prompts ranked the workflows alike, at the same noise.

    The interaction is taken out of the scores, and what is left of them is dealt out anew.
    """
    _, W, S = score_PWS.shape
    rng = np.random.default_rng(seed)
    level_PS = score_PWS.mean(axis=1) - score_PWS.mean()
    additive_PWS = score_PWS.mean(axis=(0, 2))[:, None] + level_PS[:, None, :]
    cell_PW = score_PWS.mean(axis=2) - score_PWS.mean(axis=(1, 2))[:, None]
    noise_PWS = score_PWS - cell_PW[:, :, None] - score_PWS.mean(axis=1)[:, None, :]
    noise_PWS *= np.sqrt(W * S / ((W - 1) * (S - 1)))  # what the fitted means have taken from it
    dealt = (rng.permutation(noise_PWS.ravel()).reshape(noise_PWS.shape) for _ in range(repeats))
    return float(np.mean([different_bests(additive_PWS + noise, least) for noise in dealt]))


def helped(score_PWS: np.ndarray, with_W: np.ndarray) -> tuple[Interval, Interval]:
    """Share of prompts that a kind of workflow helps, and by how much, over prompts.

    with_W marks the workflows of that kind. Compared is the best of them with the best of the rest, both
    chosen per prompt; a tie is one half. ValueError where either kind is empty.
    """
    with_W = np.asarray(with_W, dtype=bool)
    if with_W.all() or not with_W.any():
        raise ValueError("there must be workflows of the kind and others")
    gains = []
    for chosen_PW, measured_PW in folds(score_PWS):
        of_P = np.where(with_W, chosen_PW, -np.inf).argmax(axis=1)
        other_P = np.where(with_W, -np.inf, chosen_PW).argmax(axis=1)
        gains.append(_at(measured_PW, of_P) - _at(measured_PW, other_P))
    gain_FP = np.array(gains)
    return bootstrap_mean(np.mean((np.sign(gain_FP) + 1) / 2, axis=0)), bootstrap_mean(gain_FP.mean(axis=0))


def pareto_front(score_W: np.ndarray, seconds_W: np.ndarray) -> list[int]:
    """Workflows that no other beats in score and seconds at once, the fastest first."""
    front: list[int] = []
    for w in np.lexsort((-np.asarray(score_W), seconds_W)):
        if not front or score_W[w] > score_W[front[-1]]:
            front.append(int(w))
    return front


def _at(value_PW: np.ndarray, workflow_P: np.ndarray) -> np.ndarray:
    return value_PW[np.arange(len(value_PW)), workflow_P]
