"""What SFT shows to the policy: prompts, wishes and designs.

An imitation example is a teacher's design (`teachers.py`) for a prompt and a time budget, or for none, with
what else the teacher might have said at each word of it.
Score-conditioned examples show the rows of training prompts, each with its score as the wish. Examples of
one prompt follow each other, so that a batch reads what they have in common once (`models/prefix_tree.py`).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import pandas as pd

from flowtailor.errors import FlowtailorError

from ..datasets.rows import learnable, weighted_score
from ..workflows.codec import DecodeError, decode
from ..workflows.space import Space
from .questions import Question
from .teachers import Teacher

TIGHTEST, LOOSEST = 0.02, 0.9  # shares of the rows that keep the budgets at the ends


@dataclass(frozen=True)
class Example:
    """A design (words, the end left out) as the answer to a prompt and its wishes.

    shares: of the words that may stand at each place of it and at its end; none where it is the only answer.
    """

    prompt: str
    tokens: tuple[str, ...]
    budget_s: float | None = None
    score: float | None = None
    shares: Sequence[Mapping[str, float]] | None = None


def training_rows(rows: pd.DataFrame, weights: Mapping[str, float]) -> pd.DataFrame:
    """Rendered rows of training prompts with their weighted `score`, NaN where one scorer has not seen them.

    Raises FlowtailorError where there are none.
    """
    known = learnable(rows, weights)
    mine = known.loc[known["prompt_split"] == "train"]
    if mine.empty:
        raise FlowtailorError(
            f"dataset: none of {len(rows)} rows is good to learn designs from; run `flowtailor collect` first"
        )
    return mine.assign(score=weighted_score(mine, weights)).reset_index(drop=True)


def designable(rows: pd.DataFrame, space: Space) -> pd.DataFrame:
    """The rows whose workflows the space holds: models that rows were made with may be gone from the engine.

    How many others there are is told once a command.
    """
    held = {text: _holds(space, text) for text in set(rows["tokens"])}
    kept = rows.loc[rows["tokens"].map(held).astype(bool)]
    if len(kept) < len(rows):
        left = {word for text, fits in held.items() if not fits for word in text.split()}
        gone = ", ".join(sorted(left - set(space.vocabulary)))
        _tell(
            f"left out of what can be designed: {len(rows) - len(kept)} of {len(rows)} rows, whose workflows "
            f"the space no longer holds{f' ({gone})' if gone else ''}"
        )
    return kept


def _holds(space: Space, tokens: str) -> bool:
    try:
        decode(tokens.split(), space)
    except DecodeError:
        return False
    return True


@cache  # several stages of a command leave out the same rows
def _tell(line: str) -> None:
    print(line, flush=True)


def seconds_range(rows: pd.DataFrame) -> tuple[float, float]:
    """Budgets worth asking for, from one that few rows keep to one that few break."""
    low, high = (float(rows["seconds"].quantile(share)) for share in (TIGHTEST, LOOSEST))
    return low, high


def imitation_examples(
    questions: Sequence[Question], teacher: Teacher, *, each: int, seed: int
) -> list[Example]:
    """`each` designs of the teacher's for every question."""
    rng, examples = random.Random(seed), []
    for question in questions:
        answer = teacher.answer(question)
        for tokens in answer.draw(each, rng):
            shares = answer.continuations(tokens)
            examples.append(Example(question.prompt, tokens, question.budget_s, shares=shares))
    return examples


def score_examples(rows: pd.DataFrame, count: int, *, each: int, seed: int) -> list[Example]:
    """`count` rows, good or bad, with their score as the wish; all rows once before any twice.

    Rows are shuffled by `each` of a prompt. Raises FlowtailorError where there are none.
    """
    if rows.empty:
        raise FlowtailorError(
            "dataset: no row has the score of every scorer; run `flowtailor collect` with those of today"
        )
    rng = random.Random(seed)
    parts = []
    for prompt, group in rows.groupby("prompt", sort=True):
        shown = [
            Example(str(prompt), tuple(str(tokens).split()), score=float(score))
            for tokens, score in zip(group["tokens"], group["score"], strict=True)
        ]
        parts += [shown[start : start + each] for start in range(0, len(shown), each)]
    examples: list[Example] = []
    while len(examples) < count:
        examples += [example for part in rng.sample(parts, len(parts)) for example in part]
    return examples[:count]
