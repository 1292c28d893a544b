"""Would the engine accept this workflow? The verdict of ComfyUI's `/prompt`, without an engine.

`problems` is empty exactly when ComfyUI 0.3.75 answers 200, and names what is wrong in ComfyUI's own
error types. The rules are the engine's, with its quirks, because a workflow is judged by what happens
to it and not by what its author meant:

- Only nodes that an output node needs are checked; the others need a known class and no more. One
  valid output is enough: the engine drops the invalid ones and runs the rest (see `verdict`).
- A value is converted by Python's `int`, `float`, `str` or `bool` ("12" is a fine INT, and so is 12.7),
  then held against min and max. A literal for a link-only input (a MODEL, say) is never looked at.
- Choices are checked where they are declared as a list. The newer declaration ("COMBO" with options) is
  checked only by newer engines, which are recognised by a key that their `/object_info` carries.
- A link's slot indexes a Python sequence: -1 is the last output, true is 1.

What a catalog cannot know: which files lie on the engine's disk beyond the listed ones (names that point
into other folders are taken on trust), what a node pack's own validation function asks for (it may ask for
more, and for less: the engine holds no input that such a function names against range and choices), and the
inputs that 0.30 makes up as it goes (types `COMFY_...`, taken on trust). Very long chains overflow the
engine's stack at a depth that moves with its Python: `MAX_DEPTH` was measured on 3.11.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .catalog import COMBO, CONVERT, Catalog, InputSpec, NodeSpec, is_dynamic, unwrapped
from .graph import Workflow

MAX_DEPTH = 983

# Nodes that ask the disk whether the named file exists. `/object_info` does not say that they do.
FILE_INPUTS: Mapping[str, str] = {
    "LoadAudio": "audio",
    "LoadImage": "image",
    "LoadImageMask": "image",
    "LoadImageOutput": "image",
    "LoadLatent": "latent",
    "LoadVideo": "file",
    "WebcamCapture": "image",
}

MESSAGES: Mapping[str, str] = {
    "bad_linked_input": "Bad linked input, must be a length-2 list of [node_id, slot_index]",
    "custom_validation_failed": "Custom validation failed for node",
    "dependency_cycle": "Dependency cycle detected",
    "exception_during_inner_validation": "Exception when validating inner node",
    "exception_during_validation": "Exception when validating node",
    "invalid_input_type": "Failed to convert an input value",
    "required_input_missing": "Required input is missing",
    "return_type_mismatch": "Return type mismatch between linked nodes",
    "value_bigger_than_max": "Value bigger than max",
    "value_not_in_list": "Value not in list",
    "value_smaller_than_min": "Value smaller than min",
}


@dataclass(frozen=True)
class Problem:
    """One reason for a rejection; `type` and `message` are ComfyUI's."""

    type: str
    message: str
    details: str
    node_id: str | None = None
    input_name: str | None = None

    def __str__(self) -> str:
        where = f"node {self.node_id}: " if self.node_id is not None else ""
        return f"{where}{self.message}: {self.details} [{self.type}]"


@dataclass(frozen=True)
class Verdict:
    """What `/prompt` answers: an accepted workflow may still have problems in outputs that are dropped."""

    accepted: bool
    problems: tuple[Problem, ...]


def problems(workflow: Workflow | object, catalog: Catalog) -> list[Problem]:
    """Why the engine rejects `workflow` (a Workflow or any decoded JSON); empty if it accepts."""
    result = verdict(workflow, catalog)
    return [] if result.accepted else list(result.problems)


def verdict(workflow: Workflow | object, catalog: Catalog) -> Verdict:
    """The engine's verdict. A Workflow is judged with its slots filled, JSON as it stands."""
    api = workflow.bind("", 0).to_api() if isinstance(workflow, Workflow) else workflow
    broken = _shape_problem(api, catalog)
    if broken is not None:
        return Verdict(False, (broken,))
    assert isinstance(api, dict)
    roots = [node_id for node_id, node in api.items() if catalog[node["class_type"]].is_output]
    if not roots:
        return Verdict(False, (Problem("prompt_no_outputs", "Prompt has no outputs", "no output node"),))
    checker = _Checker(api, catalog)
    valid = [root for root in roots if checker.check(root)]
    return Verdict(bool(valid), tuple(checker.found))


def _shape_problem(api: object, catalog: Catalog) -> Problem | None:
    """What stops the engine before it looks at any input: it wants known classes everywhere."""
    if not isinstance(api, dict):
        return Problem("invalid_prompt", "Prompt is not an object of nodes by id", type(api).__name__)
    for node_id, node in api.items():
        if not isinstance(node, dict) or "class_type" not in node:
            message = "Cannot execute because a node is missing the class_type property."
            return Problem("invalid_prompt", message, f"Node ID '#{node_id}'", node_id)
        class_type = node["class_type"]
        if not isinstance(class_type, str) or class_type not in catalog:
            message = f"Cannot execute because node {class_type} does not exist."
            return Problem("invalid_prompt", message, f"Node ID '#{node_id}'", node_id)
    return None


class _Raised(Exception):
    """The engine's validation raises here: the node is invalid, whatever else holds."""


class _Checker:
    """Judges nodes, each once, upstream first. Holds no Python recursion: chains may be long."""

    def __init__(self, api: dict[str, Any], catalog: Catalog) -> None:
        self.api = api
        self.catalog = catalog
        self.checks_combos = any("has_intermediate_output" in info for info in catalog.to_json().values())
        self.valid: dict[str, bool] = {}
        self.found: list[Problem] = []

    def check(self, root: str) -> bool:
        """Whether `root` and all that it needs are valid; adds what is wrong to `found`."""
        if root in self.valid:
            return self.valid[root]
        stack = [(root, self._enter(root))]
        open_nodes = {root}
        while stack:
            node_id, links = stack[-1]
            input_name, upstream = next(links, (None, None))
            if upstream is None or input_name is None:
                stack.pop()
                open_nodes.remove(node_id)
                if stack and not self.valid[node_id]:
                    self.valid[stack[-1][0]] = False
            elif upstream in open_nodes:
                self._reject(node_id, "dependency_cycle", f"{input_name}, link to {upstream}", input_name)
            elif upstream in self.valid:
                self.valid[node_id] &= self.valid[upstream]
            elif len(stack) >= MAX_DEPTH:
                self._reject(node_id, "exception_during_inner_validation", "chain too deep", input_name)
            else:
                stack.append((upstream, self._enter(upstream)))
                open_nodes.add(upstream)
        return self.valid[root]

    def _enter(self, node_id: str) -> Iterator[tuple[str, str]]:
        """Judge a node by itself; returns (input name, node id) of the links to follow."""
        self.valid[node_id] = True
        follow: list[tuple[str, str]] = []
        node = self.api[node_id]
        inputs = node.get("inputs")
        try:
            if "inputs" not in node:
                raise _Raised("the node has no inputs property")
            for spec in self.catalog[node["class_type"]].inputs.values():
                upstream = self._check_input(node_id, spec, inputs)
                if upstream is not None:
                    follow.append((spec.name, upstream))
            self._check_file(node_id, node["class_type"], inputs)
        except _Raised as error:
            self._reject(node_id, "exception_during_validation", str(error))
        return iter(follow)

    def _check_input(self, node_id: str, spec: InputSpec, inputs: Any) -> str | None:
        """Judge one input; returns the id of the node to follow if it is a well-typed link."""
        if is_dynamic(spec.type):
            return None
        if not _holds(inputs, spec.name):
            if spec.required:
                self._reject(node_id, "required_input_missing", spec.name, spec.name)
            return None
        value = inputs[spec.name]
        if isinstance(value, list):
            return self._check_link(node_id, spec, value)
        self._check_value(node_id, spec, value)
        return None

    def _check_link(self, node_id: str, spec: InputSpec, link: list[Any]) -> str | None:
        if len(link) != 2:
            self._reject(node_id, "bad_linked_input", f"{spec.name}, received {link!r}", spec.name)
            return None
        source, slot = link
        if not isinstance(source, str) or source not in self.api:
            raise _Raised(f"{spec.name}, link to missing node {source!r}")
        node = self.catalog[self.api[source]["class_type"]]
        if not isinstance(slot, int) or not -len(node.outputs) <= slot < len(node.outputs):
            raise _Raised(f"{spec.name}, node {source} has no output {slot!r}")
        if not _types_match(node, slot % len(node.outputs), spec):
            wanted = f"choices of {spec.name}" if spec.listed else spec.type
            details = f"{spec.name}, received_type({node.outputs[slot]}) mismatch input_type({wanted})"
            self._reject(node_id, "return_type_mismatch", details, spec.name)
            return None
        return source

    def _check_value(self, node_id: str, spec: InputSpec, value: Any) -> None:
        value = unwrapped(value)
        try:
            value = CONVERT.get(spec.type, lambda same: same)(value)
        except (TypeError, ValueError, OverflowError) as error:
            details = f"{spec.name}, {value!r} is no {spec.type}: {error}"
            self._reject(node_id, "invalid_input_type", details, spec.name)
            return
        if FILE_INPUTS.get(self.api[node_id]["class_type"]) == spec.name:
            return
        kind = _range_problem(value, spec)
        if kind is not None:
            bounds = f"{spec.options.get('min')} to {spec.options.get('max')}"
            self._reject(node_id, kind, f"{spec.name}, {value!r} is outside {bounds}", spec.name)
            return
        checked = spec.listed or (self.checks_combos and spec.type == COMBO)
        if checked and not spec.offers(value):
            choices = spec.choices or ()
            shown = ", ".join(map(repr, choices)) if len(choices) <= 20 else f"the {len(choices)} choices"
            self._reject(node_id, "value_not_in_list", f"{spec.name}: {value!r} not in {shown}", spec.name)

    def _check_file(self, node_id: str, class_type: str, inputs: Any) -> None:
        """The nodes of FILE_INPUTS ask whether a file exists, if they get that far."""
        name = FILE_INPUTS.get(class_type)
        if name is None:
            return
        file = unwrapped(inputs.get(name)) if isinstance(inputs, dict) else None
        if not isinstance(file, str):
            raise _Raised(f"{name}, {file!r} is no file name")
        plain = file.removesuffix(" [input]")
        elsewhere = "/" in plain or plain.endswith(("[output]", "[temp]")) or plain in ("", ".", "..")
        if not elsewhere and plain not in (self.catalog[class_type].inputs[name].choices or ()):
            self._reject(node_id, "custom_validation_failed", f"{name} - Invalid file: {file}", name)

    def _reject(self, node_id: str, kind: str, details: str, input_name: str | None = None) -> None:
        self.valid[node_id] = False
        self.found.append(Problem(kind, MESSAGES[kind], details, node_id, input_name))


def _holds(inputs: Any, name: str) -> bool:
    """Python's `name in inputs` on whatever JSON stands there: the engine asks no more than that."""
    if isinstance(inputs, dict):
        return name in inputs
    if isinstance(inputs, str | list) and name not in inputs:
        return False
    raise _Raised(f"inputs must be an object, not {type(inputs).__name__}")


def _range_problem(value: Any, spec: InputSpec) -> str | None:
    """The engine's error type for a value out of range. NaN is inside every range, as in Python."""
    try:
        if "min" in spec.options and value < spec.options["min"]:
            return "value_smaller_than_min"
        if "max" in spec.options and value > spec.options["max"]:
            return "value_bigger_than_max"
    except TypeError as error:
        raise _Raised(f"{spec.name}, {error}") from None
    return None


def _types_match(source: NodeSpec, slot: int, spec: InputSpec) -> bool:
    """Types are comma-separated sets that must meet; `*` meets everything, a list of choices its equal."""
    received, listed = source.outputs[slot], source.listed.get(slot)
    if received == "*" or spec.type == "*" or is_dynamic(received):
        return True
    if listed is not None or spec.listed:
        return spec.listed and listed == spec.choices
    return bool({t.strip() for t in received.split(",")} & {t.strip() for t in spec.type.split(",")})
