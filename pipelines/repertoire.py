"""The workflows that SFT's teacher chooses from: rendered ones, and variants that nobody has rendered.

Shape legend: P prompts, W workflows.

What was rendered is a small sample of what can be designed. Of its near neighbours the ensemble is hardly
less sure, and where it is, its doubt counts against them. Only what may be somebody's answer is kept: the
best for each of some prompts, within time limits from tight to none. That is many of a kind, because the
best workflows hardly differ, so that a policy which learns from them has more to say than the rows.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..workflows.augment import variants
from ..workflows.codec import canonical_words, decode
from ..workflows.space import Space
from .config import Config
from .examples import TIGHTEST
from .objective import Objective, Words

if TYPE_CHECKING:
    from ..models.reward import RewardEnsemble

JUDGES = 50  # prompts that workflows are compared on, as many as there are kinds of prompts and more
SEEDS = 3  # rendered workflows for each prompt and limit whose variants are looked at
KEPT = 24  # for each prompt and limit
QUANTILES = (TIGHTEST, 0.1, 0.3, 0.6)  # of the rendered workflows' seconds, the time limits besides none


def repertoire(
    rendered: Sequence[Words],
    known: Collection[Words],
    prompts: Sequence[str],
    ensemble: RewardEnsemble,
    space: Space,
    config: Config,
) -> list[Words]:
    """The best of `rendered` and of `sft.variants` edits of them, by the objective."""
    judges = prompts[:: max(1, len(prompts) // JUDGES)]
    told = Objective.table(ensemble, judges, rendered, known, config)
    limits = [math.inf, *np.quantile(told.latest_N.mean(0), QUANTILES)]
    seeds = [rendered[w] for w in best(told, limits, SEEDS)]
    new = unrendered(seeds, rendered, space, config.sft.variants, config)
    everything = [*rendered, *new]
    if new:
        told = told.beside(Objective.table(ensemble, judges, new, known, config))
    return [everything[w] for w in best(told, limits, KEPT)]


def unrendered(
    seeds: Sequence[Words], rendered: Sequence[Words], space: Space, tries: int, config: Config
) -> list[Words]:
    """Sorted variants of `seeds` that are none of `rendered`."""
    flows = [decode(words, space) for words in seeds]
    edited = variants(flows, space, tries, config.run.seed, config.space.max_tokens)
    return sorted({canonical_words(flow, space) for flow in edited} - set(rendered))


def best(told: Objective, limits: Sequence[float], count: int) -> list[int]:
    """Indices of the workflows that are among the `count` best for one of the prompts within one of the
    limits."""
    found: set[int] = set()
    for limit in limits:
        order_PW = np.argsort(-told.within(limit), axis=1, kind="stable")
        found |= set(order_PW[:, :count].ravel().tolist())
    return sorted(found)
