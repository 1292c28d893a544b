"""An ensemble that foresees by a rule, so that a test knows what it says. For tests only."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from flowtailor.models.predictions import Predictions
from flowtailor.models.reward import RewardEnsemble


class RuleEnsemble(RewardEnsemble):
    """Foresees what `rule(prompt, words)` says: a score, the same by every scorer, and seconds."""

    def __init__(
        self,
        rule: Callable[[str, tuple[str, ...]], tuple[float, float]],
        scorers: Sequence[str],
        *,
        std: float = 0.0,
        doubt: float = 0.0,
    ) -> None:
        self.rule, self.scorers, self.std, self.doubt = rule, tuple(scorers), std, doubt

    def predict(self, prompts: Sequence[str], tokens: Sequence[Sequence[str]]) -> Predictions:
        told = [self.rule(prompt, tuple(words)) for prompt, words in zip(prompts, tokens, strict=True)]
        score_N, seconds_N = np.array(told, dtype=float).reshape(-1, 2).T
        mean_NS = np.repeat(score_N[:, None], len(self.scorers), axis=1)
        return Predictions(
            mean_NS,
            np.full_like(mean_NS, self.std),
            np.full_like(mean_NS, self.doubt),
            seconds_N,
            np.zeros_like(seconds_N),
            seconds_N,
            self.scorers,
            np.ones((len(self.scorers), len(self.scorers))),
        )
