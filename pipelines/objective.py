"""What a design is worth where it must keep a time budget: the one objective of SFT's teacher and of GRPO."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .config import Config

if TYPE_CHECKING:
    from ..models.reward import Predictions


def limit(budget_s: float | None) -> float:
    """Seconds that a design may take, infinite without a budget."""
    return math.inf if budget_s is None else budget_s


@dataclass(frozen=True)
class Objective:
    """The cautious reward of N designs, and the seconds that they are fined by.

    latest_N: the predicted seconds plus their deviation.
    """

    reward_N: np.ndarray
    latest_N: np.ndarray
    penalty: float

    @classmethod
    def of(cls, predictions: Predictions, config: Config) -> Objective:
        reward_N = predictions.reward(
            config.scorers.weights, config.reward.kappa, config.reward.lambda_seconds
        )
        latest_N = predictions.seconds + predictions.seconds_std
        return cls(reward_N, latest_N, config.grpo.over_budget_penalty)

    def within(self, limit_N: np.ndarray | float) -> np.ndarray:
        """reward_N less `penalty` times the share by which a design passes its limit, at most one penalty."""
        over_N = np.clip(self.latest_N / limit_N - 1.0, 0.0, 1.0)
        return self.reward_N - self.penalty * over_N
