"""The grammar of designs: which word may come next, such that every design validates and ends.

A design is the graph written from its output back: a node, the values of its inputs, then what feeds
its links, each before the next. The next word answers the first open need that it fits; needs passed
over on the way take their default. `Grammar` offers a word only if what it opens can still be closed
within the limits on tokens, nodes and groups, so it never runs into a dead end.

Links follow types and nodes still open are never referred to, so there is no cycle, and nothing
unused. What a node checks only while it runs (tensor shapes) must be told by the space's finer types.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from operator import le
from typing import Any

from flowtailor.errors import FlowtailorError

from .graph import Link, Node, Workflow
from .space import END, NONE, LinkNeed, Param, Rule, Space

Spent = tuple[int, ...]
"""What a design uses of the limits: its nodes, then one count a group."""


@dataclass(frozen=True, slots=True)
class Output:
    """Output `slot` of a finished node."""

    type: str
    node: int
    slot: int


@dataclass(frozen=True, slots=True)
class Frame:
    """An open node: which of its needs comes next."""

    node: int
    position: int


@dataclass(frozen=True, slots=True)
class BuiltNode:
    class_type: str
    inputs: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class State:
    """A design in the making. `tokens` counts the words so far, `<end>` included."""

    frames: tuple[Frame, ...]
    nodes: tuple[BuiltNode, ...]
    spent: Spent
    outputs: tuple[Output, ...] = ()
    tokens: int = 0
    done: bool = False


class Grammar:
    """A state machine over the ids of `space.vocabulary`."""

    def __init__(self, space: Space, max_tokens: int | None = 64) -> None:
        """`max_tokens`: longest design, `<end>` included; None lifts every limit (for decoding)."""
        self.space = space
        self.vocabulary = space.vocabulary
        self.ids = {word: i for i, word in enumerate(self.vocabulary)}
        self.end_id = self.ids[END]
        self._max_tokens = max_tokens
        self._limits: Spent = (space.max_nodes, *(group.limit for group in space.groups))
        self._spend = {c: (1, *(int(c in group.classes) for group in space.groups)) for c in space.rules}
        self._plan = _cheapest_producers(space)
        self._closing_node = lru_cache(maxsize=None)(self._closing_node_uncached)
        self._allowed_cache: dict[Any, tuple[int, ...]] = {}
        if not self._fits(self.start(), 0):
            raise FlowtailorError(
                f"max_tokens = {max_tokens}: no design in {space.source} fits its limits; raise them"
            )

    def start(self) -> State:
        """The state before the first word: the output node is there, its needs are open."""
        root = self.space.output
        return State(frames=(Frame(0, 0),), nodes=(self._new_node(root),), spent=self._spend[root])

    def allowed(self, state: State) -> tuple[int, ...]:
        """Sorted ids that may come next; empty only when done."""
        if state.done:
            return ()
        key = self._signature(state)
        if key not in self._allowed_cache:
            self._allowed_cache[key] = tuple(sorted(self._compute_allowed(state)))
        return self._allowed_cache[key]

    def advance(self, state: State, token_id: int) -> State:
        """The state after a word. Raises ValueError where the word answers no open need."""
        word = self.vocabulary[token_id]
        for need, at in self._open_needs(state):
            if need is None:
                if word == END and not state.done:
                    return replace(at, tokens=state.tokens + 1, done=True)
            elif self.space.answers(need, word, self._available(at, need)):
                return replace(self._answer(at, need, word), tokens=state.tokens + 1)
        expected = " ".join(self.vocabulary[i] for i in self.allowed(state)[:12]) or "nothing after <end>"
        raise ValueError(f"word {word!r} fits no open need here; expected one of: {expected} ...")

    def sample(self, rng: random.Random) -> list[int]:
        """A random design: each word drawn evenly from those allowed. Ends with `<end>`."""
        state, ids = self.start(), []
        while not state.done:
            ids.append(rng.choice(self.allowed(state)))
            state = self.advance(state, ids[-1])
        return ids

    def replay(self, ids: Sequence[int]) -> list[tuple[int, ...]]:
        """The ids allowed before each word of a design."""
        state, sets = self.start(), []
        for token_id in ids:
            sets.append(self.allowed(state))
            state = self.advance(state, token_id)
        return sets

    def accepts(self, words: Sequence[str]) -> bool:
        """Whether the words are a design within the limits."""
        state = self.start()
        for word in words:
            if self.ids.get(word) not in self.allowed(state):
                return False
            state = self.advance(state, self.ids[word])
        return state.done

    def workflow(self, state: State) -> Workflow:
        """The canonical workflow of a finished design."""
        if not state.done:
            raise ValueError("the design has not ended")
        nodes = {str(i): Node(n.class_type, dict(n.inputs)) for i, n in enumerate(state.nodes)}
        return Workflow(nodes).canonical(self.space.catalog)

    # --- the machine -------------------------------------------------------------------------

    def _open_needs(self, state: State) -> Iterator[tuple[Param | LinkNeed | None, State]]:
        """The needs that the next word may answer, each with the state in which it would.

        A later need is reached by giving the earlier ones their default; None stands for the end.
        """
        while state.frames:
            frame = state.frames[-1]
            needs = self._rule(state, frame).needs
            if frame.position == len(needs):
                state = self._finish_node(state)
                continue
            need = needs[frame.position]
            yield need, state
            if isinstance(need, Param):
                state = self._fill(state, need.name, need.default)
                continue
            available = self._available(state, need)
            index = need.default_index(available)
            if index:
                state = self._fill(state, need.name, self._nth_latest(state, need, index))
            elif need.optional:
                state = self._skip(state)
            else:
                return
        yield None, state

    def _answer(self, state: State, need: Param | LinkNeed, word: str) -> State:
        if isinstance(need, Param):
            return self._fill(state, need.name, need.tokens[word])
        if word == NONE:
            return self._skip(state)
        if word in self.space.refs:
            return self._fill(state, need.name, self._nth_latest(state, need, self.space.refs[word][1]))
        producer = self.space.accepts_class(need, word)
        assert producer is not None, word
        new = len(state.nodes)
        state = self._fill(state, need.name, Link(str(new), producer.slot))
        return replace(
            state,
            frames=(*state.frames, Frame(new, 0)),
            nodes=(*state.nodes, self._new_node(producer.class_type)),
            spent=_add(state.spent, self._spend[producer.class_type]),
        )

    def _new_node(self, class_type: str) -> BuiltNode:
        return BuiltNode(class_type, tuple(self.space.rules[class_type].fixed.items()))

    def _rule(self, state: State, frame: Frame) -> Rule:
        return self.space.rules[state.nodes[frame.node].class_type]

    def _fill(self, state: State, name: str, value: Any) -> State:
        index = state.frames[-1].node
        node = state.nodes[index]
        filled = BuiltNode(node.class_type, (*node.inputs, (name, value)))
        state = replace(state, nodes=(*state.nodes[:index], filled, *state.nodes[index + 1 :]))
        return self._skip(state)

    @staticmethod
    def _skip(state: State) -> State:
        frame = state.frames[-1]
        return replace(state, frames=(*state.frames[:-1], Frame(frame.node, frame.position + 1)))

    def _finish_node(self, state: State) -> State:
        frame = state.frames[-1]
        kinds = self._rule(state, frame).outputs
        made = tuple(Output(kind, frame.node, slot) for slot, kind in enumerate(kinds))
        return replace(state, frames=state.frames[:-1], outputs=(*state.outputs, *made))

    @staticmethod
    def _available(state: State, need: Param | LinkNeed) -> int:
        if isinstance(need, Param):
            return 0
        return sum(output.type in need.accepts for output in state.outputs)

    @staticmethod
    def _nth_latest(state: State, need: LinkNeed, index: int) -> Link:
        fitting = [output for output in state.outputs if output.type in need.accepts]
        return Link(str(fitting[-index].node), fitting[-index].slot)

    # --- limits ------------------------------------------------------------------------------

    def _compute_allowed(self, state: State) -> set[int]:
        allowed: set[int] = set()
        taken: set[str] = set()
        for need, at in self._open_needs(state):
            if need is None:
                allowed.add(self.end_id)
                continue
            for words in self._candidates(need, self._available(at, need)):
                new = [word for word in words if word not in taken]
                # Words of one batch leave the same needs open, so one of them speaks for all.
                if new and self._fits(self._answer(at, need, new[0]), state.tokens + 1):
                    allowed.update(self.ids[word] for word in new)
                taken.update(new)
        return allowed

    def _candidates(self, need: Param | LinkNeed, available: int) -> Iterator[list[str]]:
        """The words that answer a need, in batches that open the same further needs."""
        if isinstance(need, Param):
            yield [*need.tokens]
            return
        yield [f"{need.label}@{k}" for k in range(1, available + 1)] + [NONE] * need.optional
        yield from ([word] for word in self.space.producers if self.space.accepts_class(need, word))

    def _fits(self, state: State, tokens: int) -> bool:
        """Whether the design can be ended within the limits from here, by the cheapest plan."""
        if self._max_tokens is None:
            return True
        spent = state.spent
        available = frozenset(output.type for output in state.outputs)
        for frame in reversed(state.frames):
            class_type = state.nodes[frame.node].class_type
            more, available = self._closing_node(class_type, frame.position, available)
            spent = _add(spent, more)
        new_nodes = spent[0] - state.spent[0]  # the plan spends one word a node, then <end>
        return tokens + new_nodes + 1 <= self._max_tokens and all(map(le, spent, self._limits))

    def _closing_node_uncached(
        self, class_type: str, position: int, available: frozenset[str]
    ) -> tuple[Spent, frozenset[str]]:
        """What ending this node spends from its need at `position` on, and the types there are then."""
        rule = self.space.rules[class_type]
        spent: Spent = (0,) * len(self._limits)
        for need in rule.needs[position:]:
            if isinstance(need, Param) or need.optional or available & set(need.accepts):
                continue
            cheapest = self._plan[need.accepts]
            more, available = self._closing_node(cheapest, 0, available)
            spent = _add(spent, more, self._spend[cheapest])
        return spent, available | set(rule.outputs)

    @staticmethod
    def _signature(state: State) -> Any:
        """What the allowed ids depend on: open nodes, limits spent, types of outputs, length."""
        open_nodes = tuple((state.nodes[f.node].class_type, f.position) for f in state.frames)
        return open_nodes, state.spent, tuple(sorted(o.type for o in state.outputs)), state.tokens


def _add(*counts: Spent) -> Spent:
    return tuple(map(sum, zip(*counts, strict=True)))


def _cheapest_producers(space: Space) -> dict[tuple[str, ...], str]:
    """For each set of types that a link accepts, the class that feeds it with the fewest nodes."""
    infinite = float("inf")
    cost: dict[str, float] = dict.fromkeys(space.rules, infinite)

    def link_cost(link: LinkNeed) -> float:
        return min(
            (cost[c] for c in space.rules if set(space.rules[c].outputs) & set(link.accepts)),
            default=infinite,
        )

    changed = True
    while changed:
        changed = False
        for name, rule in space.rules.items():
            new = 1 + sum(link_cost(link) for link in rule.links if not link.optional)
            if new < cost[name]:
                cost[name], changed = new, True
    plan: dict[tuple[str, ...], str] = {}
    for link in (link for rule in space.rules.values() for link in rule.links):
        fitting = [c for c in space.rules if set(space.rules[c].outputs) & set(link.accepts)]
        if fitting:
            plan[link.accepts] = min(fitting, key=cost.__getitem__)
    if cost[space.output] == infinite:
        raise FlowtailorError(
            f"{space.source}: nothing can feed {space.output}; add the nodes that lead to a picture"
        )
    return plan
