"""What a design is worth where it must keep a time budget: the one objective of SFT's teacher and of GRPO."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .config import Config

if TYPE_CHECKING:
    from ..models.reward import Predictions, RewardEnsemble

SAFE_DEVIATIONS = 1.645  # the seconds that 19 of 20 renders stay below, if the error bars are right
SLACK = 0.25  # the share of a budget beyond which a design is not worth having


def slowest(seconds: np.ndarray, seconds_std: np.ndarray) -> np.ndarray:
    """Seconds that a render stays below, with the safety margin; their logarithm is what errs evenly."""
    return seconds * np.exp(SAFE_DEVIATIONS * seconds_std / seconds)


def limit(budget_s: float | None) -> float:
    """Seconds that a design may take, infinite without a budget."""
    return math.inf if budget_s is None else budget_s


@dataclass(frozen=True)
class Objective:
    """The cautious reward of N designs, and the seconds that they are fined by.

    latest_N: what its seconds stay below (`slowest`). A `table` has P prompts x W workflows for N.
    """

    reward_N: np.ndarray
    latest_N: np.ndarray
    penalty: float

    @classmethod
    def of(cls, predictions: Predictions, config: Config) -> Objective:
        reward_N = predictions.reward(
            config.scorers.weights, config.reward.kappa, config.reward.lambda_seconds
        )
        latest_N = slowest(predictions.seconds, predictions.seconds_std)
        return cls(reward_N, latest_N, config.grpo.over_budget_penalty)

    @classmethod
    def table(
        cls,
        ensemble: RewardEnsemble,
        prompts: Sequence[str],
        workflows: Sequence[Sequence[str]],
        config: Config,
    ) -> Objective:
        """Each workflow for each prompt: (P, W) in the place of N."""
        columns = [cls.of(ensemble.predict(prompts, [words] * len(prompts)), config) for words in workflows]
        reward_PW = np.stack([column.reward_N for column in columns], axis=1)
        latest_PW = np.stack([column.latest_N for column in columns], axis=1)
        return cls(reward_PW, latest_PW, config.grpo.over_budget_penalty)

    def beside(self, other: Objective) -> Objective:
        """Two tables of the same prompts as one."""
        reward_PW = np.concatenate([self.reward_N, other.reward_N], axis=1)
        return Objective(reward_PW, np.concatenate([self.latest_N, other.latest_N], axis=1), self.penalty)

    def within(self, limit_N: np.ndarray | float) -> np.ndarray:
        """reward_N less `penalty` as far as a design passes its limit: all of it from SLACK on.

        And then slowly more, because where nothing keeps a limit, what comes near it is to be preferred.
        """
        times_N = np.maximum(self.latest_N / limit_N, 1.0)
        return self.reward_N - self.penalty * (np.minimum((times_N - 1.0) / SLACK, 1.0) + np.log(times_N))
