"""What a policy is asked in training: a prompt, and how long its picture may take."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import NamedTuple

from flowtailor.errors import FlowtailorError

from ..datasets.prompts import training_prompts
from .config import Config


class Question(NamedTuple):
    """budget_s: seconds of rendering, None for as long as it takes."""

    prompt: str
    budget_s: float | None


def askable(config: Config) -> list[str]:
    """All training prompts of the prompt file, rendered or not: the ensemble answers for any."""
    return [prompt.text for prompt in training_prompts(config.prompts.file)]


def draw_questions(
    prompts: Sequence[str], count: int, *, seconds: tuple[float, float], budgeted: float, seed: int
) -> list[Question]:
    """`count` questions, a share `budgeted` of them with a budget. All prompts come once before any twice.

    seconds: (low, high) of the budgets, which lie evenly in their logarithm. Raises FlowtailorError
    where there are no prompts.
    """
    if not prompts:
        raise FlowtailorError("prompts: there is no training prompt to ask about; add some to prompts.file")
    rng = random.Random(seed)
    low, high = (math.log(end) for end in seconds)
    questions: list[Question] = []
    while len(questions) < count:
        for prompt in rng.sample(prompts, len(prompts)):
            budget = math.exp(rng.uniform(low, high)) if rng.random() < budgeted else None
            questions.append(Question(prompt, budget))
    return questions[:count]
