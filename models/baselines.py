"""What the reward ensemble has to beat: a workflow's mean, ridge regression on its parts, boosted trees.

The first two see no prompt, so they rank workflows alike for all prompts; the trees see what the ensemble
sees. Shape legend: N rows, C components that training workflows have, P prompt features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import Ridge

from ..workflows.components import components
from .text import TextEncoder

PROMPT_FEATURES = 16

# (prompts, tokens) of N questions -> what is foreseen for them, (N,).
Guess = Callable[[Sequence[str], Sequence[str]], np.ndarray]


def baselines(
    prompts: Sequence[str], tokens: Sequence[str], score_N: np.ndarray, encoder: TextEncoder
) -> Mapping[str, Guess]:
    """Name -> a baseline that was fitted on these training rows."""
    return {
        "workflow_mean": workflow_mean(tokens, score_N),
        "ridge": ridge(tokens, score_N),
        "boosted_trees": boosted_trees(prompts, tokens, score_N, encoder),
    }


def workflow_mean(tokens: Sequence[str], score_N: np.ndarray) -> Guess:
    """The mean score of the training rows of the same workflow; the overall mean for unseen ones."""
    scores: dict[str, list[float]] = {}
    for text, score in zip(tokens, score_N, strict=True):
        scores.setdefault(text, []).append(float(score))
    means = {text: float(np.mean(values)) for text, values in scores.items()}
    otherwise = float(score_N.mean())
    return lambda prompts, tokens: np.array([means.get(text, otherwise) for text in tokens])


def ridge(tokens: Sequence[str], score_N: np.ndarray, penalty: float = 1.0) -> Guess:
    """Linear regression on which components a workflow has, with a penalty on the squared weights."""
    columns = DictVectorizer()
    fitted = Ridge(alpha=penalty).fit(columns.fit_transform(_indicators(tokens)), score_N)
    return lambda prompts, tokens: fitted.predict(columns.transform(_indicators(tokens)))


def boosted_trees(
    prompts: Sequence[str], tokens: Sequence[str], score_N: np.ndarray, encoder: TextEncoder
) -> Guess:
    """Gradient-boosted trees on the components and the main directions of the prompts' features."""
    columns = DictVectorizer(sparse=False)
    distinct = encoder.encode(sorted(set(prompts))).numpy()
    main = PCA(min(PROMPT_FEATURES, *distinct.shape), random_state=0).fit(distinct)

    def both(prompts: Sequence[str], indicators_NC: np.ndarray) -> np.ndarray:
        return np.hstack([indicators_NC, main.transform(encoder.encode(prompts).numpy())])

    trees = HistGradientBoostingRegressor(random_state=0)
    trees.fit(both(prompts, np.asarray(columns.fit_transform(_indicators(tokens)))), score_N)
    return lambda prompts, tokens: trees.predict(
        both(prompts, np.asarray(columns.transform(_indicators(tokens))))
    )


def _indicators(tokens: Sequence[str]) -> list[dict[str, float]]:
    """Component -> 1 for each row; components that training had none of are left out by the columns."""
    return [dict.fromkeys(components(text.split()), 1.0) for text in tokens]
