"""What an engine can run: its node classes, their inputs, ranges and choices.

A catalog is read from ComfyUI's `/object_info`, in the old form (0.3.x: a choice is a list of its
options) and the new one (0.30: `["COMBO", {"options": [...]}]`). The choices of loaders are the
models that are really installed. A catalog knows what the engine declares; what a node checks only
while it runs (file contents, tensor shapes) it does not know.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from flowtailor.errors import FlowtailorError

COMBO = "COMBO"
SEEDS = ("seed", "noise_seed")  # what the front end takes for a seed, whatever the node says
WIDGET_TYPES = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", COMBO})

# How ComfyUI reads the values of widgets.
CONVERT: Mapping[str, Callable[[Any], Any]] = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}


@dataclass(frozen=True)
class InputSpec:
    """One input of a node class.

    `choices` is set for a COMBO. `listed` says that they were declared in the old form, as the
    type itself: engines check membership at `/prompt` for that form only up to 0.3.x.
    """

    name: str
    type: str
    required: bool
    choices: tuple[Any, ...] | None = None
    listed: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_link(self) -> bool:
        """Whether only another node's output can feed it, never a value typed by a person."""
        if self.options.get("forceInput"):
            return True
        typed = self.options.get("widgetType") or self.options.get("socketless")  # a colour, a box, a curve
        return self.type not in WIDGET_TYPES and not typed

    def offers(self, value: Any) -> bool:
        """Whether it is one of the choices, or a list of some where several may be taken."""
        several = isinstance(value, list) and self.options.get("multiselect")
        return all(one in (self.choices or ()) for one in (value if several else [value]))

    @property
    def is_seed(self) -> bool:
        """Whether it is a number to draw by, and not one that feeds anything, as a primitive's `value`."""
        controlled = bool(self.options.get("control_after_generate")) and self.name != "value"
        return self.type == "INT" and (controlled or self.name in SEEDS)

    @property
    def default(self) -> Any:
        """The value that ComfyUI's front end fills in; None where there is none."""
        if "default" in self.options:
            return self.options["default"]
        if self.choices:
            return self.choices[0]
        return {"STRING": "", "BOOLEAN": False, "INT": 0, "FLOAT": 0.0}.get(self.type)

    @property
    def sent_default(self) -> Any:
        """The default as the front end sends it and the engine reads it, a list wrapped; None where the
        engine would not take it."""
        value = self.default
        if isinstance(value, list):
            return no_link(value)
        if self.choices is not None:
            return value if value in self.choices else None
        if value is None:
            return None
        try:
            if self.type in CONVERT:
                value = CONVERT[self.type](value)  # some node packs declare "512" for a number
            small = "min" in self.options and value < self.options["min"]
            big = "max" in self.options and value > self.options["max"]
            return None if small or big else value
        except (TypeError, ValueError, OverflowError):
            return None


@dataclass(frozen=True)
class NodeSpec:
    """One node class; `inputs` in the order that the engine declares, required ones first.

    `listed` holds, by slot, the choices of outputs that are declared in the old form (see InputSpec).
    `module` is the Python module that it comes from: `nodes`, `comfy_extras.*`, `custom_nodes.*`, ...
    """

    class_type: str
    inputs: Mapping[str, InputSpec]
    outputs: tuple[str, ...]
    listed: Mapping[int, tuple[Any, ...]]
    is_output: bool
    module: str

    @property
    def handles_files(self) -> bool:
        """Whether it reads or writes people's files, which come and go, and not models alone."""
        uploads = any("upload" in option for one in self.inputs.values() for option in one.options)
        return uploads or self.class_type.startswith(("Load", "Save", "Preview", "Webcam"))


class Catalog:
    """The node classes of one engine, by class name. Immutable.

    `unreadable` names the classes that are declared as none can be; they are left out.
    """

    def __init__(self, object_info: Mapping[str, Any]) -> None:
        nodes: dict[str, NodeSpec] = {}
        wrong: dict[str, str] = {}
        for name, info in object_info.items() if isinstance(object_info, Mapping) else ():
            try:
                nodes[name] = _node_spec(name, info)
            except (AttributeError, IndexError, KeyError, TypeError) as error:
                wrong[name] = repr(error)
        if not nodes:
            reason = next(iter(wrong.values()), "no node class in it")
            raise FlowtailorError(
                f"not an answer of ComfyUI's /object_info ({reason}); save that answer unchanged"
            )
        self._object_info = {name: object_info[name] for name in nodes}
        self.nodes: Mapping[str, NodeSpec] = MappingProxyType(nodes)
        self.unreadable: tuple[str, ...] = tuple(wrong)

    @classmethod
    def load(cls, path: str | Path) -> Catalog:
        """Read a saved `/object_info` (`.json` or `.json.gz`)."""
        file = Path(path)
        try:
            data = file.read_bytes()
            return cls(json.loads(gzip.decompress(data) if file.suffix == ".gz" else data))
        except FileNotFoundError:
            raise FlowtailorError(f"{file}: no such catalog; write one with `flowtailor catalog`") from None
        except (json.JSONDecodeError, EOFError, OSError, zlib.error, UnicodeDecodeError) as error:
            raise FlowtailorError(f"{file}: not a JSON catalog ({error})") from None

    def ordered_as(self, earlier: Catalog) -> Catalog:
        """The same catalog with the choices that `earlier` had first, in its order.

        An engine lists its models by name; a design that leaves out the first one as the default would
        mean another model once one is installed whose name comes before.
        """
        info = json.loads(json.dumps(self._object_info))
        for class_type, node in self.nodes.items():
            for section in ("required", "optional"):
                for name, declared in (info[class_type]["input"].get(section) or {}).items():
                    then = earlier.nodes[class_type].inputs.get(name) if class_type in earlier else None
                    now = node.inputs[name].choices
                    if then is None or not then.choices or not now:
                        continue
                    kept = [choice for choice in then.choices if choice in now]
                    choices = kept + [choice for choice in now if choice not in kept]
                    if node.inputs[name].listed:
                        declared[0] = choices
                    else:
                        declared[1]["options"] = choices
        return Catalog(info)

    def to_json(self) -> dict[str, Any]:
        """The `/object_info` that this catalog was read from, without what cannot be read."""
        return dict(self._object_info)

    @cached_property
    def hash(self) -> str:
        """16 hex digits that change when a class, a range or an installed model changes.

        Of nodes that handle files only the name counts: they list what lies in the input folder, which a
        person may add to, and the engine itself once it has been asked.
        """
        told = {n: None if self.nodes[n].handles_files else info for n, info in self._object_info.items()}
        text = json.dumps(told, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __contains__(self, class_type: object) -> bool:
        return class_type in self.nodes

    def __getitem__(self, class_type: str) -> NodeSpec:
        return self.nodes[class_type]


def no_link(value: Any) -> Any:
    """A list among API inputs would be a link, so ComfyUI wraps it."""
    return {"__value__": value} if isinstance(value, list) else value


def unwrapped(value: Any) -> Any:
    """What the engine makes of what `no_link` gave."""
    return value["__value__"] if isinstance(value, dict) and "__value__" in value else value


def is_dynamic(kind: str) -> bool:
    """Whether an input of that type has parts of its own, `name.part`: several of a kind, or a choice's."""
    return kind.startswith("COMFY_")  # COMFY_AUTOGROW_V3, COMFY_DYNAMICCOMBO_V3


def _node_spec(class_type: str, info: Mapping[str, Any]) -> NodeSpec:
    inputs = {
        name: _input_spec(name, declared, required=section == "required")
        for section in ("required", "optional")
        for name, declared in (info["input"].get(section) or {}).items()
    }
    outputs = tuple(info.get("output") or ())
    return NodeSpec(
        class_type=class_type,
        inputs=MappingProxyType(inputs),
        outputs=tuple(kind if isinstance(kind, str) else COMBO for kind in outputs),
        listed={slot: tuple(kind) for slot, kind in enumerate(outputs) if not isinstance(kind, str)},
        is_output=bool(info.get("output_node")),
        module=info.get("python_module", ""),
    )


def _input_spec(name: str, declared: Any, *, required: bool) -> InputSpec:
    kind = declared[0]
    options = declared[1] if len(declared) > 1 and isinstance(declared[1], dict) else {}
    if isinstance(kind, list):
        return InputSpec(name, COMBO, required, tuple(kind), listed=True, options=options)
    if not isinstance(kind, str):
        raise TypeError(f"input {name}: its type is {kind!r}")
    choices = tuple(options["options"]) if kind == COMBO and "options" in options else None
    return InputSpec(name, kind, required, choices, options=options)
