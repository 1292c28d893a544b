"""Edits of a workflow, drawn at random and driven by types, so that a new node class needs no code here.

- swap: another value for an input (model, LoRA, sampler, scheduler, steps, cfg, size, text), the
  likelier the oftener the flows have the old value and the seldomer the new one, so that all are seen;
- block: insert or drop a node that passes a type through (a LoRA, a model patch, a second sampling
  pass, an upscaler, a post-processing step), wired to what the flow already has;
- recombine: feed an input with the part of another flow that makes the same type.

Promises: `edit` and `with_other_model` give canonical flows that the space holds within its limits. Single
edits may leave either: see `holds`. It does not know which flows are good.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .codec import encode
from .grammar import Grammar
from .graph import Link, Node, Workflow, WorkflowError
from .rules import LinkNeed, Param, Rule
from .space import OutOfSpace, Space


@dataclass
class Editor:
    """Edits within a space, and what it has met of the values."""

    space: Space
    grammar: Grammar
    rng: random.Random
    met: Counter[tuple[str, str]] = field(default_factory=Counter)  # class, and input with its value

    def count(self, flow: Workflow) -> None:
        """Take note of a flow's values, which swaps then avoid."""
        for node in flow.nodes.values():
            for param in self._rule(node).params:
                self.met[_place(node, param, node.inputs[param.name])] += 1

    def holds(self, flow: Workflow) -> bool:
        """Whether the space holds a canonical flow within its limits."""
        try:
            return self.grammar.accepts(encode(flow, self.space))
        except (OutOfSpace, WorkflowError):
            return False

    def with_other_model(self, pool: Sequence[Workflow]) -> Workflow | None:
        """A pool member with another value of a node that makes a model from nothing, as loaders do."""
        changed = self.swap(self.rng.choice(pool), lambda rule: not rule.links and "MODEL" in rule.outputs)
        flow = changed and changed.canonical(self.space.catalog)
        return flow if flow and self.holds(flow) else None

    def edit(self, pool: Sequence[Workflow]) -> Workflow | None:
        """A pool member after one to three edits; None where the result is not allowed."""
        flow = self.rng.choice(pool)
        edits: list[Callable[[Workflow], Workflow | None]] = [self.swap, self.swap, self.insert, self.drop]
        for _ in range(self.rng.randint(1, 3)):
            change = self.rng.choice([*edits, lambda f: self.recombine(f, self.rng.choice(pool))])
            changed = change(flow)
            if changed is None:
                return None
            try:
                flow = changed.canonical(self.space.catalog)
            except WorkflowError:  # the edit closed a cycle
                return None
        return flow if self.holds(flow) else None

    def swap(self, flow: Workflow, of: Callable[[Rule], bool] = lambda rule: True) -> Workflow | None:
        """Another value for one input of one node, of a class that `of` accepts."""
        places = [(i, p) for i, n in flow.nodes.items() if of(self._rule(n)) for p in self._rule(n).params]
        if not places:
            return None
        common = [self._times_its_share(flow.nodes[i], p) for i, p in places]
        node_id, param = self.rng.choices(places, common)[0]
        node = flow.nodes[node_id]
        values = [v for v in param.values if v != node.inputs[param.name]]
        rare = [1 / (1 + self.met[_place(node, param, v)]) for v in values]
        return flow.with_inputs({node_id: {param.name: self.rng.choices(values, rare)[0]}})

    def commonness(self, flow: Workflow) -> float:
        """The mean of `_times_its_share` over all values of a flow."""
        shares = [self._times_its_share(n, p) for n in flow.nodes.values() for p in self._rule(n).params]
        return sum(shares) / max(1, len(shares))

    def _times_its_share(self, node: Node, param: Param) -> float:
        """How many times as often as its even share the node's value was met; 1 where nothing was."""
        met = [1 + self.met[_place(node, param, value)] for value in param.values]
        mine = 1 + self.met[_place(node, param, node.inputs[param.name])]
        return mine * len(met) / sum(met)

    def say(self, flow: Workflow, word: str) -> Workflow | None:
        """One input with the value that the word says."""
        places = [(i, p) for i, n in flow.nodes.items() for p in self._rule(n).params if word in p.tokens]
        if not places:
            return None
        node_id, param = self.rng.choice(places)
        return flow.with_inputs({node_id: {param.name: param.tokens[word]}})

    def insert(self, flow: Workflow, rules: Iterable[Rule] | None = None) -> Workflow | None:
        """Put a pass-through node (of `rules`) on one link, its other links fed by what the flow has."""
        node_id, need, link = self.rng.choice(self._edges(flow))
        source = self._rule(flow.nodes[link.node]).outputs[link.slot]
        among = self.space.rules.values() if rules is None else rules
        fitting = [(r, i) for r in among for i in _through(r, source, need)]
        if not fitting:
            return None
        rule, through = self.rng.choice(fitting)
        inputs = {**rule.fixed, **{p.name: self.rng.choice(p.values) for p in rule.params}}
        new_nodes: dict[str, Node] = {}
        for index, other in enumerate(rule.links):
            fed = link if index == through else self._feed(flow, node_id, other, new_nodes)
            if fed is None and not other.optional:
                return None
            if fed is not None:
                inputs[other.name] = fed
        slot = next(s for s, kind in enumerate(rule.outputs) if kind in need.accepts)
        new_id = _fresh(flow, new_nodes)
        new_nodes[new_id] = Node(rule.class_type, inputs)
        return Workflow({**flow.nodes, **new_nodes}).with_inputs({node_id: {need.name: Link(new_id, slot)}})

    def load(self, flow: Workflow, rules: Iterable[Rule]) -> Workflow | None:
        """Feed one link by a new node that needs no links, of `rules`, in place of what it had."""
        leaves = [rule for rule in rules if not rule.links]
        edges = self._edges(flow)
        fitting = [(i, need, r) for i, need, _ in edges for r in leaves if set(r.outputs) & set(need.accepts)]
        if not fitting:
            return None
        node_id, need, rule = self.rng.choice(fitting)
        new_nodes: dict[str, Node] = {}
        link = self._leaf(flow, rule, need, new_nodes)
        return Workflow({**flow.nodes, **new_nodes}).with_inputs({node_id: {need.name: link}})

    def drop(self, flow: Workflow) -> Workflow | None:
        """Take a pass-through node out: what it fed is fed by its own input."""
        node_id, need, link = self.rng.choice(self._edges(flow))
        dropped = flow.nodes[link.node]
        for other in self._rule(dropped).links:
            inner = dropped.inputs.get(other.name)
            if isinstance(inner, Link):
                made = self._rule(flow.nodes[inner.node]).outputs[inner.slot]
                if made in need.accepts:
                    return flow.with_inputs({node_id: {need.name: inner}})
        return None

    def recombine(self, flow: Workflow, other: Workflow) -> Workflow | None:
        """Feed one input by a part of another flow that makes the same type."""
        node_id, need, _ = self.rng.choice(self._edges(flow))
        parts = [e[2] for e in self._edges(other) if self._type(other, e[2]) in need.accepts]
        if not parts:
            return None
        part = self.rng.choice(parts)

        def move(value: Any) -> Any:
            return Link(f"other-{value.node}", value.slot) if isinstance(value, Link) else value

        moved = {f"other-{i}": n for i, n in other.map_values(move).nodes.items()}
        grafted = Workflow({**flow.nodes, **moved})
        return grafted.with_inputs({node_id: {need.name: Link(f"other-{part.node}", part.slot)}})

    def _rule(self, node: Node) -> Rule:
        return self.space.rules[node.class_type]

    def _type(self, flow: Workflow, link: Link) -> str:
        return self._rule(flow.nodes[link.node]).outputs[link.slot]

    def _edges(self, flow: Workflow) -> list[tuple[str, LinkNeed, Link]]:
        return [
            (node_id, need, node.inputs[need.name])
            for node_id, node in flow.nodes.items()
            for need in self._rule(node).links
            if need.name in node.inputs
        ]

    def _feed(self, flow: Workflow, before: str, need: LinkNeed, new_nodes: dict[str, Node]) -> Link | None:
        """An output for `need`: what feeds an input of that name elsewhere, else any of its type,
        else a new node that needs no links. Never one that depends on node `before`."""
        later = _dependents(flow, before)
        earlier = {i: n for i, n in flow.nodes.items() if i not in later}
        named = [n.inputs[need.name] for i, n in flow.nodes.items() if need.name in n.inputs and i != before]
        made = [Link(i, slot) for i, n in earlier.items() for slot in range(len(self._rule(n).outputs))]
        for links in ([link for link in named if link.node in earlier], made):
            fitting = [link for link in links if self._type(flow, link) in need.accepts]
            if fitting:
                return self.rng.choice(fitting)
        leaves = [r for r in self.space.rules.values() if not r.links and set(r.outputs) & set(need.accepts)]
        if not leaves:
            return None
        return self._leaf(flow, self.rng.choice(leaves), need, new_nodes)

    def _leaf(self, flow: Workflow, rule: Rule, need: LinkNeed, new_nodes: dict[str, Node]) -> Link:
        """A new node of a class without links, as what feeds `need`."""
        node_id = _fresh(flow, new_nodes)
        values = {p.name: self.rng.choice(p.values) for p in rule.params}
        new_nodes[node_id] = Node(rule.class_type, {**rule.fixed, **values})
        return Link(node_id, next(s for s, kind in enumerate(rule.outputs) if kind in need.accepts))


def _through(rule: Rule, source: str, need: LinkNeed) -> list[int]:
    """The links of a class through which `source` comes out as something that `need` accepts."""
    if not set(rule.outputs) & set(need.accepts):
        return []
    return [index for index, link in enumerate(rule.links) if source in link.accepts]


def _place(node: Node, param: Param, value: Any) -> tuple[str, str]:
    """What a value is counted under: as text, for a box has no hash."""
    return node.class_type, f"{param.name}={value!r}"


def _fresh(flow: Workflow, new_nodes: dict[str, Node]) -> str:
    return f"new-{len(flow.nodes) + len(new_nodes)}"


def _dependents(flow: Workflow, node_id: str) -> set[str]:
    """The node and all that is computed from it."""
    found = {node_id}
    grew = True
    while grew:
        more = {i for i, n in flow.nodes.items() if any(link.node in found for _, link in n.links())} - found
        found |= more
        grew = bool(more)
    return found
