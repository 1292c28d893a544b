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
    return _alike(_parts(left), _parts(right))


def likeness(left: Sequence[str], right: Sequence[str]) -> Likeness:
    """How alike the graphs are (node classes and links alone), and the values set on nodes of each class.

    A design with the structure of a known one and other values is a new setting; one whose structure is
    unknown is a new graph. Two workflows that set nothing have the same parameters.
    """
    graphs = ([token for token in tokens if "=" not in token] for tokens in (left, right))
    return Likeness(similarity(*graphs), _jaccard(_settings(left), _settings(right)))


class Known:
    """Workflows that were seen, and how near others are to them; each answer is worked out once."""

    def __init__(self, workflows: Iterable[Sequence[str]]) -> None:
        self._parts = {tuple(tokens): _parts(tokens) for tokens in workflows}
        self._answers: dict[tuple[str, ...], tuple[float, tuple[str, ...]]] = {}

    def nearest(self, tokens: Sequence[str]) -> tuple[float, tuple[str, ...]]:
        """Similarity to the most similar workflow (the first of equals), and its tokens; (0.0, ()) where
        none was seen."""
        asked = tuple(tokens)
        if asked not in self._answers:
            mine, best = _parts(asked), (-1.0, ())
            for known, parts in self._parts.items():
                value = _alike(mine, parts)
                best = (value, known) if value > best[0] else best
            self._answers[asked] = best if best[1] else (0.0, ())
        return self._answers[asked]


def _parts(tokens: Sequence[str]) -> tuple[Counter[str], Counter[tuple[str, str]]]:
    """Single tokens, and neighbours; the borders count as such, so that a single token has structure too."""
    return Counter(tokens), Counter(zip(("", *tokens), (*tokens, ""), strict=True))


def _alike(left: tuple[Counter, Counter], right: tuple[Counter, Counter]) -> float:
    return (_jaccard(left[0], right[0]) + _jaccard(left[1], right[1])) / 2


def _settings(tokens: Sequence[str]) -> Counter[str]:
    """Each value with the node class that it is set on."""
    return Counter(part for part in components(tokens) if "=" in part)


def _jaccard(left: Counter, right: Counter) -> float:
    union = (left | right).total()
    return (left & right).total() / union if union else 1.0
