"""What the reward ensemble has to beat: the mean of a workflow, and ridge regression on its parts.

Both see no prompt, so they rank workflows alike for all prompts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .reward_features import components


class WorkflowMean:
    """The mean score of the training rows of the same workflow; the overall mean for unseen ones."""

    def __init__(self, tokens: Sequence[str], scores_N: np.ndarray) -> None:
        sums: dict[str, list[float]] = {}
        for text, score in zip(tokens, scores_N, strict=True):
            sums.setdefault(text, []).append(float(score))
        self._means = {text: float(np.mean(values)) for text, values in sums.items()}
        self._otherwise = float(scores_N.mean())

    def predict(self, tokens: Sequence[str]) -> np.ndarray:
        return np.array([self._means.get(text, self._otherwise) for text in tokens])


class Ridge:
    """Linear regression on which components a workflow has, with a penalty on the squared weights."""

    def __init__(self, tokens: Sequence[str], scores_N: np.ndarray, penalty: float = 1.0) -> None:
        parts = [components(text.split()) for text in tokens]
        self._column = {part: i for i, part in enumerate(sorted(set().union(*parts)))}
        self._mean = float(scores_N.mean())
        x_NC = self._indicators(tokens)
        gram_CC = x_NC.T @ x_NC + penalty * np.eye(x_NC.shape[1])
        self._weight_C = np.linalg.solve(gram_CC, x_NC.T @ (scores_N - self._mean))

    def predict(self, tokens: Sequence[str]) -> np.ndarray:
        return self._mean + self._indicators(tokens) @ self._weight_C

    def _indicators(self, tokens: Sequence[str]) -> np.ndarray:
        """(N, C): 1 where row n has component c; components that were never seen count nothing."""
        x_NC = np.zeros((len(tokens), len(self._column)))
        for row, text in enumerate(tokens):
            for part in components(text.split()):
                if part in self._column:
                    x_NC[row, self._column[part]] = 1
        return x_NC
