"""What a design is worth to whom trains a policy: the one objective of SFT's teacher and of GRPO.

The ensemble's cautious reward, less a fine for breaking the time budget, and less `reward.novelty` for a
workflow that was known before. Many workflows are as good as the best known one, and an ensemble doubts those
least that it has seen; without that a policy learns to recite the collection.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .config import Config

if TYPE_CHECKING:
    from ..models.predictions import Predictions
    from ..models.reward import RewardEnsemble

Words = tuple[str, ...]

SLACK = 0.25  # the share of a budget beyond which a design is not worth having


def limit(budget_s: float | None) -> float:
    """Seconds that a design may take, infinite without a budget."""
    return math.inf if budget_s is None else budget_s


@dataclass(frozen=True)
class Objective:
    """What N designs are worth without a budget, and the seconds that they are fined by.

    latest_N: seconds that 19 of 20 renders stay below. A `table` has P prompts x W workflows for N.
    """

    reward_N: np.ndarray
    latest_N: np.ndarray
    penalty: float

    @classmethod
    def of(cls, predictions: Predictions, known_N: np.ndarray | bool, config: Config) -> Objective:
        """known_N: which of the designs are no news."""
        reward = config.reward
        reward_N = predictions.reward(config.scorers.weights, reward.kappa, reward.lambda_seconds)
        reward_N = reward_N - reward.novelty * np.asarray(known_N)
        return cls(reward_N, predictions.seconds_latest, config.grpo.over_budget_penalty)

    @classmethod
    def table(
        cls,
        ensemble: RewardEnsemble,
        prompts: Sequence[str],
        workflows: Sequence[Words],
        known: Collection[Words],
        config: Config,
    ) -> Objective:
        """Each workflow for each prompt: (P, W) in the place of N."""
        columns = [
            cls.of(ensemble.predict(prompts, [words] * len(prompts)), words in known, config)
            for words in workflows
        ]
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
