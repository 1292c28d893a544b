"""How alike two workflows are, from their tokens: how near a design is to what was seen in training.

Promises a number in [0, 1], symmetric, 1 for equal token sequences. Knows nothing of what the
pictures look like: two samplers that draw the same picture are still two samplers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .components import components


class Likeness(NamedTuple):
    """Two sides of a similarity, each in [0, 1]."""

    structure: float
    parameters: float


def similarity(left: Sequence[str], right: Sequence[str]) -> float:
    """Mean of two multiset Jaccard indices: of single tokens (parts) and of neighbours (structure)."""
    return (_jaccard(Counter(left), Counter(right)) + _jaccard(_neighbours(left), _neighbours(right))) / 2


def likeness(left: Sequence[str], right: Sequence[str]) -> Likeness:
    """How alike the graphs are (node classes and links alone), and the values set on nodes of each class.

    A design with the structure of a known one and other values is a new setting; one whose structure is
    unknown is a new graph. Two workflows that set nothing have the same parameters.
    """
    graphs = ([token for token in tokens if "=" not in token] for tokens in (left, right))
    return Likeness(similarity(*graphs), _jaccard(_settings(left), _settings(right)))


def nearest(tokens: Sequence[str], known: Iterable[Sequence[str]]) -> tuple[float, int]:
    """Similarity to, and index of, the most similar of `known` (the first of equals); (0.0, -1) if empty."""
    best, best_index = 0.0, -1
    for index, other in enumerate(known):
        value = similarity(tokens, other)
        if value > best or best_index < 0:
            best, best_index = value, index
    return best, best_index


def _neighbours(tokens: Sequence[str]) -> Counter[tuple[str, str]]:
    # The borders count as neighbours, so that a single token has structure too.
    return Counter(zip(("", *tokens), (*tokens, ""), strict=True))


def _settings(tokens: Sequence[str]) -> Counter[str]:
    """Each value with the node class that it is set on."""
    return Counter(part for part in components(tokens) if "=" in part)


def _jaccard(left: Counter, right: Counter) -> float:
    union = (left | right).total()
    return (left & right).total() / union if union else 1.0
