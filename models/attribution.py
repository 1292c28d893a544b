"""What one choice adds: the difference that the ensemble sees between two workflows. Pure functions.

Shape legend: K members, N questions, S scorers, M pairs of questions.

The error bar is the members' disagreement about the difference, as far apart as the ensemble sets them
(`MemberPredictions`): of differences between two single pictures of a validation prompt, 68% lie within.
A prompt that is hard, or a style that nobody rendered, moves both workflows of a pair alike and cancels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .reward import MemberPredictions


@dataclass(frozen=True)
class Difference:
    """Of M pairs, with minus without: score in the scorers' unit, seconds in seconds; (M,) each."""

    score: np.ndarray
    score_std: np.ndarray
    seconds: np.ndarray
    seconds_std: np.ndarray


def difference(
    members: MemberPredictions, weights: Mapping[str, float], with_M: np.ndarray, without_M: np.ndarray
) -> Difference:
    """Pair m compares question `with_M[m]` to question `without_M[m]`; `weights` make the score."""
    score_KN = members.score(weights)
    score_KM = score_KN[:, with_M] - score_KN[:, without_M]
    seconds_KM = members.seconds[:, with_M] - members.seconds[:, without_M]
    return Difference(score_KM.mean(0), _std(score_KM), seconds_KM.mean(0), _std(seconds_KM))


def _std(value_KM: np.ndarray) -> np.ndarray:
    """The deviation of the population that few members are a sample of; one member shows none."""
    return value_KM.std(0, ddof=1) if len(value_KM) > 1 else np.zeros(value_KM.shape[1])
