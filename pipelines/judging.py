"""From wishes to judged designs: the policy draws, the reward ensemble judges, the best go first.

The design command, the service and the evaluation of budgets come through here, so that they give
the same designs. With a budget more is drawn than was asked for, and what is foreseen to keep it goes
first. Foreseen seconds are those of the engine and machine that the rows came from; a design is
never refused for them, because a forecast may be wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from .config import Config, DesignConfig

if TYPE_CHECKING:
    from ..models.designing import Design, Designer
    from ..models.reward import RewardEnsemble


@dataclass(frozen=True)
class Wish:
    """What is asked for: n different designs, for a render within `budget_s` seconds (None: any)."""

    prompt: str
    n: int
    guidance: float
    temperature: float
    budget_s: float | None
    seed: int

    @classmethod
    def of(
        cls,
        prompt: str,
        usual: DesignConfig,
        *,
        n: int = 1,
        guidance: float | None = None,
        temperature: float | None = None,
        budget_s: float | None = None,
        seed: int,
    ) -> Self:
        """A wish as the run usually designs, but for what is not None."""
        guidance = usual.guidance if guidance is None else guidance
        temperature = usual.temperature if temperature is None else temperature
        return cls(prompt, n, guidance, temperature, budget_s, seed)


@dataclass(frozen=True)
class Judged:
    """A design and what the ensemble expects of it.

    score, scores, reward: in the scorers' unit (0 to 1); seconds: of the render; keeps_budget: is
    the render foreseen to, with the margin that 19 of 20 renders keep; None where there is no budget.
    """

    tokens: tuple[str, ...]
    logprob: float
    score: float
    score_std: float
    scores: dict[str, tuple[float, float]]
    reward: float
    seconds: float
    seconds_std: float
    keeps_budget: bool | None


def draw(
    wishes: Sequence[Wish], designer: Designer, ensemble: RewardEnsemble, config: Config
) -> list[list[Judged]]:
    """Up to n different designs for each wish, best first (see `best_first`).

    An answer does not depend on which other wishes stand beside it.
    """
    drawn: list[list[Design]] = [[] for _ in wishes]
    draws = [how_many(wish, config.design.best_of) for wish in wishes]
    for n in sorted(set(draws)):  # the designer takes one n a call
        places = [i for i, count in enumerate(draws) if count == n]
        group = [wishes[i] for i in places]
        found = designer.distinct(
            [wish.prompt for wish in group],
            n=n,
            guidance=[wish.guidance for wish in group],
            temperature=[wish.temperature for wish in group],
            budget_s=[wish.budget_s for wish in group],
            seed=[wish.seed for wish in group],
        )
        for place, designs in zip(places, found, strict=True):
            drawn[place] = designs
    pairs = [(wish, design) for wish, designs in zip(wishes, drawn, strict=True) for design in designs]
    judged = iter(judge(pairs, ensemble, config))
    return [
        best_first([next(judged) for _ in designs])[: wish.n]
        for wish, designs in zip(wishes, drawn, strict=True)
    ]


def how_many(wish: Wish, best_of: int) -> int:
    """With a budget there must be something to choose from, however few designs are asked for."""
    return wish.n if wish.budget_s is None else max(wish.n, best_of)


def judge(pairs: Sequence[tuple[Wish, Design]], ensemble: RewardEnsemble, config: Config) -> list[Judged]:
    """What the ensemble expects of designs, in their order."""
    predictions = ensemble.predict([wish.prompt for wish, _ in pairs], [design.tokens for _, design in pairs])
    weights, options = config.scorers.weights, config.reward
    mean_n, std_n = predictions.score(weights)
    reward_n = predictions.reward(weights, options.kappa, options.lambda_seconds)
    latest_n = predictions.seconds_latest
    return [
        Judged(
            tokens=tuple(design.tokens),
            logprob=float(design.logprob),
            score=float(mean_n[i]),
            score_std=float(std_n[i]),
            scores={
                name: (float(predictions.mean[i, s]), float(predictions.std[i, s]))
                for s, name in enumerate(predictions.scorers)
            },
            reward=float(reward_n[i]),
            seconds=float(predictions.seconds[i]),
            seconds_std=float(predictions.seconds_std[i]),
            keeps_budget=None if wish.budget_s is None else bool(latest_n[i] <= wish.budget_s),
        )
        for i, (wish, design) in enumerate(pairs)
    ]


def best_first(designs: Sequence[Judged]) -> list[Judged]:
    """Those that keep the budget by reward, then the others, the quickest first; without a budget all
    by reward."""

    def place(one: Judged) -> tuple[bool, float]:
        late = one.keeps_budget is False
        return late, one.seconds if late else -one.reward

    return sorted(designs, key=place)
