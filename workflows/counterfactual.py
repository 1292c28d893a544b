"""What a design would be without each of its parts: valid neighbours that differ in one choice.

Two kinds: a node that passes something through is left out (a LoRA, a model patch, an upscaler, a
second sampling pass, a post-processing step), or a value is set to the space's default. Every
neighbour is a design of the space, since only nodes go, and types decide what takes their place.
What a neighbour is worth is for the reward ensemble, or for a render, to say.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .codec import canonical_words, decode
from .graph import Link, Workflow, takes_seed
from .rules import LinkNeed, Param, Rule, value_word
from .slots import is_negative
from .space import OutOfSpace, Space
from .summary import summary

LEFT_OUT = "left out"
TOGETHER = ("width", "height")  # one choice: the canvas; half of it alone would be another picture


@dataclass(frozen=True)
class Counterfactual:
    """A design without `component`: what became of it (`LEFT_OUT`, or the value it has instead), and
    the words of the neighbour without the end word."""

    component: str
    change: str
    tokens: tuple[str, ...]


def counterfactuals(tokens: Sequence[str], space: Space) -> list[Counterfactual]:
    """One neighbour for each part of a design that could go or is not the default already.

    In the order that the parts run, first the nodes, then the values. Two parts with the same
    neighbour are one. Raises DecodeError where the words are no design of the space.
    """
    flow = decode(tokens, space)
    seen = {canonical_words(flow, space)}
    found = []
    for component, change, neighbour in (*_without(flow, space), *_plainer(flow, space)):
        try:
            words = canonical_words(neighbour, space)
        except OutOfSpace:  # a space whose references reach less far than this graph needs
            continue
        if words not in seen:
            seen.add(words)
            found.append(Counterfactual(component, change, words))
    return found


# --- leaving a node out --------------------------------------------------------------------------


def _without(flow: Workflow, space: Space) -> Iterator[tuple[str, str, Workflow]]:
    for node_id, node in flow.nodes.items():
        neighbour = _dropped(flow, node_id, space)
        if neighbour is not None:
            kept = _needed(neighbour, space.output)
            gone = Workflow({i: n for i, n in flow.nodes.items() if i not in kept})
            yield summary(gone, flow) or node.class_type, LEFT_OUT, neighbour


def _dropped(flow: Workflow, node_id: str, space: Space) -> Workflow | None:
    """The flow in which what a node fed is fed by what came before it; None where nothing fits."""
    fed: dict[str, dict[str, Link]] = {}
    for consumer_id, consumer in flow.nodes.items():
        for need in space.rules[consumer.class_type].links:
            link = consumer.inputs.get(need.name)
            if isinstance(link, Link) and link.node == node_id:
                source = _before(flow, node_id, need, space)
                if source is None:
                    return None
                fed.setdefault(consumer_id, {})[need.name] = source
    return flow.with_inputs(fed) if fed else None


def _before(flow: Workflow, node_id: str, need: LinkNeed, space: Space) -> Link | None:
    """What stands in for a node's output: its own first input that `need` accepts.

    A node that draws anew (it has a seed) goes with all that only prepares its input, such as an
    enlarged latent: in its place stands what was drawn last before it.
    """
    draws_anew = _draws(flow, node_id)
    waiting = [link for _, link in flow.nodes[node_id].links()]
    seen: set[str] = set()
    while waiting:
        link = waiting.pop(0)
        source = flow.nodes[link.node]
        fits = space.rules[source.class_type].outputs[link.slot] in need.accepts
        if fits and (not draws_anew or _draws(flow, link.node)):
            return link
        if draws_anew and link.node not in seen:
            seen.add(link.node)
            waiting += [earlier for _, earlier in source.links()]
    return None


def _draws(flow: Workflow, node_id: str) -> bool:
    """Whether a node has a seed, or noise from one that does nothing else, as custom samplers have."""
    node = flow.nodes[node_id]
    noises = [flow.nodes[link.node] for _, link in node.links() if not [*flow.nodes[link.node].links()]]
    return any(map(takes_seed, (node, *noises)))


def _needed(flow: Workflow, output: str) -> set[str]:
    """Ids of the nodes that the output node is computed from, itself included."""
    waiting = [i for i, n in flow.nodes.items() if n.class_type == output]
    found: set[str] = set()
    while waiting:
        node_id = waiting.pop()
        if node_id not in found:
            found.add(node_id)
            waiting += [link.node for _, link in flow.nodes[node_id].links()]
    return found


# --- setting a value to its default --------------------------------------------------------------


def _plainer(flow: Workflow, space: Space) -> Iterator[tuple[str, str, Workflow]]:
    for node_id, node in flow.nodes.items():
        for params in _choices(space.rules[node.class_type]):
            own = {p.name: node.inputs[p.name] for p in params}
            plain = {p.name: _plain(p, flow, node_id) for p in params}
            if own != plain:
                component = " ".join(_word(p, own[p.name]) for p in params) + _which(flow, node_id)
                change = " ".join(_word(p, plain[p.name]) for p in params)
                yield component, change, flow.with_inputs({node_id: plain})


def _choices(rule: Rule) -> list[tuple[Param, ...]]:
    """The params of a class, those that are one choice together."""
    joint = tuple(p for p in rule.params if p.name in TOGETHER)
    alone = [(p,) for p in rule.params if p.name not in TOGETHER]
    return [*alone, joint] if joint else alone


def _plain(param: Param, flow: Workflow, node_id: str) -> Any:
    """The value that stands for no choice: the default, but no text where a negative prompt is."""
    nothing = "" in param.values and is_negative(flow, node_id)
    return "" if nothing else param.default


def _word(param: Param, value: Any) -> str:
    return next((w for w, v in param.tokens.items() if v == value), value_word(param.name, value))


def _which(flow: Workflow, node_id: str) -> str:
    """` (KSampler 2)` where a flow has several nodes of the class, in the order that they run."""
    class_type = flow.nodes[node_id].class_type
    alike = [i for i, n in flow.nodes.items() if n.class_type == class_type]
    return f" ({class_type} {alike.index(node_id) + 1})" if len(alike) > 1 else ""
