"""The space of workflows that may be designed: an allow-list of what is installed.

A TOML file names node classes, the values of their inputs (the first is the default), text snippets
and limits; a catalog says what of that exists. What the catalog lacks is left out and listed in
`Space.missing`, what then cannot be fed in `Space.unfed`, so a design can only use models that are really
installed. Inputs that the file does not name keep the catalog's default; a class that needs one which has
none is left out and listed in `Space.unset`. Every choice gets one word of a closed vocabulary:

    KSampler           a node of that class (`Class#2`: feeding from its second output of the type)
    steps=12           an input's value, left out where it is the default
    CLIP@2             the second latest output of that type, instead of a new node
    none               an optional link that stays empty
    <end>              the end
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from flowtailor.errors import FlowtailorError

from .catalog import Catalog
from .rules import END, NONE, LinkNeed, Param, Producer, Rule, quote
from .space_file import RulesReader

STUDIO_SPACE = Path(__file__).parent / "space.toml"
_MISSING_TOLD = 5  # in an error; a whole folder of models may be gone


class OutOfSpace(FlowtailorError):
    """A workflow or a value that the space does not hold."""


class Space:
    """Rules, groups and vocabulary. Immutable; built by `load`."""

    def __init__(self, text: str, catalog: Catalog, source: str) -> None:
        """text: of a space file; source: its name, for messages."""
        try:
            spec = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise FlowtailorError(f"{source}: not valid TOML ({error}); mend the line it names") from None
        self.text, self.catalog, self.source = text, catalog, source
        reader = RulesReader(spec, catalog, source)
        self.max_nodes: int = spec.get("max_nodes", 24)
        self.rules: Mapping[str, Rule] = MappingProxyType(reader.rules())
        self.missing: tuple[str, ...] = tuple(reader.missing)
        self.unfed: Mapping[str, str] = MappingProxyType(reader.unfed)
        self.unset: Mapping[str, str] = MappingProxyType(reader.unset)
        self.output: str = spec.get("output", "SaveImage")
        if self.output not in self.rules:
            raise FlowtailorError(f"{source}: output {self.output!r} {self._why_no_output(spec)}")
        self.groups = reader.groups()
        self.producers: Mapping[str, Mapping[str, Producer]] = self._producers()
        self.refs: Mapping[str, tuple[str, int]] = self._refs()
        self.vocabulary: tuple[str, ...] = self._vocabulary()

    @classmethod
    def load(cls, path: str | Path, catalog: Catalog) -> Space:
        """Read a space from TOML, within what `catalog` says is installed."""
        try:
            return cls(Path(path).read_text(encoding="utf-8"), catalog, Path(path).name)
        except FileNotFoundError:
            raise FlowtailorError(
                f"{path}: no such space file; `flowtailor catalog` writes one, the studio's is {STUDIO_SPACE}"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise FlowtailorError(f"{path}: cannot be read as a space file ({error})") from None

    @classmethod
    def default(cls, catalog: Catalog) -> Space:
        """The space that ships with flowtailor, made for the studio's models."""
        return cls.load(STUDIO_SPACE, catalog)

    def accepts_class(self, need: LinkNeed, word: str) -> Producer | None:
        """The producer that a class word means for `need`; None where the types do not fit."""
        by_type = self.producers.get(word)
        if by_type is None:
            return None
        return next((by_type[t] for t in need.accepts if t in by_type), None)

    def answers(self, need: Param | LinkNeed, word: str, available: int) -> bool:
        """Whether `word` answers `need`, where `available` outputs of its types exist."""
        if isinstance(need, Param):
            return word in need.tokens
        if word in self.refs:
            label, index = self.refs[word]
            return label == need.label and index <= available
        return (need.optional and word == NONE) or self.accepts_class(need, word) is not None

    def why_not(self, class_type: str) -> str:
        """Why the space has no node of a class, and the remedy."""
        for lack in self.missing:
            if lack == class_type or lack.startswith(f"{class_type}."):
                return f"the engine lacks {lack}; install it"
        if class_type in self.unset:
            name = self.unset[class_type]
            return f"its {name} has no default that the engine takes; give it under [nodes.{class_type}]"
        if class_type in self.unfed:
            return f"nothing in the space makes its {self.unfed[class_type]}; add what does"
        return f"the space has no node {class_type}; add [nodes.{class_type}]"

    def _why_no_output(self, spec: Mapping[str, Any]) -> str:
        """The rule that the output class breaks, and the remedy."""
        if self.output not in spec.get("nodes", {}):
            return f"must be one of its nodes; add [nodes.{self.output}]"
        if self.unset and not self.missing:
            class_type = next(iter(self.unset))
            return f"cannot be made, {class_type} is left out: {self.why_not(class_type)}"
        if not self.missing:
            return "must be fed by its nodes; add those that lead to it, beginning with a loader"
        told = ", ".join(self.missing[:_MISSING_TOLD]) + (
            ", ..." if len(self.missing) > _MISSING_TOLD else ""
        )
        return f"cannot be made with what is installed: the catalog lacks {told}; install it, or list others"

    def _producers(self) -> dict[str, dict[str, Producer]]:
        """Class word -> output type -> producer; `Class#k` is the k-th output of one type."""
        words: dict[str, dict[str, Producer]] = {}
        for rule in self.rules.values():
            seen: dict[str, int] = {}
            for slot, kind in enumerate(rule.outputs):
                seen[kind] = seen.get(kind, 0) + 1
                word = quote(rule.class_type) + (f"#{seen[kind]}" if seen[kind] > 1 else "")
                words.setdefault(word, {})[kind] = Producer(rule.class_type, slot)
        return words

    def _refs(self) -> dict[str, tuple[str, int]]:
        """Reference word -> (label, how far back): as far as the limits let outputs of a type pile up."""
        reach: dict[str, int] = {}
        for link in (link for rule in self.rules.values() for link in rule.links):
            reach[link.label] = max(reach.get(link.label, 0), self._most_outputs(frozenset(link.accepts)))
        return {f"{label}@{k}": (label, k) for label, most in reach.items() for k in range(1, most + 1)}

    def _most_outputs(self, types: frozenset[str]) -> int:
        """How many outputs of `types` one workflow can hold within its limits."""
        each = {name: sum(kind in types for kind in rule.outputs) for name, rule in self.rules.items()}
        grouped = {c: group for group in self.groups for c in group.classes}
        if any(count and name not in grouped for name, count in each.items()):
            return self.max_nodes
        most = sum(
            max((each.get(c, 0) for c in group.classes), default=0) * group.limit for group in self.groups
        )
        return min(most, self.max_nodes)

    def _vocabulary(self) -> tuple[str, ...]:
        values = [w for rule in self.rules.values() for param in rule.params for w in param.tokens]
        optional = any(link.optional for rule in self.rules.values() for link in rule.links)
        return tuple(
            dict.fromkeys([*self.producers, *values, *self.refs, *([NONE] if optional else []), END])
        )
