"""Whom SFT imitates: for a prompt and a time budget, designs in the proportion in which they are worth it.

Shape legend: P prompts, W workflows.

A prompt's own rows are few and each is one picture's luck. The ensemble has seen how all workflows did on
all prompts, so it can say of any of them what it would do for this one: that is what `EnsembleTeacher`
teaches, and `RowsTeacher`, which copies the luckiest rows, is there to compare with.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pandas as pd

from .config import Config
from .objective import Objective, limit
from .questions import Question

if TYPE_CHECKING:
    from ..models.reward import RewardEnsemble

Words = tuple[str, ...]


class Teacher(Protocol):
    """Answers questions about training prompts by example."""

    def answer(self, question: Question, count: int, rng: random.Random) -> list[Words]:
        """`count` designs (words, the end left out), with repetitions."""
        ...


class RowsTeacher:
    """The best share `keep` of the prompt's rows that keep the budget; of the fastest row where none does."""

    def __init__(self, rows: pd.DataFrame, keep: float) -> None:
        """rows: prompt, tokens, score, seconds."""
        self._keep = keep
        self._rows = {str(prompt): group for prompt, group in rows.groupby("prompt")}

    def answer(self, question: Question, count: int, rng: random.Random) -> list[Words]:
        rows = self._rows[question.prompt]
        fitting = rows.loc[rows["seconds"] <= max(limit(question.budget_s), rows["seconds"].min())]
        best = fitting.nlargest(math.ceil(self._keep * len(fitting)), "score")
        return [tuple(str(text).split()) for text in rng.choices(best["tokens"].tolist(), k=count)]


class EnsembleTeacher:
    """Any of some workflows, in proportion to exp(objective / temperature).

    That is the policy which is best by the objective less `temperature` times its divergence from drawing
    workflows evenly (Rafailov et al. 2023, equation 4): sure where it matters, various where it does not.
    """

    def __init__(
        self, ensemble: RewardEnsemble, prompts: Sequence[str], workflows: Sequence[Words], config: Config
    ) -> None:
        self._workflows, self._temperature = list(workflows), config.sft.teacher_temperature
        told = Objective.table(ensemble, prompts, workflows, config)
        rows = zip(prompts, told.reward_N, told.latest_N, strict=True)
        self._objective = {
            prompt: Objective(reward_W, latest_W, told.penalty) for prompt, reward_W, latest_W in rows
        }

    def answer(self, question: Question, count: int, rng: random.Random) -> list[Words]:
        worth_W = self._objective[question.prompt].within(limit(question.budget_s))
        weight_W = np.exp((worth_W - worth_W.max()) / self._temperature)
        return rng.choices(self._workflows, weight_W.tolist(), k=count)
