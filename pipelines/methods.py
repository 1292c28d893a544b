"""The ways to choose a workflow for a prompt that an evaluation compares.

Each takes prompts and gives one workflow per prompt, as tokens, with the seconds that choosing took.
Prompts are answered one at a time, because the seconds are what a person would wait. The baselines
see the rows of training prompts and nothing else; no method sees a test prompt's score.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from ..datasets.prompts import Prompt
from ..workflows.codec import canonical_words
from ..workflows.grammar import Grammar
from ..workflows.graph import Workflow
from ..workflows.similarity import Known
from ..workflows.space import OutOfSpace, Space
from .config import Config
from .judging import Wish, draw
from .statistics import category_effects, workflow_effects

if TYPE_CHECKING:  # torch; the report imports this file for the names alone
    from ..models.designing import Designer
    from ..models.reward import RewardEnsemble

METHODS = {
    "most_used": "one workflow for everything: ComfyUI's default graph, or else the commonest of the rows",
    "best_fixed": "one workflow for everything: the best on training prompts, compared on equal terms",
    "retrieval": "the best workflow, on training prompts, of the category that the prompt's text tells",
    "retrieval_labelled": "the same, told the prompt's true category and style, which nobody tells",
    "score_conditioned": "a policy that writes a workflow for prompt and wanted score, asked for a high one",
    "sft": "the policy that imitates what the ensemble foresees",
    "grpo": "that policy after reinforcement learning against the reward ensemble",
    "guided": "both mixed at inference, as strongly as was best on validation prompts",
    "guided_best_of_n": "several different guided designs, the one that the reward ensemble likes best",
    "random_valid": "any workflow that the grammar allows",
}
LEARNED = ("score_conditioned", "sft", "grpo", "guided", "guided_best_of_n")
HIGH_SCORE = 0.95  # quantile of the training scores that score_conditioned is asked for


Picker = Callable[[Prompt], Sequence[str]]


class Choice(NamedTuple):
    """A chosen workflow and how long choosing it took."""

    tokens: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Materials:
    """What methods may use.

    rows: training prompts' rows with tokens (joined by spaces), workflow_key, category, style, score.
    known: the workflows of the training rows when SFT began, against which designs are new.
    default: tokens of what people use who do not choose (see `default_design`).
    labels_of: what a text tells, by label, likeliest first, as the policy reads it; nothing where there are
        no labels.
    """

    config: Config
    rows: pd.DataFrame
    known: Known
    default: tuple[str, ...]
    space: Space
    designer: Designer
    ensemble: RewardEnsemble
    labels_of: Callable[[str], Mapping[str, Sequence[str]]]


def choose(method: str, prompts: Sequence[Prompt], materials: Materials) -> list[Choice]:
    """One choice per prompt; KeyError for a method that is not in METHODS."""
    return timed(_PICKERS[method](materials), prompts)


def timed(pick: Picker, prompts: Sequence[Prompt]) -> list[Choice]:
    """What `pick` chooses for each prompt, one after another."""
    choices = []
    for prompt in prompts:
        started = time.perf_counter()
        tokens = tuple(pick(prompt))
        choices.append(Choice(tokens, time.perf_counter() - started))
    return choices


def _most_used(materials: Materials) -> Picker:
    return lambda prompt: materials.default


def default_design(flows: Mapping[str, Workflow], rows: pd.DataFrame, space: Space) -> tuple[str, ...]:
    """Tokens of the seed workflow `plain`, ComfyUI's default graph; without one (a space or seeds of
    one's own), of the commonest workflow of the rows."""
    try:
        return canonical_words(flows["plain"], space)
    except (KeyError, OutOfSpace):
        counts = Counter(sorted(rows["tokens"]))
        return tuple(counts.most_common(1)[0][0].split())


def _best_fixed(materials: Materials) -> Picker:
    tokens = _tokens_by_key(materials.rows)[str(workflow_effects(materials.rows).index[0])]
    return lambda prompt: tokens


def _retrieval(materials: Materials) -> Picker:
    tokens, effect_of = _tokens_by_key(materials.rows), _effects_by_label(materials.rows, "category")

    def pick(prompt: Prompt) -> tuple[str, ...]:
        likeliest = next(iter(materials.labels_of(prompt.text).get("category", ())), None)
        return tokens[str(effect_of(likeliest).idxmax())]

    return pick


def _retrieval_labelled(materials: Materials) -> Picker:
    """Effects on category and style add up: few workflows met many prompts of both."""
    tokens = _tokens_by_key(materials.rows)
    on_category, on_style = (_effects_by_label(materials.rows, label) for label in ("category", "style"))
    general = on_style(None)
    return lambda prompt: tokens[
        str((on_category(prompt.category) + on_style(prompt.style) - general).idxmax())
    ]


def _effects_by_label(rows: pd.DataFrame, label: str) -> Callable[[str | None], pd.Series]:
    """Label of a prompt -> effect of each workflow on such prompts; in general where no row has the label."""
    labelled = rows.assign(category=rows[label])
    effects, general = category_effects(labelled).T, workflow_effects(labelled)["effect"]
    return lambda name: effects.get(name, general)


def _tokens_by_key(rows: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    return {key: tuple(text.split()) for key, text in zip(rows["workflow_key"], rows["tokens"], strict=True)}


def _random_valid(materials: Materials) -> Picker:
    grammar = Grammar(materials.space, max_tokens=materials.config.space.max_tokens)
    rng = random.Random(materials.config.run.seed)
    return lambda prompt: [grammar.vocabulary[i] for i in grammar.sample(rng)]


def _score_conditioned(materials: Materials) -> Picker:
    score = float(np.quantile(materials.rows["score"], HIGH_SCORE))
    return _designs(materials, adapter="score_conditioned", guidance=1.0, score=score)


def _sft(materials: Materials) -> Picker:
    return _designs(materials, guidance="sft")


def _grpo(materials: Materials) -> Picker:
    return _designs(materials, guidance=1.0)


def _guided(materials: Materials) -> Picker:
    return _designs(materials, guidance=materials.config.design.guidance)


def _designs(materials: Materials, **options: Any) -> Picker:
    design, config = materials.designer.design, materials.config

    def pick(prompt: Prompt) -> Sequence[str]:
        designs = design(
            [prompt.text], n=1, temperature=config.design.temperature, seed=config.run.seed, **options
        )
        return designs[0][0].tokens

    return pick


def _guided_best_of_n(materials: Materials) -> Picker:
    return lambda prompt: best_design(prompt, materials, n=materials.config.design.best_of)


def best_design(
    prompt: Prompt, materials: Materials, *, n: int, budget_s: float | None = None
) -> tuple[str, ...]:
    """Tokens of the first of n guided designs, as the design command and the service give them."""
    config = materials.config
    wish = Wish.of(prompt.text, config.design, n=n, budget_s=budget_s, seed=config.run.seed)
    return draw([wish], materials.designer, materials.ensemble, config)[0][0].tokens


_PICKERS: dict[str, Callable[[Materials], Picker]] = {
    "most_used": _most_used,
    "best_fixed": _best_fixed,
    "retrieval": _retrieval,
    "retrieval_labelled": _retrieval_labelled,
    "score_conditioned": _score_conditioned,
    "sft": _sft,
    "grpo": _grpo,
    "guided": _guided,
    "guided_best_of_n": _guided_best_of_n,
    "random_valid": _random_valid,
}
