"""More workflows from a few: seeded edits that stay valid and within the space.

Three kinds of edit, all driven by types, so that a new node class needs no code here:
- swap: another value for an input (model, LoRA, sampler, scheduler, steps, cfg, size, text), the
  likelier the oftener the flows have the old value and the seldomer the new one, so that all are seen;
- block: insert or drop a node that passes a type through (a LoRA, a model patch, a second sampling
  pass, an upscaler, a post-processing step), wired to what the flow already has;
- recombine: feed an input with the part of another flow that makes the same type.
A flow that comes out of the space or over its limits is thrown away.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from flowtailor.errors import FlowtailorError

from .codec import encode
from .grammar import Grammar
from .graph import Link, Node, Workflow, WorkflowError
from .rules import LinkNeed, Param, Rule, quote
from .space import OutOfSpace, Space

ATTEMPTS_PER_FLOW = 200
TRIES_PER_FLOW = 6  # of which the one with the rarest values is taken


def augment(
    seeds: Sequence[Workflow], space: Space, n: int, seed: int = 0, max_tokens: int = 64
) -> list[Workflow]:
    """`n` distinct canonical workflows: the seeds that the space holds, then edits of them.

    By turns a new flow is a seed with another checkpoint, as long as there are such, and any flow of the pool
    after one to three edits. Which model suits a prompt shows only in workflows that are good otherwise, as
    people's are; the edits go far afield. Of six tries the one is taken whose values the pool has seldomest.
    The same arguments give the same list. Raises FlowtailorError where the space is too small for `n`.
    """
    editor = _Editor(space, Grammar(space, max_tokens), random.Random(seed))
    pool: dict[str, Workflow] = {}

    def add(flow: Workflow) -> None:
        if flow.key not in pool:
            pool[flow.key] = flow
            editor.count(flow)

    for flow in seeds:
        canonical = flow.canonical(space.catalog)
        if editor.holds(canonical):
            add(canonical)
    if not pool:
        raise FlowtailorError(
            f"{space.source}: holds none of the {len(seeds)} seed workflows; set space.flows to "
            "a folder of yours, exported in API format, or widen the space"
        )
    known = list(pool.values())
    for turn in range(n * ATTEMPTS_PER_FLOW):
        if len(pool) >= n:
            return list(pool.values())[:n]
        if turn % 2 == 0:
            edited = [editor.with_other_model(known) for _ in range(TRIES_PER_FLOW)]
        else:
            edited = [editor.edit(list(pool.values())) for _ in range(TRIES_PER_FLOW)]
        if flows := [flow for flow in edited if flow is not None and flow.key not in pool]:
            add(min(flows, key=editor.commonness))
    raise FlowtailorError(f"{n} workflows asked for, but {space.source} gave only {len(pool)}; ask for fewer")


def variants(
    flows: Sequence[Workflow], space: Space, tries: int, seed: int = 0, max_tokens: int = 64
) -> list[Workflow]:
    """The distinct canonical workflows that come out of `tries` times one to three edits of any of `flows`.

    Some tries end outside the space or where another did. The same arguments give the same list.
    """
    editor = _Editor(space, Grammar(space, max_tokens), random.Random(seed))
    edited = (editor.edit(flows) for _ in range(tries))
    known = {flow.key for flow in flows}
    return list({flow.key: flow for flow in edited if flow is not None and flow.key not in known}.values())


def including(flow: Workflow, word: str, grammar: Grammar, *, seed: int = 0) -> Workflow | None:
    """The flow with the value or the node class that `word` says.

    A value takes the place of another, or comes in a node that is put in for it. A loader, which has no links
    to be put on, takes the place of what feeds a link, or comes with a node that it feeds. The same arguments
    give the same flow; None where no place for the word was found.
    """
    space = grammar.space
    editor = _Editor(space, grammar, random.Random(seed))
    taking = [r for r in space.rules.values() if quote(r.class_type) == word or _takes(r, word)]
    loaded = {kind for rule in taking if not rule.links for kind in rule.outputs}
    fed = [r for r in space.rules.values() if any(loaded & set(link.accepts) for link in r.links)]
    for _ in range(ATTEMPTS_PER_FLOW):
        changed = editor.say(flow, word)
        if changed is None:
            longer = editor.load(flow, taking) or editor.insert(flow, [*taking, *fed])
            changed = longer and (editor.say(longer, word) or longer)
        if changed is None:
            continue
        canonical = changed.canonical(space.catalog)
        if editor.holds(canonical) and word in encode(canonical, space):
            return canonical
    return None


def _takes(rule: Rule, word: str) -> bool:
    return any(word in param.tokens for param in rule.params)


@dataclass
class _Editor:
    space: Space
    grammar: Grammar
    rng: random.Random
    met: Counter[tuple[str, str, Any]] = field(default_factory=Counter)  # class, input and its value

    def count(self, flow: Workflow) -> None:
        """Take note of a flow's values, which swaps then avoid."""
        for node in flow.nodes.values():
            for param in self._rule(node).params:
                self.met[node.class_type, param.name, node.inputs[param.name]] += 1

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
        rare = [1 / (1 + self.met[node.class_type, param.name, v]) for v in values]
        return flow.with_inputs({node_id: {param.name: self.rng.choices(values, rare)[0]}})

    def commonness(self, flow: Workflow) -> float:
        """The mean of `_times_its_share` over all values of a flow."""
        shares = [self._times_its_share(n, p) for n in flow.nodes.values() for p in self._rule(n).params]
        return sum(shares) / max(1, len(shares))

    def _times_its_share(self, node: Node, param: Param) -> float:
        """How many times as often as its even share the node's value was met; 1 where nothing was."""
        met = [1 + self.met[node.class_type, param.name, value] for value in param.values]
        mine = 1 + self.met[node.class_type, param.name, node.inputs[param.name]]
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
        moved = {f"other-{i}": _moved(n) for i, n in other.nodes.items()}
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


def _moved(node: Node) -> Node:
    inputs = {
        k: Link(f"other-{v.node}", v.slot) if isinstance(v, Link) else v for k, v in node.inputs.items()
    }
    return Node(node.class_type, inputs)


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
