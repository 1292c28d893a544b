"""Why a design: what each of its parts adds, as the ensemble foresees it.

A part is worth the difference between the design and its neighbour without the part
(`workflows/counterfactual.py`). Parts work together, so what they add does not sum to the score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..workflows.codec import respelled
from ..workflows.counterfactual import LEFT_OUT, counterfactuals
from ..workflows.space import Space

if TYPE_CHECKING:
    from ..models.reward import RewardEnsemble

MOST_TOLD = 3
WORTH_TELLING = 0.005  # of the score; less would be told as 0.00


@dataclass(frozen=True)
class Contribution:
    """What `component` adds to the score (0 to 1) and to the seconds of the render.

    change: what became of it in the neighbour, "left out" or the value that it has there;
    std: the error bar of the difference (models/attribution.py); without: the neighbour's tokens.
    """

    component: str
    change: str
    score: float
    score_std: float
    seconds: float
    seconds_std: float
    without: tuple[str, ...]


def contributions(
    designs: Sequence[tuple[str, Sequence[str]]],
    ensemble: RewardEnsemble,
    space: Space,
    weights: Mapping[str, float],
) -> list[list[Contribution]]:
    """For each design (prompt, tokens) its parts, those that move the score most first.

    `weights`: of the scorers in the score. A design of defaults alone has no parts to tell of.
    """
    parts = [counterfactuals(words, space) for _, words in designs]
    # Words as in the dataset: a policy may say a flow in more words than its neighbours are said in.
    tokens = [respelled(words, space) for _, words in designs]
    tokens += [part.tokens for found in parts for part in found]
    with_M = np.repeat(np.arange(len(designs)), [len(found) for found in parts])
    prompts = [prompt for prompt, _ in designs]
    prompts += [prompts[design] for design in with_M]
    without_M = np.arange(len(designs), len(tokens))
    added = ensemble.differences(prompts, tokens, with_M, without_M).weighted(weights)
    named_M = iter(
        Contribution(
            component=part.component,
            change=part.change,
            score=float(added.score[m]),
            score_std=float(added.score_std[m]),
            seconds=float(added.seconds[m]),
            seconds_std=float(added.seconds_std[m]),
            without=part.tokens,
        )
        for m, part in enumerate(part for found in parts for part in found)
    )
    of_each = [[next(named_M) for _ in found] for found in parts]
    return [sorted(found, key=lambda one: -abs(one.score)) for found in of_each]


def told(parts: Sequence[Contribution]) -> list[str]:
    """The few parts that matter most, a line each, for a person."""
    return [
        f"{_name(one)}: {one.score:+.2f} ± {one.score_std:.2f}, {one.seconds:+.2f} s"
        for one in parts[:MOST_TOLD]
        if abs(one.score) >= WORTH_TELLING
    ]


def _name(one: Contribution) -> str:
    return one.component if one.change == LEFT_OUT else f"{one.component} instead of {one.change}"
