"""Which (prompt, workflow, seed) to render: a balanced sample, not the full product.

Each prompt gets `flows_per_prompt` of the workflows. The ones that its category has seen least go
first, so that every workflow, and with it every component, meets every category about equally
often; among those, the ones whose components this prompt has not met yet. Seeds belong to the
prompt, so that the workflows of a prompt are compared on the same noise. The plan depends on the
configuration alone: the same plan again, then only what is missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial

import pandas as pd

from ..datasets.prompts import Prompt
from ..datasets.rows import row_id, share, text_hash, workflow_split
from ..workflows.augment import augment
from ..workflows.codec import canonical_words, decode
from ..workflows.graph import Workflow
from ..workflows.space import Space


@dataclass(frozen=True)
class Candidate:
    """A workflow that may be rendered, in the forms that a row holds."""

    key: str
    text: str  # canonical JSON with slots
    tokens: tuple[str, ...]  # without the end token

    @classmethod
    def of(cls, tokens: Sequence[str], space: Space) -> Candidate:
        """The workflow that a design says; raises DecodeError where the space has no such words."""
        return cls.from_flow(decode(tokens, space), space)

    @classmethod
    def from_flow(cls, flow: Workflow, space: Space) -> Candidate:
        """A canonical workflow of the space."""
        return cls(flow.key, flow.dumps(), canonical_words(flow, space))


def candidates(
    seeds: Sequence[Workflow], space: Space, *, count: int, max_tokens: int, seed: int
) -> list[Candidate]:
    """`count` distinct workflows: the seeds that the space holds, then variations of them.

    Raises FlowtailorError where the space holds none of the seeds, or not so many workflows.
    """
    flows = augment(seeds, space, n=count, seed=seed, max_tokens=max_tokens)
    return [Candidate.from_flow(flow, space) for flow in flows]


def balanced(
    prompts: Sequence[Prompt], flows: Sequence[Candidate], *, per_prompt: int, seed: int
) -> Iterator[tuple[Prompt, Candidate]]:
    """Pairs of prompt and workflow, `per_prompt` for each prompt, prompts in a fixed shuffle."""
    used: Counter[str] = Counter()
    used_in: Counter[tuple[str, str]] = Counter()
    for prompt in sorted(prompts, key=lambda p: share(p.text, f"order {seed}")):
        ranked = sorted(
            flows,
            key=lambda f: (
                used_in[prompt.category, f.key],
                used[f.key],
                share(f"{prompt.text}\x1f{f.key}", f"tie {seed}"),
            ),
        )
        # Variety within the prompt is bought among equally used workflows only, for balance comes first.
        edge = used_in[prompt.category, ranked[:per_prompt][-1].key]
        due = [f for f in ranked[:per_prompt] if used_in[prompt.category, f.key] < edge]
        equal = [f for f in ranked[: 2 * per_prompt] if used_in[prompt.category, f.key] == edge]
        for flow in _varied(due, equal, per_prompt):
            used[flow.key] += 1
            used_in[prompt.category, flow.key] += 1
            yield prompt, flow


def _varied(due: Sequence[Candidate], pool: Sequence[Candidate], count: int) -> list[Candidate]:
    """`count` workflows: all that are due, then of the pool always the one whose tokens were met
    least so far; earlier ones win ties."""
    chosen, left = list(due), list(pool)
    met = Counter(token for flow in due for token in set(flow.tokens))
    while left and len(chosen) < count:
        best = min(left, key=lambda flow: sum(met[token] for token in set(flow.tokens)) / len(flow.tokens))
        left.remove(best)
        chosen.append(best)
        met.update(set(best.tokens))
    return chosen


def designed_rows(
    designs: Iterable[tuple[Prompt, Sequence[str]]], space: Space, *, engine: str, seeds: int, seed: int
) -> pd.DataFrame:
    """`planned_rows` of designs as words, each with its prompt."""
    of_words = cache(partial(Candidate.of, space=space))  # many prompts have the same design
    return planned_rows(
        [(prompt, of_words(tuple(words))) for prompt, words in designs],
        engine=engine,
        catalog_hash=space.catalog.hash,
        seeds=seeds,
        seed=seed,
    )


def planned_rows(
    pairs: Iterable[tuple[Prompt, Candidate]],
    *,
    engine: str,
    catalog_hash: str,
    seeds: int,
    seed: int,
    repeated: float = 0.0,
) -> pd.DataFrame:
    """The plan as rows without results, one per pair and seed (see `datasets.rows.COLUMNS`).

    A share `repeated` of the prompts, by hash of their text, has one seed more for all their workflows.

    Every prompt's first workflow comes before any prompt's second: an engine keeps what its latest
    workflows computed, and workflows of one prompt and seed in a row would borrow from each other, so
    that their seconds would be too short.
    """
    records = []
    for prompt, flow in pairs:
        for index in range(seeds + (share(prompt.text, "repeated") < repeated)):
            noise = int(text_hash(f"{seed} {index} {prompt.text}")[:12], 16)
            records.append(
                {
                    "row_id": row_id(engine, flow.key, prompt.text, noise),
                    "prompt": prompt.text,
                    "prompt_hash": text_hash(prompt.text),
                    "category": prompt.category,
                    "prompt_split": prompt.split,
                    "workflow_split": workflow_split(flow.key),
                    "workflow_key": flow.key,
                    "workflow": flow.text,
                    "tokens": " ".join(flow.tokens),
                    "seed": noise,
                    "engine": engine,
                    "catalog_hash": catalog_hash,
                }
            )
    rows = pd.DataFrame.from_records(records)
    turn = rows.groupby("prompt").cumcount()
    return rows.iloc[turn.argsort(kind="stable")].reset_index(drop=True)
