"""What the words of a workflow are about: node classes, and the settings and links of each node.

Knows words by their form alone, so that words of any space can be read.
"""

from __future__ import annotations

from collections.abc import Sequence

from .rules import END


def is_node(word: str) -> bool:
    """Whether a word names a node class, rather than a setting or a link."""
    return "=" not in word and "@" not in word


def owners(words: Sequence[str]) -> list[int]:
    """For each word the position of the node class it belongs to: itself, or the latest one before."""
    latest, places = 0, []
    for position, word in enumerate(words):
        latest = position if is_node(word) else latest
        places.append(latest)
    return places


def components(words: Sequence[str]) -> list[str]:
    """The parts of a workflow in their order, settings with their node: "KSampler", "KSampler steps=12"."""
    places = owners(words)
    return [
        word if is_node(word) else f"{words[owner]} {word}"
        for word, owner in zip(words, places, strict=True)
        if word != END
    ]
