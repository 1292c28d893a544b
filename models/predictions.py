"""What the reward ensemble answers: scores, seconds, and how sure it is of both.

Shape legend: N questions (a prompt and a workflow each), S scorers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from flowtailor.errors import FlowtailorError

from .calibration import shares, weighted_std


@dataclass(frozen=True)
class Predictions:
    """Answers to N questions; scores in the scorers' own unit [0, 1], seconds in seconds."""

    mean: np.ndarray  # (N, S)
    std: np.ndarray  # (N, S), of a single picture's score
    doubt: np.ndarray  # (N, S), about the workflow: what no rendered one tells
    seconds: np.ndarray  # (N,)
    seconds_std: np.ndarray  # (N,)
    seconds_latest: np.ndarray  # (N,), what 19 of 20 renders stay below
    scorers: tuple[str, ...]
    correlation: np.ndarray  # (S, S), of the scorers' errors

    def score(self, weights: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
        """mean_N and std_N of the weighted score."""
        share_S = shares(weights, self.scorers)
        return self.mean @ share_S, weighted_std(self.std, share_S, self.correlation)

    def doubted(self, weights: Mapping[str, float]) -> np.ndarray:
        """doubt_N of the weighted score."""
        return weighted_std(self.doubt, shares(weights, self.scorers), self.correlation)

    def reward(self, weights: Mapping[str, float], kappa: float, lambda_seconds: float) -> np.ndarray:
        """(N,): weighted mean - kappa * doubt - lambda * seconds.

        Of doubt alone, because pictures scatter wherever they are good or bad, but a workflow that has
        hardly been seen may look good by mistake, and a policy finds the mistakes.
        Raises FlowtailorError on a weight for a scorer that the ensemble does not know.
        """
        unknown = sorted(set(weights) - set(self.scorers))
        if unknown or not sum(weights.values()) > 0:
            raise FlowtailorError(
                f"scorers.weights = {dict(weights)}: the ensemble knows {', '.join(self.scorers)}, and the "
                "weights must have a positive sum; change the weights or fit the ensemble again"
            )
        mean_N, _ = self.score(weights)
        return mean_N - kappa * self.doubted(weights) - lambda_seconds * self.seconds
