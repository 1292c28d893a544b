"""Markdown, as the dataset cards, studies and benchmarks write it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

WIDTH = 120  # columns of a paragraph
RULES = {"l": "---", "c": ":---:", "r": "---:"}


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], align: str = "l") -> str:
    """A table, its lines joined; a bar within a cell stays part of the text.

    align: l, c or r for each column; the last letter holds for the columns that follow.
    """
    rule = [RULES[letter] for letter in align.ljust(len(head), align[-1])]
    return "\n".join(_line(cells) for cells in (head, rule, *rows))


def filled(paragraph: str) -> str:
    """A paragraph of text in lines of at most WIDTH columns; a table, heading or picture as it is."""
    if paragraph.startswith(("|", "#", "!")):
        return paragraph
    return textwrap.fill(paragraph, WIDTH, break_long_words=False, break_on_hyphens=False)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"
