"""Workflows as words and back, exact on canonical workflows within a space.

`decode(encode(w, space), space) == w.canonical(catalog)`. The words are those of `Space.vocabulary`
in the order that `Grammar` reads: from the output node back, defaults left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from .grammar import Grammar, Output
from .graph import Link, Node, Workflow
from .rules import END, NONE, LinkNeed, Param, Producer, Rule
from .space import OutOfSpace, Space


class DecodeError(OutOfSpace):
    """Words that are no design in the space."""


def decode(words: Sequence[str], space: Space) -> Workflow:
    """The canonical workflow that the words say; a missing `<end>` is added.

    Raises DecodeError that names the first wrong word.
    """
    grammar = _decoder(space)
    state = grammar.start()
    for position, word in enumerate([*words] if words and words[-1] == END else [*words, END], start=1):
        if word not in grammar.ids:
            raise DecodeError(f"word {position}, {word!r}: not in the vocabulary of {space.source}")
        try:
            state = grammar.advance(state, grammar.ids[word])
        except ValueError as error:
            raise DecodeError(f"word {position}: {error}") from None
    return grammar.workflow(state)


@lru_cache(maxsize=16)
def _decoder(space: Space) -> Grammar:
    return Grammar(space, max_tokens=None)


def encode(workflow: Workflow, space: Space) -> list[str]:
    """The words of a workflow, `<end>` last.

    Raises OutOfSpace that names the node, the input and the value that the space does not hold.
    """
    flow = workflow.canonical(space.catalog)
    roots = [i for i, n in flow.nodes.items() if n.class_type == space.output]
    others = [
        n.class_type for i, n in flow.nodes.items() if n.class_type != space.output and _is_root(n, space)
    ]
    if len(roots) != 1 or others:
        raise OutOfSpace(
            f"a design ends in exactly one {space.output}; this workflow has {len(roots)} {others or ''}"
        )
    writer = _Writer(flow, space)
    writer.node(roots[0])
    return writer.words()


def canonical_words(workflow: Workflow, space: Space) -> tuple[str, ...]:
    """The words of a workflow as rows and designs hold them, `<end>` left out; raises as `encode` does.

    A policy may say a workflow in more words; these are the ones that two workflows are compared by.
    """
    return tuple(encode(workflow, space)[:-1])


def respelled(words: Sequence[str], space: Space) -> tuple[str, ...]:
    """The `canonical_words` of the workflow that the words say; raises DecodeError as `decode` does."""
    return canonical_words(decode(words, space), space)


def _is_root(node: Node, space: Space) -> bool:
    return node.class_type in space.catalog and space.catalog[node.class_type].is_output


@dataclass(frozen=True)
class _Entry:
    """A word with the need that it answers; it may be left out where it is that need's default."""

    word: str
    need: Param | LinkNeed
    available: int
    is_default: bool


class _Writer:
    """Writes every need explicitly, in the grammar's order; `words` then leaves defaults out."""

    def __init__(self, flow: Workflow, space: Space) -> None:
        self.flow, self.space = flow, space
        self.entries: list[_Entry] = []
        self.outputs: list[Output] = []
        self.finished: set[str] = set()

    def words(self) -> list[str]:
        """Drop each default whose place the following word could not be mistaken for."""
        words = [END]
        for entry in reversed(self.entries):
            mistaken = self.space.answers(entry.need, words[-1], entry.available)
            if not entry.is_default or mistaken:
                words.append(entry.word)
        return words[::-1]

    def node(self, node_id: str) -> None:
        node = self.flow.nodes[node_id]
        rule = self._rule(node_id, node)
        for param in rule.params:
            self._param(node_id, node, param)
        for link in rule.links:
            self._link(node_id, link, node.inputs.get(link.name))
        self.finished.add(node_id)
        self.outputs += [Output(kind, int(node_id), slot) for slot, kind in enumerate(rule.outputs)]

    def _rule(self, node_id: str, node: Node) -> Rule:
        rule = self.space.rules.get(node.class_type)
        if rule is None:
            raise self._error(node_id, "", self.space.why_not(node.class_type))
        known = {*rule.fixed, *(need.name for need in rule.needs)}
        for name, value in node.inputs.items():
            if name not in known:
                raise self._error(node_id, name, f"= {value!r}: the space leaves this input out")
        for name, value in rule.fixed.items():
            if node.inputs.get(name) != value:
                raise self._error(
                    node_id, name, f"= {node.inputs.get(name)!r}: the space allows only {value!r}"
                )
        return rule

    def _param(self, node_id: str, node: Node, param: Param) -> None:
        value = node.inputs.get(param.name)
        if value == param.default:
            return
        word = next((w for w, v in param.tokens.items() if v == value), None)
        if word is None:
            allowed = ", ".join(str(v) for v in param.values[:20])
            raise self._error(node_id, param.name, f"= {value!r}: the space allows {allowed}")
        self.entries.append(_Entry(word, param, 0, is_default=False))

    def _link(self, node_id: str, need: LinkNeed, link: Any) -> None:
        fitting = [output for output in self.outputs if output.type in need.accepts]
        available = len(fitting)
        if link is None and need.optional:
            self.entries.append(_Entry(NONE, need, available, is_default=True))
            return
        if not isinstance(link, Link):
            raise self._error(
                node_id, need.name, f"= {link!r}: must be linked to an output of type {need.label}"
            )
        if link.node in self.finished:
            index = self._index(node_id, need, link, fitting)
            is_default = not need.optional and index == need.default_index(available)
            self.entries.append(_Entry(f"{need.label}@{index}", need, available, is_default))
            return
        self.entries.append(_Entry(self._class_word(node_id, need, link), need, available, is_default=False))
        self.node(link.node)

    def _index(self, node_id: str, need: LinkNeed, link: Link, fitting: list[Output]) -> int:
        """How many outputs back the link reaches, 1 for the latest."""
        for index, output in enumerate(reversed(fitting), start=1):
            if (output.node, output.slot) == (int(link.node), link.slot):
                if f"{need.label}@{index}" in self.space.refs:
                    return index
                break
        raise self._error(
            node_id, need.name, f"cannot be fed by output {link.slot} of node {link.node} in the space"
        )

    def _class_word(self, node_id: str, need: LinkNeed, link: Link) -> str:
        source = self.flow.nodes[link.node]
        for word in self.space.producers:
            if self.space.accepts_class(need, word) == Producer(source.class_type, link.slot):
                return word
        self._rule(link.node, source)
        raise self._error(
            node_id,
            need.name,
            f"takes {' or '.join(need.accepts)} in the space, not output {link.slot} of {source.class_type}",
        )

    def _error(self, node_id: str, name: str, text: str) -> OutOfSpace:
        node = self.flow.nodes[node_id].class_type
        return OutOfSpace(f"node {node_id} ({node}){', input ' + name if name else ''} {text}")
