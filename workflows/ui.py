"""Workflow files as people have them: API JSON, the editor's UI JSON, or a picture that carries either.

`ui_to_api` does what ComfyUI's front end does when it queues a graph: widget values get their names from
the catalog, reroutes and primitives disappear, bypassed nodes pass through, muted ones vanish, and
subgraphs are expanded (node 7 in instance 10 becomes "10:7", as there). Braces that were escaped in a text
lose their backslash; random choices (`{red|green}`) are not drawn, for a workflow holds what it may be. It
does not know the front ends of
node packs that keep their own widgets or virtual nodes; a class that the catalog lacks is an error.
"""

from __future__ import annotations

import io
import json
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from flowtailor.errors import FlowtailorError

from .catalog import Catalog, InputSpec, no_link
from .graph import Workflow

ACTIVE, MUTED, BYPASSED = 0, 2, 4
CONTROLS = frozenset({"fixed", "increment", "decrement", "randomize"})
NOTES = frozenset({"Note", "MarkdownNote"})
DYNAMIC_COMBO = "COMFY_DYNAMICCOMBO_V3"
ANY = "*"
ITSELF = "-1"
MAX_HOPS = 1000
"""Reroutes, bypasses and subgraph borders that one link may cross before it counts as a loop."""


def load_workflow(path: str | Path, catalog: Catalog) -> Workflow:
    """Read a workflow file: API JSON, UI JSON, or a PNG that ComfyUI saved.

    Raises FlowtailorError where the file is missing, unreadable, or holds no workflow.
    """
    data = load_json(path)
    try:
        return Workflow.from_api(ui_to_api(data, catalog) if is_ui(data) else data)
    except FlowtailorError as error:
        raise type(error)(f"{path}: {error}") from None


def load_json(path: str | Path) -> Any:
    """The JSON in a workflow file or a PNG, whatever its shape. Raises FlowtailorError if there is none."""
    file = Path(path)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise FlowtailorError(f"{file}: cannot be read ({error.strerror}); name a workflow file") from None
    text = _text_of_png(file, content) if content.startswith(b"\x89PNG") else content
    try:
        return json.loads(text)
    except ValueError as error:  # also text that is not UTF-8
        raise FlowtailorError(f"{file}: not JSON ({error}); export it from ComfyUI again") from None


def is_ui(data: object) -> bool:
    """Whether decoded JSON is of the editor's format: a list of nodes, not an object of them."""
    return isinstance(data, dict) and isinstance(data.get("nodes"), list)


def ui_to_api(ui: Mapping[str, Any], catalog: Catalog) -> dict[str, Any]:
    """The API JSON that the front end would queue for `ui`. Raises FlowtailorError where it cannot tell."""
    try:
        definitions = {d["id"]: d for d in (ui.get("definitions") or {}).get("subgraphs") or ()}
        root = _Graph(ui, definitions)
        return {graph.name_of(node): _api_node(graph, node, catalog) for graph, node in root.runnable()}
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise FlowtailorError(
            f"editor format: not as ComfyUI saves it ({error!r}); use the menu's Export (API) instead"
        ) from None


def _text_of_png(file: Path, content: bytes) -> str:
    from PIL.PngImagePlugin import PngImageFile  # only here: most files are JSON

    try:
        # Not by Image.open, which refuses big pictures: what is drawn in it is not looked at.
        with PngImageFile(io.BytesIO(content)) as image:
            chunks = image.info
    except (OSError, SyntaxError, ValueError) as error:
        raise FlowtailorError(f"{file}: a broken PNG ({error}); save the picture again") from None
    text = chunks.get("prompt") or chunks.get("workflow")
    if not isinstance(text, str):
        raise FlowtailorError(f"{file}: carries no workflow; take a picture that ComfyUI saved unchanged")
    return text


@dataclass(frozen=True)
class _Literal:
    """A value where a link ends in no real node: a primitive, or a widget of a subgraph."""

    value: Any


@dataclass(frozen=True)
class _Wire:
    origin: Any
    origin_slot: int
    target: Any
    target_slot: int

    @staticmethod
    def read(raw: list[Any] | dict[str, Any]) -> tuple[int, _Wire]:
        """The root graph writes links as lists, subgraphs as objects."""
        if isinstance(raw, dict):
            ends = (raw["origin_id"], raw["origin_slot"], raw["target_id"], raw["target_slot"])
            return raw["id"], _Wire(*ends)
        return raw[0], _Wire(*raw[1:5])


class _Graph:
    """The root graph, or one instance of a subgraph with the graph and the node that hold it."""

    def __init__(
        self,
        raw: Mapping[str, Any],
        definitions: Mapping[str, Any],
        holder: tuple[_Graph, dict[str, Any]] | None = None,
    ) -> None:
        self.raw = raw
        self.definitions = definitions
        self.holder = holder
        self.prefix = f"{holder[0].name_of(holder[1])}:" if holder else ""
        if self.prefix.count(":") > 50:
            raise FlowtailorError("editor format: a subgraph contains itself; take it out")
        self.nodes = {node["id"]: node for node in raw["nodes"]}
        self.wires = dict(_Wire.read(link) for link in raw.get("links") or () if link)

    def name_of(self, node: Mapping[str, Any]) -> str:
        return f"{self.prefix}{node['id']}"

    def runnable(self) -> Iterator[tuple[_Graph, dict[str, Any]]]:
        """The nodes that reach the engine, those of subgraphs included."""
        for node in self.nodes.values():
            if node.get("mode", ACTIVE) in (MUTED, BYPASSED) or node["type"] in NOTES:
                continue
            if node["type"] in self.definitions:
                yield from self.inside(node).runnable()
            elif node["type"] not in ("Reroute", "PrimitiveNode"):
                yield self, node

    def inside(self, node: dict[str, Any]) -> _Graph:
        return _Graph(self.definitions[node["type"]], self.definitions, (self, node))

    def source(self, link: int | None, kind: str) -> list[Any] | _Literal | None:
        """What a link into an input of type `kind` really comes from: [node id, slot], a value, or None if
        nothing feeds it."""
        graph = self
        for _ in range(MAX_HOPS):
            wire = graph.wires.get(link) if link is not None else None
            if wire is None:
                return None
            node = graph.nodes.get(wire.origin)
            if node is None and graph.holder is not None and wire.origin == graph.raw["inputNode"]["id"]:
                name = graph.raw["inputs"][wire.origin_slot]["name"]
                parent, instance = graph.holder
                link = next((i["link"] for i in instance.get("inputs") or () if i["name"] == name), None)
                if link is None:
                    return graph.promoted.get(name)
                graph = parent
            elif node is None or node.get("mode", ACTIVE) == MUTED:
                return None
            elif node.get("mode", ACTIVE) == BYPASSED:
                link = _bypass(node, wire.origin_slot, kind)
            elif node["type"] in graph.definitions:
                graph = graph.inside(node)
                link = graph.link_to_output(wire.origin_slot)
            elif node["type"] == "Reroute":
                link = node["inputs"][0].get("link")
            elif node["type"] == "PrimitiveNode":
                return _Literal(node["widgets_values"][0])
            else:
                return [graph.name_of(node), wire.origin_slot]
        raise FlowtailorError("editor format: reroutes form a loop; break it")

    def link_to_output(self, slot: int) -> int | None:
        """The link that ends in the subgraph's own output `slot`."""
        ends = (self.raw["outputNode"]["id"], slot)
        return next((i for i, w in self.wires.items() if (w.target, w.target_slot) == ends), None)

    @cached_property
    def promoted(self) -> dict[str, _Literal]:
        """Values of widgets shown on the instance, by the subgraph input that they feed.

        The instance says which ones it shows, each by a node inside (-1: the subgraph itself) and a widget's
        name; an older one lists those of the subgraph's inputs that end in a widget. Nodes inside hold the
        values of widgets that no input feeds, and all values where the two lists do not match.
        """
        assert self.holder is not None
        instance = self.holder[1]
        values = instance.get("widgets_values") or []
        shown = (instance.get("properties") or {}).get("proxyWidgets")
        fed = {item["name"]: self._widgets_fed(item) for item in self.raw["inputs"]}
        if shown is None:
            names = [name for name, widgets in fed.items() if widgets]
        else:
            pairs = json.loads(shown) if isinstance(shown, str) else shown
            feeding = {widget: name for name, widgets in fed.items() for widget in widgets}
            names = [w if str(node) == ITSELF else feeding.get((str(node), w)) for node, w, *_ in pairs]
            values = values if len(values) == len(names) else []
        return {n: _Literal(v) for n, v in zip(names, values, strict=False) if None not in (n, v)}

    def _widgets_fed(self, item: Mapping[str, Any]) -> list[tuple[str, str]]:
        """The widgets inside, each by its node's id and its name, in which an input of the subgraph ends."""
        wires = (self.wires[link] for link in item.get("linkIds") or () if link in self.wires)
        ends = [
            (w.target, self.nodes[w.target]["inputs"][w.target_slot]) for w in wires if w.target in self.nodes
        ]
        return [(str(node_id), end["widget"]["name"]) for node_id, end in ends if "widget" in end]


def _bypass(node: Mapping[str, Any], slot: int, kind: str) -> int | None:
    """The link that a bypassed node passes on to an input of type `kind`.

    As the front end has it: the input at the same place if it fits both the output and what that feeds, else
    one of that very type, else the first that fits both.
    """
    inputs, made = node.get("inputs") or [], node["outputs"][slot].get("type", ANY)
    fits = [_connect(one.get("type", ANY), kind) and _connect(one.get("type", ANY), made) for one in inputs]
    same_place = [one for one, fit in [*zip(inputs, fits, strict=True)][slot : slot + 1] if fit]
    same_type = [one for one in inputs if one.get("type") == kind != ANY]
    fitting = [one for one, fit in zip(inputs, fits, strict=True) if fit]
    return next((one.get("link") for one in (*same_place, *same_type, *fitting)), None)


def _connect(one: Any, other: Any) -> bool:
    """Whether the front end connects two types; either may be any, or list several."""
    ours, theirs = _types(one), _types(other)
    return ANY in ours | theirs or not ours.isdisjoint(theirs)


def _types(kind: Any) -> set[str]:
    """Old files have a list of choices for a type, and 0 for any."""
    text = ",".join(map(str, kind)) if isinstance(kind, list) else str(kind or ANY)
    return set(text.lower().split(","))


def _api_node(graph: _Graph, node: Mapping[str, Any], catalog: Catalog) -> dict[str, Any]:
    if node["type"] not in catalog:
        raise FlowtailorError(
            f"node {graph.name_of(node)}: class {node['type']} is not in the catalog; install what holds it"
        )
    inputs = _widget_inputs(catalog[node["type"]].inputs.values(), node.get("widgets_values") or [])
    for item in node.get("inputs") or ():
        source = graph.source(item.get("link"), item.get("type", ANY))
        if isinstance(source, _Literal):
            inputs[item["name"]] = no_link(source.value)
        elif source is not None:
            inputs[item["name"]] = source
    api = {"class_type": node["type"], "inputs": inputs}
    if node.get("title"):
        api["_meta"] = {"title": node["title"]}
    return api


def _widget_inputs(specs: Iterable[InputSpec], values: list[Any] | dict[str, Any]) -> dict[str, Any]:
    """Widget values by input name. A list is in the order of the widgets; missing ones have defaults."""
    if isinstance(values, dict):
        return {spec.name: no_link(values[spec.name]) for spec in specs if spec.name in values}
    inputs: dict[str, Any] = {}
    _take(specs, deque(values), "", inputs)
    return inputs


def _take(specs: Iterable[InputSpec], values: deque[Any], prefix: str, inputs: dict[str, Any]) -> None:
    for spec in specs:
        name = prefix + spec.name
        if spec.type == DYNAMIC_COMBO:
            options = {option["key"]: option["inputs"] for option in spec.options["options"]}
            inputs[name] = values.popleft() if values else next(iter(options))
            chosen = Catalog({name: {"input": options[inputs[name]]}})[name]
            _take(chosen.inputs.values(), values, f"{name}.", inputs)
        elif not spec.is_link:
            value = values.popleft() if values else spec.default
            if isinstance(value, str) and spec.options.get("dynamicPrompts"):
                value = re.sub(r"\\([{}|])", r"\1", value)
            inputs[name] = no_link(value)
            controlled = spec.options.get("control_after_generate") or spec.is_seed
            if controlled and values and values[0] in CONTROLS:
                values.popleft()  # the front end's own widget, which stands behind a seed
