"""What one choice adds: the difference that the ensemble sees between two workflows. Pure functions.

Shape legend: K members, S scorers, M pairs of questions.

The error bar holds the members' disagreement about the difference and what no rendered workflow tells of it:
of differences between two single pictures of a validation prompt, 68% lie within. A prompt that is hard, or a
style that nobody rendered, moves both workflows of a pair alike and cancels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .calibration import shares, weighted_std


@dataclass(frozen=True)
class Difference:
    """Of M pairs, with minus without: score in the scorers' unit, seconds in seconds; (M,) each."""

    score: np.ndarray
    score_std: np.ndarray
    seconds: np.ndarray
    seconds_std: np.ndarray


@dataclass(frozen=True)
class Differences:
    """Of M pairs, with minus without, what each member says of each scorer's output, and of seconds.

    Where two questions differ in one thing, members err alike on both: the difference is surer than
    either answer, which only single members can show. posterior: the deviation of what no rendered workflow
    tells about it. Both are as wide as makes the deviation of a difference honest on validation prompts.
    """

    scores: np.ndarray  # (K, M, S)
    seconds: np.ndarray  # (K, M)
    posterior: np.ndarray  # (M, S)
    seconds_posterior: np.ndarray  # (M,)
    scorers: tuple[str, ...]
    correlation: np.ndarray  # (S, S), of the scorers' errors

    def weighted(self, weights: Mapping[str, float]) -> Difference:
        """The difference in the score that `weights` make, and in seconds."""
        share_S = shares(weights, self.scorers)
        score_KM = self.scores @ share_S
        posterior_M = weighted_std(self.posterior, share_S, self.correlation)
        return Difference(
            score_KM.mean(0),
            np.hypot(_std(score_KM), posterior_M),
            self.seconds.mean(0),
            np.hypot(_std(self.seconds), self.seconds_posterior),
        )


def _std(value_KM: np.ndarray) -> np.ndarray:
    """The deviation of the population that few members are a sample of; one member shows none."""
    return value_KM.std(0, ddof=1) if len(value_KM) > 1 else np.zeros(value_KM.shape[1])
