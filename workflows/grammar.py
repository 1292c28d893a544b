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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

from flowtailor.errors import FlowtailorError

from .graph import Link, Node, Workflow
from .limits import MOST_STATES, Limits, OpenNodes, Spent, add
from .rules import END, NONE, LinkNeed, Param, Rule
from .space import Space


class Output(NamedTuple):
    """Output `slot` of a finished node."""

    type: str
    node: int
    slot: int


class Frame(NamedTuple):
    """An open node: which of its needs comes next."""

    node: int
    position: int


@dataclass(frozen=True, slots=True)
class State:
    """A design in the making. `tokens` counts the words so far, `<end>` included.

    `inputs` is a chain of (earlier inputs, node, name, value), the latest first: states share it, so
    that a step costs the same however long the design is.
    """

    frames: tuple[Frame, ...]
    nodes: tuple[str, ...]  # class of each node, in the order that they were opened
    inputs: tuple[Any, ...] | None
    outputs: tuple[Output, ...]
    spent: Spent
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
        self.limits = Limits(space, max_tokens)
        self._class_words = cache(self._class_words_uncached)
        self._allowed_cache: dict[Any, tuple[int, ...]] = {}
        start = self.start()
        if not self.limits.fits(self._open_nodes(start), frozenset(), start.spent, 0):
            raise FlowtailorError(
                f"max_tokens = {max_tokens}: no design in {space.source} fits its limits; raise them"
            )

    def start(self) -> State:
        """The state before the first word: the output node is there, its needs are open."""
        root = self.space.output
        return State((Frame(0, 0),), (root,), None, (), self.limits.spend[root])

    def allowed(self, state: State) -> tuple[int, ...]:
        """Sorted ids that may come next; empty only when done."""
        if state.done:
            return ()
        key = self._signature(state)
        if key not in self._allowed_cache:
            if len(self._allowed_cache) > MOST_STATES:
                self._allowed_cache.clear()
            self._allowed_cache[key] = tuple(sorted(self._compute_allowed(state)))
        return self._allowed_cache[key]

    def advance(self, state: State, token_id: int) -> State:
        """The state after a word. Raises ValueError where the word answers no open need."""
        word = self.vocabulary[token_id]
        for need, at in self._open_needs(state):
            if need is None:
                if word == END and not state.done:
                    return replace(at, tokens=at.tokens + 1, done=True)
            elif self.space.answers(need, word, self._available(at, need)):
                return self._answer(at, need, word)
        expected = " ".join(self.vocabulary[i] for i in self.allowed(state)[:12]) or "nothing after <end>"
        raise ValueError(f"word {word!r} fits no open need here; expected one of: {expected} ...")

    def sample(self, rng: random.Random) -> list[int]:
        """A random design: each word drawn evenly from those allowed. Ends with `<end>`."""
        state, ids = self.start(), []
        while not state.done:
            ids.append(rng.choice(self.allowed(state)))
            state = self.advance(state, ids[-1])
        return ids

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
        inputs = [dict(self.space.rules[class_type].fixed) for class_type in state.nodes]
        chain = state.inputs
        while chain is not None:
            chain, node, name, value = chain
            inputs[node][name] = value
        nodes = {str(i): Node(c, inputs[i]) for i, c in enumerate(state.nodes)}
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
        """The state after `word` has answered the need that is next."""
        if isinstance(need, Param):
            return self._fill(state, need.name, need.tokens[word], tokens=1)
        if word == NONE:
            return replace(self._skip(state), tokens=state.tokens + 1)
        if word in self.space.refs:
            index = self.space.refs[word][1]
            return self._fill(state, need.name, self._nth_latest(state, need, index), tokens=1)
        producer = self.space.accepts_class(need, word)
        assert producer is not None, word
        new = len(state.nodes)
        filled = self._fill(state, need.name, Link(str(new), producer.slot), tokens=1)
        return replace(
            filled,
            frames=(*filled.frames, Frame(new, 0)),
            nodes=(*state.nodes, producer.class_type),
            spent=add(state.spent, self.limits.spend[producer.class_type]),
        )

    def _rule(self, state: State, frame: Frame) -> Rule:
        return self.space.rules[state.nodes[frame.node]]

    @staticmethod
    def _fill(state: State, name: str, value: Any, tokens: int = 0) -> State:
        *outer, (node, position) = state.frames
        frames = (*outer, Frame(node, position + 1))
        inputs = (state.inputs, node, name, value)
        return State(frames, state.nodes, inputs, state.outputs, state.spent, state.tokens + tokens)

    @staticmethod
    def _skip(state: State) -> State:
        *outer, (node, position) = state.frames
        return replace(state, frames=(*outer, Frame(node, position + 1)))

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

    # --- what may come next ------------------------------------------------------------------

    def _compute_allowed(self, state: State) -> set[int]:
        allowed: set[int] = set()
        taken: set[str] = set()

        def offer(words: Iterable[str], fits: bool) -> None:
            new = [word for word in words if word not in taken]
            taken.update(new)
            if fits:
                allowed.update(self.ids[word] for word in new)

        for need, at in self._open_needs(state):
            if need is None:
                allowed.add(self.end_id)
                continue
            *outer, (class_type, position) = self._open_nodes(at)
            rest = (*outer, (class_type, position + 1))
            kinds = frozenset(output.type for output in at.outputs)
            offer(self._closed_words(need, at), self.limits.fits(rest, kinds, at.spent, at.tokens + 1))
            if isinstance(need, Param):
                continue
            for word, opened in self._class_words(need):
                spent = add(at.spent, self.limits.spend[opened])
                offer([word], self.limits.fits((*rest, (opened, 0)), kinds, spent, at.tokens + 1))
        return allowed

    def _closed_words(self, need: Param | LinkNeed, state: State) -> list[str]:
        """The words that answer a need without opening a node."""
        if isinstance(need, Param):
            return [*need.tokens]
        refs = (f"{need.label}@{k}" for k in range(1, self._available(state, need) + 1))
        # Where a design is read without limits, more may be open than there are words for.
        return [word for word in refs if word in self.ids] + [NONE] * need.optional

    def _class_words_uncached(self, need: LinkNeed) -> list[tuple[str, str]]:
        """The words that answer a need by a new node, with its class."""
        found = ((word, self.space.accepts_class(need, word)) for word in self.space.producers)
        return [(word, producer.class_type) for word, producer in found if producer]

    @staticmethod
    def _open_nodes(state: State) -> OpenNodes:
        return tuple((state.nodes[frame.node], frame.position) for frame in state.frames)

    def _signature(self, state: State) -> Any:
        """What the allowed ids depend on: open nodes, limits spent, types of outputs, length."""
        kinds = tuple(sorted(output.type for output in state.outputs))
        return self._open_nodes(state), state.spent, kinds, state.tokens
