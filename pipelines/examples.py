"""What the policy is shown: prompts, wishes and designs, from the rows of training prompts.

An example is a design that did well for its prompt among those that keep a time budget; so the policy
learns what is good within a budget, and what is good without one. Score-conditioned examples show
every design, with its score as the wish.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from flowtailor.errors import FlowtailorError

from ..datasets.rows import usable, weighted_score


@dataclass(frozen=True)
class Example:
    """A design (words, the end left out) as the answer to a prompt and its wishes."""

    prompt: str
    tokens: tuple[str, ...]
    budget_s: float | None = None
    score: float | None = None


def training_rows(rows: pd.DataFrame, weights: Mapping[str, float]) -> pd.DataFrame:
    """Rendered and scored rows of training prompts, with their weighted `score`.

    Raises FlowtailorError where there are none.
    """
    known = usable(rows, weights)
    mine = known.loc[known["prompt_split"] == "train"]
    if mine.empty:
        raise FlowtailorError(
            f"dataset: none of {len(rows)} rows is good to learn designs from; run `flowtailor collect` first"
        )
    return mine.assign(score=weighted_score(mine, weights)).reset_index(drop=True)


def imitation_examples(rows: pd.DataFrame, keep: float, budgets: int, seed: int) -> list[Example]:
    """Per prompt and budget the best `keep` share of the rows that keep the budget.

    `budgets` of them are drawn between the fastest and the slowest row of the prompt, evenly in their
    logarithm; one more is "any".
    """
    rng = random.Random(seed)
    examples = []
    for prompt, group in rows.groupby("prompt", sort=True):
        low, high = (math.log(group["seconds"].agg(end)) for end in ("min", "max"))
        for budget in [None, *(math.exp(rng.uniform(low, high)) for _ in range(budgets))]:
            fitting = group if budget is None else group.loc[group["seconds"] <= budget]
            best = fitting.nlargest(math.ceil(keep * len(fitting)), "score")
            examples += [Example(str(prompt), tuple(text.split()), budget) for text in best["tokens"]]
    return examples


def score_examples(rows: pd.DataFrame) -> list[Example]:
    """Every row, good or bad, with its score as the wish."""
    return [
        Example(str(prompt), tuple(str(text).split()), score=float(score))
        for prompt, text, score in zip(rows["prompt"], rows["tokens"], rows["score"], strict=True)
    ]
