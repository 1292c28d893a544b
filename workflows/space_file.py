"""Reading the `[nodes]` of a space file against a catalog.

Mistakes in the file are errors; what the file asks for and the engine lacks is left out and told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from flowtailor.errors import FlowtailorError

from .catalog import COMBO, Catalog, InputSpec, NodeSpec, unwrapped
from .graph import FILENAME, seed_slot
from .rules import Group, LinkNeed, Param, Rule, value_word

ALL_INSTALLED = "*"
FORMS = {
    "output": (str, "the name of a class, in quotes"),
    "max_nodes": (int, "a whole number"),
    **dict.fromkeys(("texts", "types", "accepts", "groups", "nodes"), (Mapping, "a table")),
}


class RulesReader:
    """Turns a space file's tables into rules.

    `missing` collects what the catalog lacks; `unfed` the classes left out because nothing in the space makes
    what they need, with its type; `unset` those that need a value which neither file nor catalog gives, with
    the input.
    """

    def __init__(self, spec: Mapping[str, Any], catalog: Catalog, source: str) -> None:
        self.spec, self.catalog, self.source = spec, catalog, source
        self.missing: list[str] = []
        self.unfed: dict[str, str] = {}
        self.unset: dict[str, str] = {}
        self.texts: Mapping[str, str] = spec.get("texts", {})
        self.types: Mapping[str, str] = spec.get("types", {})
        self.accepts: Mapping[str, Sequence[str]] = spec.get("accepts", {})
        self._check()

    def groups(self) -> tuple[Group, ...]:
        """The limits of `[groups]`."""
        return tuple(
            Group(frozenset(group["classes"]), group["max"]) for group in self.spec.get("groups", {}).values()
        )

    def _check(self) -> None:
        """A name that the file does not explain would lift a limit without a word."""
        if unknown := sorted(self.spec.keys() - FORMS.keys()):
            known = ", ".join(sorted(FORMS))
            raise FlowtailorError(f"{self.source}: no such key {unknown[0]!r}; it may have {known}")
        for key, (kind, wanted) in FORMS.items():
            if key in self.spec and not isinstance(self.spec[key], kind):
                raise FlowtailorError(f"{self.source}: {key} = {self.spec[key]!r}: must be {wanted}")
        for table, kind, wanted in (("nodes", Mapping, "a table"), ("texts", str, "a text, in quotes")):
            for name, value in self.spec.get(table, {}).items():
                if not isinstance(value, kind):
                    raise FlowtailorError(f"{self.source}: {table}.{name} = {value!r}: must be {wanted}")
        nodes = self.spec.get("nodes", {})
        for name, group in self.spec.get("groups", {}).items():
            where = f"{self.source}: groups.{name}"
            if not isinstance(group, Mapping) or group.keys() != {"classes", "max"}:
                raise FlowtailorError(f"{where}: must say `classes` and `max`, and nothing else")
            if not isinstance(group["max"], int) or group["max"] < 0:
                raise FlowtailorError(f"{where}.max = {group['max']!r}: must be a whole number, 0 or more")
            if strangers := sorted(set(group["classes"]) - nodes.keys()):
                raise FlowtailorError(f"{where}: {strangers[0]} is none of the file's nodes; see [nodes]")
        for table, kind in (("types", str), ("accepts", list)):
            for name, value in self.spec.get(table, {}).items():
                if not isinstance(value, kind):
                    wanted = "a list of types" if kind is list else "a type, in quotes"
                    raise FlowtailorError(f"{self.source}: {table}.{name!r} = {value!r}: must be {wanted}")
                if not self._explains(table, *name.rpartition(".")[::2]):  # a class may have dots
                    raise FlowtailorError(
                        f"{self.source}: {table}.{name!r}: none of its nodes has that; write Class.NAME"
                    )

    def _explains(self, table: str, class_type: str, name: str) -> bool:
        """Whether an input or an output type is there; of a class that is not installed nobody knows."""
        if class_type not in self.spec.get("nodes", {}):
            return False
        if class_type not in self.catalog:
            return True
        node = self.catalog[class_type]
        return name in (node.outputs if table == "types" else node.inputs)

    def rules(self) -> dict[str, Rule]:
        rules: dict[str, Rule] = {}
        barred = {c for group in self.groups() if group.limit == 0 for c in group.classes}
        for class_type, table in self.spec.get("nodes", {}).items():
            if class_type in barred:
                continue
            if class_type not in self.catalog:
                self.missing.append(class_type)
            elif (rule := self._rule(self.catalog[class_type], table)) is not None:
                rules[class_type] = rule
        kept = _reachable(rules)
        made = {kind for rule in kept.values() for kind in rule.outputs}
        self.unfed = {name: _unfed(rule, made)[0] for name, rule in rules.items() if name not in kept}
        return kept

    def _rule(self, node: NodeSpec, table: Mapping[str, Any]) -> Rule | None:
        for name in [*table, *table.get("links", ())]:
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
            elif (value := _slot_or_default(node, spec)) is not None:
                fixed[spec.name] = value
            elif spec.required:
                if spec.type == COMBO and not spec.choices:
                    self.missing.append(f"{node.class_type}.{spec.name}")
                else:
                    self.unset[node.class_type] = spec.name
                return None
        return Rule(node.class_type, fixed, tuple(params), self._links(node, links), self._outputs(node))

    def _values(self, node: NodeSpec, spec: InputSpec, listed: Any) -> dict[str, Any]:
        """Word -> value, default first, of what the TOML lists and the catalog has; equal ones once."""
        items: Iterable[Any] = listed if isinstance(listed, list) else [listed]
        values: dict[str, Any] = {}
        for item in items:
            if item == ALL_INSTALLED and spec.type == COMBO:
                for choice in spec.choices or ():
                    _add(values, spec, choice, choice)
            elif spec.type == COMBO:
                if spec.offers(unwrapped(item)):
                    _add(values, spec, item, item)
                else:
                    self.missing.append(f"{node.class_type}.{spec.name} = {item}")
            elif spec.type == "STRING":
                if item not in self.texts:
                    where = f"{self.source}: {node.class_type}.{spec.name} = {item!r}"
                    raise FlowtailorError(f"{where}: no such text; add it to [texts]")
                _add(values, spec, item, self.texts[item])
            else:
                _add(values, spec, item, self._checked(node, spec, item))
        return values

    def _checked(self, node: NodeSpec, spec: InputSpec, item: Any) -> Any:
        where = f"{self.source}: {node.class_type}.{spec.name} = {item!r}"
        kinds = {"INT": (int, int), "FLOAT": ((int, float), float), "BOOLEAN": (bool, bool)}
        if spec.type not in kinds:  # a colour or the like
            return item
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
        """What other nodes may read; SaveImage ends a design, though newer ones pass their picture on."""
        if node.is_output:
            return ()
        return tuple(self.types.get(f"{node.class_type}.{kind}", kind) for kind in node.outputs)


def _add(values: dict[str, Any], spec: InputSpec, item: Any, value: Any) -> None:
    """Add a value under its word, unless value or word is there: the first one stays the default."""
    if value not in values.values():
        values.setdefault(value_word(spec.name, item), value)


def _slot_or_default(node: NodeSpec, spec: InputSpec) -> Any:
    if spec.is_seed:
        return seed_slot(spec)
    if node.is_output and spec.name == "filename_prefix":
        return FILENAME
    return spec.sent_default


def _reachable(rules: dict[str, Rule]) -> dict[str, Rule]:
    """Without the classes whose required links nothing in the space can feed.

    Grown from the classes that need nothing: one that only feeds itself must not count as fed.
    """
    kept: set[str] = set()
    made: set[str] = set()
    while more := {name for name, rule in rules.items() if name not in kept and not _unfed(rule, made)}:
        kept |= more
        made |= {kind for name in more for kind in rules[name].outputs}
    return {name: rule for name, rule in rules.items() if name in kept}


def _unfed(rule: Rule, made: set[str]) -> list[str]:
    """The types of required links that none of `made` fits."""
    return [link.label for link in rule.links if not link.optional and not made & set(link.accepts)]
