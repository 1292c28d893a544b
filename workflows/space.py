"""The space of workflows that may be designed: an allow-list of what is installed.

A TOML file names node classes, the values of their inputs (the first is the default), text snippets
and limits; a catalog says what of that exists. What the catalog lacks is left out and listed in
`Space.missing`, so a design can only use models that are really installed. Inputs that the file does
not name keep the catalog's default. Every choice gets one word of a closed vocabulary:

    KSampler           a node of that class (`Class#2`: feeding from its second output of the type)
    steps=12           an input's value, left out where it is the default
    CLIP@2             the second latest output of that type, instead of a new node
    none               an optional link that stays empty
    <end>              the end
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from flowtailor.errors import FlowtailorError

from .catalog import COMBO, Catalog, InputSpec, NodeSpec
from .graph import FILENAME, SEED

END = "<end>"
NONE = "none"
ALL_INSTALLED = "*"
STUDIO_SPACE = Path(__file__).parent / "space.toml"


class OutOfSpace(FlowtailorError):
    """A workflow or a value that the space does not hold."""


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


class Space:
    """Rules, groups and vocabulary. Immutable; built by `load`."""

    def __init__(self, spec: Mapping[str, Any], catalog: Catalog, source: str) -> None:
        self.catalog = catalog
        self.source = source
        missing: list[str] = []
        self.texts: Mapping[str, str] = MappingProxyType(dict(spec.get("texts", {})))
        self.max_nodes = int(spec.get("max_nodes", 24))
        reader = _Reader(spec, catalog, self.texts, source, missing)
        self.rules: Mapping[str, Rule] = MappingProxyType(reader.rules())
        self.missing: tuple[str, ...] = tuple(missing)
        self.output = str(spec.get("output", "SaveImage"))
        if self.output not in self.rules:
            raise FlowtailorError(
                f"{source}: output {self.output!r} must be one of its nodes; add [nodes.{self.output}]"
            )
        self.groups = tuple(
            Group(frozenset(g["classes"]), int(g["max"])) for g in spec.get("groups", {}).values()
        )
        self.producers: Mapping[str, Mapping[str, Producer]] = self._producers()
        self.refs: Mapping[str, tuple[str, int]] = self._refs()
        self.vocabulary: tuple[str, ...] = self._vocabulary()

    @classmethod
    def load(cls, path: str | Path, catalog: Catalog) -> Space:
        """Read a space from TOML, within what `catalog` says is installed."""
        file = Path(path)
        try:
            return cls(tomllib.loads(file.read_text()), catalog, file.name)
        except FileNotFoundError:
            raise FlowtailorError(
                f"{file}: no such space file; start from a copy of {STUDIO_SPACE}"
            ) from None
        except tomllib.TOMLDecodeError as error:
            raise FlowtailorError(f"{file}: not valid TOML ({error}); mend the line it names") from None

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


def quote(text: str) -> str:
    """A word without white space, reversible by eye: spaces as `%20`."""
    return "".join(c if not c.isspace() and c != "%" else f"%{ord(c):02X}" for c in text)


def value_word(name: str, value: Any) -> str:
    """The word of an input's value: `steps=12`, `cfg=1.5`, `sampler_name=euler`."""
    if isinstance(value, bool):
        return f"{name}={str(value).lower()}"
    return f"{name}={value:g}" if isinstance(value, int | float) else f"{name}={quote(str(value))}"


class _Reader:
    """Turns the TOML's tables into rules; collects what the catalog lacks."""

    def __init__(
        self,
        spec: Mapping[str, Any],
        catalog: Catalog,
        texts: Mapping[str, str],
        source: str,
        missing: list[str],
    ) -> None:
        self.spec, self.catalog, self.texts, self.source, self.missing = spec, catalog, texts, source, missing
        self.types: Mapping[str, str] = spec.get("types", {})
        self.accepts: Mapping[str, Sequence[str]] = spec.get("accepts", {})

    def rules(self) -> dict[str, Rule]:
        rules: dict[str, Rule] = {}
        for class_type, table in self.spec.get("nodes", {}).items():
            if class_type not in self.catalog:
                self.missing.append(class_type)
            elif (rule := self._rule(self.catalog[class_type], table)) is not None:
                rules[class_type] = rule
        return _reachable(rules)

    def _rule(self, node: NodeSpec, table: Mapping[str, Any]) -> Rule | None:
        for name in table:
            if name not in node.inputs and name != "links":
                raise FlowtailorError(
                    f"{self.source}: {node.class_type} has no input {name!r}; it has {', '.join(node.inputs)}"
                )
        fixed: dict[str, Any] = {}
        params: list[Param] = []
        links: list[InputSpec] = []
        for spec in node.inputs.values():
            if spec.is_link:
                if spec.required or spec.name in table.get("links", ()):
                    links.append(spec)
            elif spec.name in table:
                values = self._values(node, spec, table[spec.name])
                if not values:
                    self.missing.append(f"{node.class_type}.{spec.name}")
                    return None
                if len(values) == 1:
                    fixed[spec.name] = next(iter(values.values()))
                else:
                    (_, default), *rest = values.items()
                    params.append(Param(spec.name, default, MappingProxyType(dict(rest))))
            elif spec.required:
                fixed[spec.name] = _slot_or_default(node, spec)
        return Rule(node.class_type, fixed, tuple(params), self._links(node, links), self._outputs(node))

    def _values(self, node: NodeSpec, spec: InputSpec, listed: Any) -> dict[str, Any]:
        """Word -> value, default first, of what the TOML lists and the catalog has."""
        items: Iterable[Any] = listed if isinstance(listed, list) else [listed]
        values: dict[str, Any] = {}
        for item in items:
            if item == ALL_INSTALLED and spec.type == COMBO:
                values.update(
                    {value_word(spec.name, c): c for c in spec.choices or () if c not in values.values()}
                )
            elif spec.type == COMBO:
                if item in (spec.choices or ()):
                    values[value_word(spec.name, item)] = item
                else:
                    self.missing.append(f"{node.class_type}.{spec.name} = {item}")
            elif spec.type == "STRING":
                if item not in self.texts:
                    where = f"{self.source}: {node.class_type}.{spec.name} = {item!r}"
                    raise FlowtailorError(f"{where}: no such text; add it to [texts]")
                values[value_word(spec.name, item)] = self.texts[item]
            else:
                values[value_word(spec.name, item)] = self._number(node, spec, item)
        return values

    def _number(self, node: NodeSpec, spec: InputSpec, item: Any) -> Any:
        where = f"{self.source}: {node.class_type}.{spec.name} = {item!r}"
        kinds = {"INT": (int, int), "FLOAT": ((int, float), float), "BOOLEAN": (bool, bool)}
        allowed, convert = kinds[spec.type]
        if not isinstance(item, allowed) or (isinstance(item, bool) and spec.type != "BOOLEAN"):
            raise FlowtailorError(f"{where}: must be {spec.type}")
        low, high = spec.options.get("min"), spec.options.get("max")
        if (low is not None and item < low) or (high is not None and item > high):
            raise FlowtailorError(f"{where}: must be between {low} and {high}")
        return convert(item)

    def _links(self, node: NodeSpec, specs: Sequence[InputSpec]) -> tuple[LinkNeed, ...]:
        accepts = [tuple(self.accepts.get(f"{node.class_type}.{s.name}", (s.type,))) for s in specs]
        return tuple(
            LinkNeed(s.name, accepts[i], offset=accepts[i:].count(accepts[i]), optional=not s.required)
            for i, s in enumerate(specs)
        )

    def _outputs(self, node: NodeSpec) -> tuple[str, ...]:
        return tuple(self.types.get(f"{node.class_type}.{kind}", kind) for kind in node.outputs)


def _slot_or_default(node: NodeSpec, spec: InputSpec) -> Any:
    if spec.is_seed:
        return SEED
    if node.is_output and spec.name == "filename_prefix":
        return FILENAME
    return spec.default


def _reachable(rules: dict[str, Rule]) -> dict[str, Rule]:
    """Without the classes whose required links nothing in the space can feed."""
    while True:
        made = {kind for rule in rules.values() for kind in rule.outputs}
        kept = {
            name: rule
            for name, rule in rules.items()
            if all(link.optional or made & set(link.accepts) for link in rule.links)
        }
        if len(kept) == len(rules):
            return kept
        rules = kept
