"""A ComfyUI workflow as an immutable graph, and its canonical form.

A `Workflow` is read from ComfyUI's API JSON (`{id: {"class_type": ..., "inputs": {...}}}`). The
prompt, the seed and the file name are slots in it, not values: `bind` fills them. `canonical` gives
flows that draw the same picture the same form whatever their ids, order, titles and dead nodes, so
that `key` identifies a flow. Whether an engine would run it is for `validate.problems` to say.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

from flowtailor.errors import FlowtailorError

from .catalog import CONVERT, Catalog, InputSpec, NodeSpec, is_dynamic

PROMPT = "{prompt}"
SEED = "{seed}"
FILENAME = "{filename}"

SEEDS_END = 2**63  # requests name seeds below it, and plans smaller ones
_SEED_SLOT = re.compile(r"\{seed\}(?:%([1-9]\d*))?")


class WorkflowError(FlowtailorError):
    """Something that is not a workflow graph: wrong JSON shapes, dangling or cyclic links."""


@dataclass(frozen=True)
class Link:
    """A reference to output `slot` of the node with id `node`."""

    node: str
    slot: int


@dataclass(frozen=True)
class Node:
    """A node of the graph; `inputs` holds values and `Link`s by input name."""

    class_type: str
    inputs: Mapping[str, Any]
    title: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", MappingProxyType(dict(self.inputs)))

    def links(self) -> Iterator[tuple[str, Link]]:
        """The linked inputs, by name."""
        return ((name, value) for name, value in self.inputs.items() if isinstance(value, Link))


class Workflow:
    """An immutable workflow graph: nodes by id."""

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self.nodes: Mapping[str, Node] = MappingProxyType(dict(nodes))

    @classmethod
    def from_api(cls, data: Any) -> Workflow:
        """Read ComfyUI's API JSON. Raises WorkflowError where its shape is wrong."""
        if not isinstance(data, Mapping) or not data:
            raise WorkflowError("workflow: must be a JSON object of nodes by id, as Export (API) writes")
        return cls({str(node_id): _read_node(str(node_id), raw) for node_id, raw in data.items()})

    @classmethod
    def loads(cls, text: str) -> Workflow:
        """Read the text that `dumps` writes."""
        return cls.from_api(json.loads(text))

    def to_api(self) -> dict[str, Any]:
        """ComfyUI's API JSON, with the slots still in it (see `bind`)."""
        api: dict[str, Any] = {}
        for node_id, node in self.nodes.items():
            inputs = {k: [v.node, v.slot] if isinstance(v, Link) else v for k, v in node.inputs.items()}
            api[node_id] = {"class_type": node.class_type, "inputs": inputs}
            if node.title:
                api[node_id]["_meta"] = {"title": node.title}
        return api

    def dumps(self) -> str:
        """Compact API JSON."""
        return json.dumps(self.to_api(), separators=(",", ":"), ensure_ascii=False)

    def bind(self, prompt: str, seed: int, filename_prefix: str = "flowtailor") -> Workflow:
        """Fill the slots: the workflow that an engine runs."""

        def fill(value: Any) -> Any:
            if not isinstance(value, str):
                return value
            if slot := _SEED_SLOT.fullmatch(value):
                return seed % int(slot[1]) if slot[1] else seed
            return filename_prefix if value == FILENAME else value.replace(PROMPT, prompt)

        return self.map_values(fill)

    def map_values(self, change: Callable[[Any], Any]) -> Workflow:
        """The workflow with every value and link of its inputs changed."""
        return Workflow(
            {
                node_id: Node(n.class_type, {k: change(v) for k, v in n.inputs.items()}, n.title)
                for node_id, n in self.nodes.items()
            }
        )

    def with_inputs(self, changes: Mapping[str, Mapping[str, Any]]) -> Workflow:
        """The workflow with other inputs: node id -> input -> value or link."""
        changed = {
            i: replace(self.nodes[i], inputs={**self.nodes[i].inputs, **new}) for i, new in changes.items()
        }
        return Workflow({**self.nodes, **changed})

    def with_values(self, **values: Any) -> Workflow:
        """The workflow with other values of inputs, in each node that has one of that name."""
        given = {i: {k: v for k, v in values.items() if k in n.inputs} for i, n in self.nodes.items()}
        return self.with_inputs(given)

    def canonical(self, catalog: Catalog) -> Workflow:
        """The form that equal flows share.

        Only what an output node needs is kept. Inputs stand in the catalog's order; undeclared ones are
        dropped, but for the parts of a declared one that has some (`images.image0`); optional values that are
        not given are the declared defaults. Numbers have their declared type, seeds and file names are slots.
        Nodes with equal class and inputs draw the same, so they become one. Ids count from 1 in order of
        execution.
        Raises WorkflowError on a dangling or cyclic link.
        """
        flow = Workflow({i: _normalise(n, catalog) for i, n in self.nodes.items()})
        roots = [i for i, n in flow.nodes.items() if _is_output(n, catalog)]
        digests: dict[str, str] = {}
        for node_id in flow._topological(roots):
            digests[node_id] = _digest(flow.nodes[node_id], digests)
        first = {digest: node_id for node_id, digest in reversed(digests.items())}
        merged = flow._relink({i: first[digest] for i, digest in digests.items()})
        order = merged._topological([first[d] for d in sorted({digests[i] for i in roots})])
        names = {node_id: str(n) for n, node_id in enumerate(order, start=1)}
        renamed = merged._relink(names)
        return Workflow({names[i]: renamed.nodes[i] for i in order})

    def _relink(self, target: Mapping[str, str]) -> Workflow:
        """Point each link at `target[node]`; nodes that are not in `target` are dropped."""

        def move(value: Any) -> Any:
            return Link(target[value.node], value.slot) if isinstance(value, Link) else value

        kept = {i: n for i, n in self.nodes.items() if i in target}
        return Workflow(
            {i: Node(n.class_type, {k: move(v) for k, v in n.inputs.items()}) for i, n in kept.items()}
        )

    def in_order(self) -> list[str]:
        """Ids of all nodes, each after its inputs. Raises WorkflowError on a dangling or cyclic link."""
        return self._topological([*self.nodes])

    def _topological(self, roots: list[str]) -> list[str]:
        """Ids that `roots` need, each after its inputs (depth first, inputs in order)."""
        order: list[str] = []
        state: dict[str, bool] = {}  # False: open, True: done
        stack: list[tuple[str, Iterator[tuple[str, Link]]]] = []

        def enter(node_id: str) -> None:
            state[node_id] = False
            stack.append((node_id, self.nodes[node_id].links()))

        for root in roots:
            if root not in state:
                enter(root)
            while stack:
                node_id, links = stack[-1]
                name, link = next(links, ("", None))
                if link is None:
                    stack.pop()
                    state[node_id] = True
                    order.append(node_id)
                elif link.node not in self.nodes:
                    raise WorkflowError(f"node {node_id}, input {name}: links to missing node {link.node}")
                elif link.node not in state:
                    enter(link.node)
                elif not state[link.node]:
                    raise WorkflowError(
                        f"node {node_id}, input {name}: link to node {link.node} closes a cycle"
                    )
        return order

    @cached_property
    def key(self) -> str:
        """16 hex digits that identify a canonical workflow."""
        return hashlib.sha256(self.dumps().encode()).hexdigest()[:16]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Workflow) and self.nodes == other.nodes

    def __hash__(self) -> int:
        return hash(frozenset((node_id, node.class_type) for node_id, node in self.nodes.items()))

    def __repr__(self) -> str:
        return f"Workflow({', '.join(n.class_type for n in self.nodes.values())})"


def seed_slot(spec: InputSpec) -> str:
    """`{seed}`, or what the input takes of it where some seeds are too big for it: `{seed}%4294967296`."""
    most = spec.options.get("max")
    if isinstance(most, int | float) and 0 <= most < SEEDS_END - 1:
        return f"{SEED}%{int(most) + 1}"
    return SEED


def is_slot(value: Any) -> bool:
    """Whether a seed or a file name takes the whole of a value's place."""
    return isinstance(value, str) and (value == FILENAME or _SEED_SLOT.fullmatch(value) is not None)


def takes_seed(node: Node) -> bool:
    """Whether a node draws by the seed."""
    return any(isinstance(v, str) and _SEED_SLOT.fullmatch(v) for v in node.inputs.values())


def _read_node(node_id: str, raw: Any) -> Node:
    if not isinstance(raw, Mapping) or not isinstance(raw.get("class_type"), str):
        raise WorkflowError(f"node {node_id}: must be an object with a class_type")
    inputs = raw.get("inputs", {})
    if not isinstance(inputs, Mapping):
        raise WorkflowError(f"node {node_id}: inputs must be an object, not {type(inputs).__name__}")
    meta = raw.get("_meta")
    title = meta.get("title", "") if isinstance(meta, Mapping) else ""
    values = {str(k): _read_value(node_id, k, v) for k, v in inputs.items()}
    return Node(raw["class_type"], values, str(title))


def _read_value(node_id: str, name: str, value: Any) -> Any:
    if not isinstance(value, list):
        return value
    match value:
        case [str() | int() as node, int() as slot]:
            return Link(str(node), slot)
    raise WorkflowError(f"node {node_id}, input {name}: a link must be [node id, output slot], not {value!r}")


def _is_output(node: Node, catalog: Catalog) -> bool:
    return node.class_type in catalog and catalog[node.class_type].is_output


def _normalise(node: Node, catalog: Catalog) -> Node:
    spec = catalog.nodes.get(node.class_type)
    if spec is None:
        return Node(node.class_type, dict(sorted(node.inputs.items())))
    # What an older front end left out is what a newer one would send.
    optional = {n: one.sent_default for n, one in spec.inputs.items() if not one.required and not one.is_link}
    given = {n: value for n, value in optional.items() if value is not None} | dict(node.inputs)
    inputs = {
        name: _normal_value(given[name], input_spec, spec)
        for name, input_spec in spec.inputs.items()
        if name in given
    }
    dynamic = {name for name, input_spec in spec.inputs.items() if is_dynamic(input_spec.type)}
    parts = [name for name in node.inputs if "." in name and name.partition(".")[0] in dynamic]
    return Node(node.class_type, inputs | {name: node.inputs[name] for name in sorted(parts)})


def _normal_value(value: Any, spec: InputSpec, node: NodeSpec) -> Any:
    if isinstance(value, Link):
        return value
    if spec.is_seed:
        return seed_slot(spec)
    if node.is_output and spec.name == "filename_prefix":
        return FILENAME
    try:
        return CONVERT[spec.type](value) if spec.type in CONVERT else value
    except (TypeError, ValueError, OverflowError):
        return value  # the engine rejects it, and so does `problems`


def _digest(node: Node, digests: Mapping[str, str]) -> str:
    inputs = {k: [digests[v.node], v.slot] if isinstance(v, Link) else v for k, v in node.inputs.items()}
    text = json.dumps([node.class_type, inputs], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
