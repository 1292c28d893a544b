"""Whom SFT imitates: for a prompt and a time budget, how likely each of some designs should be.

Shape legend: P prompts, W workflows.

A prompt's own rows are few and each is one picture's luck. The ensemble has seen how all workflows did on
all prompts, so it can say of any of them what it would do for this one: that is what `EnsembleTeacher`
teaches, and `RowsTeacher`, which copies the luckiest rows, is there to compare with.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import pandas as pd

from ..workflows.rules import END
from .config import Config
from .objective import Objective, Words, limit
from .questions import Question

if TYPE_CHECKING:
    from ..models.reward import RewardEnsemble


class Answer(NamedTuple):
    """Designs (words, the end left out), and the share of the answers that each should be."""

    workflows: Sequence[Words]
    share_W: np.ndarray

    def draw(self, count: int, rng: random.Random) -> list[Words]:
        """`count` designs by their shares, with repetitions."""
        return rng.choices(self.workflows, self.share_W.tolist(), k=count)

    def continuations(self, words: Words) -> list[dict[str, float]]:
        """What should follow each beginning of a design, and all of it: shares of words, END among them.

        A policy that learns these shares learns the answer itself and not the luck of a draw from it.
        """
        agreeing = [(flow, share) for flow, share in zip(*self, strict=True) if share > 0]
        following: list[dict[str, float]] = []
        for place, word in enumerate((*words, END)):
            shares: Counter[str] = Counter()
            for flow, share in agreeing:
                shares[(*flow, END)[place]] += share
            following.append({said: share / shares.total() for said, share in shares.items()})
            agreeing = [(flow, share) for flow, share in agreeing if (*flow, END)[place] == word]
        return following


class Teacher(Protocol):
    """Answers questions about training prompts by example."""

    def answer(self, question: Question) -> Answer: ...


class RowsTeacher:
    """The best share `keep` of the prompt's rows that keep the budget; of the fastest row where none does."""

    def __init__(self, rows: pd.DataFrame, keep: float) -> None:
        """rows: prompt, tokens, score, seconds."""
        self._keep = keep
        self._rows = {str(prompt): group for prompt, group in rows.groupby("prompt")}

    def answer(self, question: Question) -> Answer:
        rows = self._rows[question.prompt]
        fitting = rows.loc[rows["seconds"] <= max(limit(question.budget_s), rows["seconds"].min())]
        best = fitting.nlargest(math.ceil(self._keep * len(fitting)), "score")
        workflows = [tuple(str(text).split()) for text in best["tokens"]]
        return Answer(workflows, np.full(len(workflows), 1 / len(workflows)))


class EnsembleTeacher:
    """Any of some workflows, in proportion to exp(objective / temperature).

    That is the policy which is best by the objective less `temperature` times its divergence from drawing
    workflows evenly (Rafailov et al. 2023, equation 4): sure where it matters, various where it does not.
    """

    def __init__(
        self,
        ensemble: RewardEnsemble,
        prompts: Sequence[str],
        workflows: Sequence[Words],
        known: Collection[Words],
        config: Config,
    ) -> None:
        """known: those of the workflows that are fined for being no news (`objective.py`)."""
        self._workflows, self._temperature = list(workflows), config.sft.teacher_temperature
        told = Objective.table(ensemble, prompts, workflows, known, config)
        rows = zip(prompts, told.reward_N, told.latest_N, strict=True)
        self._objective = {
            prompt: Objective(reward_W, latest_W, told.penalty) for prompt, reward_W, latest_W in rows
        }

    def answer(self, question: Question) -> Answer:
        worth_W = self._objective[question.prompt].within(limit(question.budget_s))
        weight_W = np.exp((worth_W - worth_W.max()) / self._temperature)
        return Answer(self._workflows, weight_W / weight_W.sum())
