"""A space for somebody's own engine, drawn from workflows that they use there and from what is installed.

`draft` writes the TOML that `space.py` reads, for a person to edit: the node classes of the workflows with
the values that they have, every installed model of the kinds that they load, numbers around theirs, and stock
nodes that fit in between (a LoRA, an upscaler, a second pass). Promises: the workflows lie in the space, if
all their nodes may be in it, none of their values comes from another node, and no node's inputs change with
what feeds them. Nodes that are no part of
ComfyUI itself, read or write files, or call a network are left out and named in a comment: a person may add
them. Does not know which models go together; that a LoRA is of another family shows in the scores.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .catalog import COMBO, Catalog, InputSpec, NodeSpec
from .graph import Link, Workflow, is_slot

OUTPUT = "SaveImage"
EMPTY = "EMPTY_LATENT"  # a latent that no sampler has touched, which must not be decoded
# Inputs of which every installed file is worth trying; text encoders and VAEs must fit their model.
MODELS = ("ckpt_name", "unet_name", "lora_name", "model_name")

# Stock nodes that fit into almost any workflow, with their inputs as in a space file.
TOOLBOX: dict[str, dict[str, Any]] = {
    "LoraLoader": {"lora_name": "*", "strength_model": [0.8, 0.4, 1.0], "strength_clip": [1.0]},
    "RescaleCFG": {"multiplier": [0.7, 0.3, 0.5]},
    "LatentUpscaleBy": {"upscale_method": ["bislerp", "nearest-exact"], "scale_by": [1.5, 1.25, 2.0]},
    "UpscaleModelLoader": {"model_name": "*"},
    "ImageUpscaleWithModel": {},
    "ImageScaleBy": {"upscale_method": ["lanczos", "area"], "scale_by": [0.5, 0.75]},
}
PASS = ("LatentUpscaleBy", "KSampler")  # a second pass needs both, at less than full noise

# Values worth trying beside those of the workflows.
SAMPLERS = ["euler", "euler_ancestral", "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_sde", "heun", "ddim", "uni_pc"]
SCHEDULERS = ["normal", "simple", "karras", "beta", "sgm_uniform"]
OFTEN: dict[str, list[str]] = {"sampler_name": SAMPLERS, "scheduler": SCHEDULERS}
TIMES: dict[str, list[float]] = {"steps": [0.5, 0.75, 1.5], "cfg": [0.5, 0.75, 1.5], "guidance": [0.6, 1.5]}
DENOISE = [0.3, 0.5, 0.7]  # of a second pass


def draft(flows: Mapping[str, Workflow], catalog: Catalog) -> str:
    """The text of a space file for `flows` (by name, with slots) on the engine of `catalog`."""
    used = [flow.canonical(catalog) for flow in flows.values()]
    classes = list(dict.fromkeys(n.class_type for flow in used for n in reversed([*flow.nodes.values()])))
    kept = [c for c in classes if c in catalog and is_safe(catalog[c])]
    texts, second_pass = _Texts(), all(c in catalog for c in PASS)
    nodes = {c: _table(catalog[c], used, texts, second_pass=second_pass) for c in kept}
    for class_type, table in TOOLBOX.items():
        if class_type not in nodes and _fits(catalog, class_type, table, nodes):
            nodes[class_type] = dict(table)
    empty = [c for c in nodes if c.startswith("Empty") and "LATENT" in catalog[c].outputs]
    lines = [
        "# What the designer may use: node classes, their values (the first is the default) and limits.",
        f"# Drawn from {len(flows)} workflows and what the engine has installed; edit it as you like.",
        '# "*" stands for every installed model. Inputs that are not named keep ComfyUI\'s default.',
        *(f"# left out, add it if designs may use it: {c}" for c in classes if c not in kept),
        "",
        _line("output", OUTPUT),
        _line("max_nodes", max([24, *(len(flow.nodes) + 8 for flow in used)])),
        *_section("texts", texts.by_name),
        *_section("types", {f"{c}.LATENT": EMPTY for c in empty}),
        *_section("accepts", {name: ["LATENT", EMPTY] for name in _first_latents(nodes, catalog, used)}),
        "",
        "# At most so many nodes of a kind in one workflow.",
        "[groups]",
        *(
            f"{_key(c)} = {{ classes = [{json.dumps(c)}], max = {n} }}"
            for c, n in _limits(nodes, used).items()
        ),
    ]
    for class_type, table in nodes.items():
        lines += _section(f"nodes.{class_type}", table, even_if_empty=True)
    return "\n".join(lines) + "\n"


def is_safe(spec: NodeSpec) -> bool:
    """Whether a design may use a class without anybody having said so.

    It must come with ComfyUI, write nothing but the picture, and read nothing but models.
    """
    stock = spec.module == "nodes" or spec.module.startswith("comfy_extras.")
    return spec.class_type == OUTPUT or (stock and not spec.is_output and not spec.handles_files)


class _Texts:
    """Names for the texts of the workflows, by their first words."""

    def __init__(self) -> None:
        self.by_name: dict[str, str] = {}

    def name(self, text: str) -> str:
        for name, known in self.by_name.items():
            if known == text:
                return name
        words = re.findall(r"\w+", text.lower())
        name = "_".join(words[:3]) or ("text" if text.strip() else "empty")
        while name in self.by_name:
            name += "_more"
        self.by_name[name] = text
        return name


def _table(
    spec: NodeSpec, flows: Sequence[Workflow], texts: _Texts, *, second_pass: bool
) -> dict[str, list[Any] | str]:
    """The inputs of one class: what the flows give it, commonest first, and what else is worth trying."""
    table: dict[str, list[Any] | str] = {}
    given = [n.inputs for flow in flows for n in flow.nodes.values() if n.class_type == spec.class_type]
    for name, one in spec.inputs.items():
        if one.is_link:
            if not one.required and any(isinstance(inputs.get(name), Link) for inputs in given):
                table["links"] = [*table.get("links", []), name]
            continue
        seen = [v for inputs in given if (v := inputs.get(name)) is not None and not isinstance(v, Link)]
        values = [json.loads(v) for v, _ in Counter(map(json.dumps, seen)).most_common()]
        values = [v for v in values if not is_slot(v)]
        if one.type == "STRING":
            values = [texts.name(v) for v in values]
        elif values:
            values = _around(one, values, second_pass=second_pass and spec.class_type in PASS)
        # The default of a list of files is whichever comes first, and tomorrow's may come before it.
        declared = one.type != COMBO or "default" in one.options
        implied = values == [one.sent_default] and one.type != "STRING" and declared
        if values and not implied:
            table[name] = values
    return table


def _around(one: InputSpec, values: list[Any], *, second_pass: bool) -> list[Any]:
    """The values that the flows have, and their neighbours, within what the engine takes."""
    if one.type == COMBO:
        if one.name in MODELS:
            return [*values, "*"]
        return _distinct([*values, *(v for v in OFTEN.get(one.name, ()) if v in (one.choices or ()))])
    if one.type not in ("INT", "FLOAT"):
        return values
    more: list[Any] = [v * factor for factor in TIMES.get(one.name, ()) for v in values[:1]]
    if one.name == "denoise" and second_pass:
        more = DENOISE
    if one.type == "INT":
        more = [max(1, round(v)) for v in more]
    low, high = one.options.get("min", -float("inf")), one.options.get("max", float("inf"))
    return _distinct([*values, *(v for v in (round(v, 2) for v in more) if low <= v <= high)])


def _distinct(values: Sequence[Any]) -> list[Any]:
    """Each once, in their order; some are boxes and lists of choices, which have no hash."""
    return [value for place, value in enumerate(values) if value not in values[:place]]


def _fits(catalog: Catalog, class_type: str, table: Mapping[str, Any], nodes: Iterable[str]) -> bool:
    """Whether the engine has the class, a model for each input that wants one, and `nodes` what it reads."""
    if class_type not in catalog:
        return False
    inputs = catalog[class_type].inputs
    made = {kind for c in nodes for kind in catalog[c].outputs}
    fed = all(one.type in made for one in inputs.values() if one.is_link and one.required)
    return fed and all(inputs[name].choices for name, value in table.items() if value == "*")


def _first_latents(nodes: Iterable[str], catalog: Catalog, flows: Sequence[Workflow]) -> list[str]:
    """Inputs that take a latent which no sampler has touched: those of samplers, and others that the flows
    feed so."""
    found = [f"{c}.latent_image" for c in nodes if (i := catalog[c].inputs.get("latent_image")) and i.is_link]
    for flow in flows:
        for node in flow.nodes.values():
            found += [
                f"{node.class_type}.{name}"
                for name, link in node.links()
                if node.class_type in nodes
                and flow.nodes[link.node].class_type.startswith("Empty")
                and (one := catalog[node.class_type].inputs.get(name))
                and one.type == "LATENT"
            ]
    return _distinct(found)


def _limits(nodes: Iterable[str], flows: Sequence[Workflow]) -> dict[str, int]:
    """How often a class may stand in one workflow: as in the fullest of the flows, and twice a LoRA, and a
    sampler where a second pass is to be had."""
    counts = [Counter(n.class_type for n in flow.nodes.values()) for flow in flows]
    most = {c: max([1, *(count[c] for count in counts)]) for c in nodes if c != OUTPUT}
    twice = {"LoraLoader", "KSampler"} if PASS[0] in most else {"LoraLoader"}
    return {c: max(n, 2) if c in twice else n for c, n in most.items()}


def _section(name: str, table: Mapping[str, Any], *, even_if_empty: bool = False) -> list[str]:
    if not table and not even_if_empty:
        return []
    head, dot, rest = name.partition(".")
    return [
        "",
        f"[{head}{dot}{_key(rest) if dot else ''}]",
        *(_line(key, value) for key, value in table.items()),
    ]


def _line(key: str, value: Any) -> str:
    return f"{_key(key)} = {_value(value)}"


def _value(value: Any) -> str:
    """A value in TOML, whose tables and lists are not JSON's."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(_line(key, part) for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _key(name: str) -> str:
    """A TOML key; some classes are called like `SamplerEulerCFG++`."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)
