"""What the space says of node classes: their inputs as needs, and the words that answer them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

END = "<end>"
NONE = "none"


@dataclass(frozen=True)
class Param:
    """An input with a value from a closed list; `tokens` maps each word but the default's."""

    name: str
    default: Any
    tokens: Mapping[str, Any]

    @property
    def values(self) -> tuple[Any, ...]:
        return (self.default, *self.tokens.values())


@dataclass(frozen=True)
class LinkNeed:
    """An input fed by an earlier output of one of the types `accepts`.

    `offset`: where such outputs exist, the default is the offset-th latest; of n links of one type
    in a node the i-th defaults to the (n - i)-th latest, so that (positive, negative) fall in place.
    """

    name: str
    accepts: tuple[str, ...]
    offset: int
    optional: bool

    @property
    def label(self) -> str:
        return self.accepts[0]

    def default_index(self, available: int) -> int:
        """Which of `available` outputs, counted from the latest, an omitted token means; 0: none."""
        return 0 if self.optional else min(self.offset, available)


@dataclass(frozen=True)
class Rule:
    """How the space uses a node class: fixed inputs, then params, then links (in that order)."""

    class_type: str
    fixed: Mapping[str, Any]
    params: tuple[Param, ...]
    links: tuple[LinkNeed, ...]
    outputs: tuple[str, ...]

    @property
    def needs(self) -> tuple[Param | LinkNeed, ...]:
        return (*self.params, *self.links)


@dataclass(frozen=True)
class Group:
    """At most `limit` nodes of these classes in one workflow."""

    classes: frozenset[str]
    limit: int


@dataclass(frozen=True)
class Producer:
    """What a class word says: a new node of the class, read from output `slot`."""

    class_type: str
    slot: int


def quote(text: str) -> str:
    """A word without white space, reversible by eye: spaces as `%20`."""
    return "".join(c if not c.isspace() and c != "%" else f"%{ord(c):02X}" for c in text)


def value_word(name: str, value: Any) -> str:
    """The word of an input's value: `steps=12`, `cfg=1.5`, `sampler_name=euler`."""
    if isinstance(value, bool):
        return f"{name}={str(value).lower()}"
    if isinstance(value, int | float):
        short = f"{value:g}"
        return f"{name}={short if float(short) == value else value}"  # no two values in one word
    return f"{name}={quote(str(value))}"
