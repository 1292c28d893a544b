"""Seeded mutations of workflows: the ways in which people, programs and policies get them wrong.

`mutants` promises the same list for the same arguments, distinct prompts, and every kind of `MUTATIONS` in
about equal numbers. Results are whatever JSON can hold: most are invalid, some are valid by accident.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from flowtailor.workflows.catalog import Catalog, NodeSpec

Api = dict[str, Any]

ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 12.7, 10**30, float("nan"), float("inf"), "", "12", "12.7", " 7 ", "1_000",
    "0x10", "nan", "abc", [], ["1"], ["1", 0, 0], [1, 2], {}, {"a": 1}, {"__value__": 12},
    {"__value__": [1, 2]}, {"__value__": "euler"}, {"__value__": None},
)  # fmt: skip
ODD_SLOTS: tuple[Any, ...] = (-1, -2, -99, 1, 2, 99, 0.0, 1.5, "0", None, True, False, [0], {})
ODD_SHAPES: tuple[Any, ...] = (None, 7, True, "", "class_type", "images", [], ["class_type"], ["images"], {})


@dataclass(frozen=True)
class Mutant:
    """`kinds` names the mutations that made `prompt`."""

    kinds: tuple[str, ...]
    prompt: Any


def seeds(catalog: Catalog) -> list[Api]:
    """Valid workflows for `catalog`: text to image, image arithmetic, and one with two outputs."""
    checkpoints = catalog["CheckpointLoaderSimple"].inputs["ckpt_name"].choices or ("missing",)
    text_to_image: Api = {
        "1": _node("CheckpointLoaderSimple", ckpt_name=checkpoints[0]),
        "2": _node("CLIPTextEncode", clip=["1", 1], text="a red apple"),
        "3": _node("CLIPTextEncode", clip=["1", 1], text=""),
        "4": _node("EmptySD3LatentImage", width=128, height=128, batch_size=1),
        "5": _node("KSampler", model=["1", 0], positive=["2", 0], negative=["3", 0], latent_image=["4", 0],
                   seed=1, steps=4, cfg=2.0, sampler_name="euler", scheduler="normal", denoise=1.0),
        "6": _node("VAEDecode", samples=["5", 0], vae=["1", 2]),
        "7": _node("SaveImage", images=["6", 0], filename_prefix="mutant"),
    }  # fmt: skip
    arithmetic: Api = {
        "a": _node("EmptyImage", width=64, height=64, batch_size=1, color=255),
        "b": _node(
            "ImageScale", image=["a", 0], upscale_method="bilinear", width=32, height=32, crop="center"
        ),
        "c": _node("ImageBlend", image1=["a", 0], image2=["b", 0], blend_factor=0.5, blend_mode="normal"),
        "d": _node("ImageSharpen", image=["c", 0], sharpen_radius=1, sigma=1.0, alpha=1.0),
        "e": _node("PreviewImage", images=["d", 0]),
    }
    two_outputs = {**copy.deepcopy(text_to_image), **copy.deepcopy(arithmetic)}
    return [text_to_image, arithmetic, two_outputs]


def _node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def mutants(flows: list[Api], catalog: Catalog, n: int, seed: int) -> list[Mutant]:
    """`n` distinct mutants of `flows`, each made by one to three mutations."""
    rng = random.Random(seed)
    made: dict[str, Mutant] = {}
    kinds = _round_robin(list(MUTATIONS), rng)
    while len(made) < n:
        prompt: Any = copy.deepcopy(rng.choice(flows))
        applied: list[str] = []
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            kind = next(kinds)
            try:
                prompt = copy.deepcopy(MUTATIONS[kind](prompt, rng, catalog))  # shares nothing with ODD_*
            except (AttributeError, IndexError, KeyError, TypeError):
                continue  # an earlier mutation took away what this one changes
            applied.append(kind)
        if applied:
            made.setdefault(json.dumps(prompt, sort_keys=True), Mutant(tuple(applied), prompt))
    return list(made.values())


def _round_robin(kinds: list[str], rng: random.Random) -> Iterator[str]:
    while True:
        yield from rng.sample(kinds, len(kinds))


def _pick_input(api: Api, rng: random.Random, *, link: bool | None = None) -> tuple[dict[str, Any], str]:
    """The inputs and the name of a random input; `link` asks for a linked or an unlinked one."""
    places = [
        (node["inputs"], name)
        for node in api.values()
        for name, value in node["inputs"].items()
        if link is None or isinstance(value, list) == link
    ]
    return rng.choice(places)


def _pick_widget(
    api: Api, rng: random.Random, catalog: Catalog, *, choice: bool
) -> tuple[dict[str, Any], str, Any]:
    """The inputs, name and spec of a random choice, or of a random number with a range."""
    places = [
        (node["inputs"], spec.name, spec)
        for node in api.values()
        for spec in catalog[node["class_type"]].inputs.values()
        if (spec.choices is not None if choice else "min" in spec.options)
    ]
    return rng.choice(places)


# --- inputs: missing, extra, renamed, wrongly typed, out of range -------------------------------------


def drop_input(api: Api, rng: random.Random, catalog: Catalog) -> Any:
    inputs, name = _pick_input(api, rng)
    del inputs[name]
    return api


def extra_input(api: Api, rng: random.Random, catalog: Catalog) -> Any:
    node = rng.choice(list(api.values()))
    node["inputs"][rng.choice(("extra", "images", "seed", "prompt"))] = rng.choice((*ODD_VALUES, ["1", 0]))
    return api


def rename_input(api: Api, rng: random.Random, catalog: Catalog) -> Any:
    inputs, name = _pick_input(api, rng)
    inputs[rng.choice((name.upper(), name + "_", name[:-1]))] = inputs.pop(name)
    return api


def odd_value(api: Api, rng: random.Random, catalog: Catalog) -> Any:
    inputs, name = _pick_input(api, rng, link=False)
    inputs[name] = rng.choice(ODD_VALUES)
    return api


def literal_for_link(api: Api, rng: random.Random, catalog: Catalog) -> Any:
    inputs, name = _pick_input(api, rng, link=True)
    inputs[name] = rng.choice(ODD_VALUES)
    return api


def edge_of_range(api: Api, rng: random.Random, catalog: Catalog) -> Any:
    inputs, name, spec = _pick_widget(api, rng, catalog, choice=False)
    low, high = spec.options["min"], spec.options.get("max", 0)
    value = rng.choice((low, low - 1, low - 0.001, high, high + 1, high + 0.001, high * 10))
    inputs[name] = rng.choice((value, str(value), {"__value__": value}))
    return api


def change_choice(api: Api, rng: random.Random, catalog: Catalog) -> Any:
    inputs, name, spec = _pick_widget(api, rng, catalog, choice=True)
    value = str(rng.choice(spec.choices or ("none",)))
    inputs[name] = rng.choice((value, value.upper(), value + " ", value[:-1], "no such choice", 0, [value]))
    return api


# --- nodes: unknown, swapped, missing, renamed, dead --------------------------------------------------


def unknown_class(api: Api, rng: random.Random, catalog: Catalog) -> Any:
    node = rng.choice(list(api.values()))
    node["class_type"] = rng.choice(("NoSuchNode", node["class_type"].lower(), "", None, 3, ["KSampler"], {}))
    return api


def swap_class(api: Api, rng: random.Random, catalog: Catalog) -> Any:
    rng.choice(list(api.values()))["class_type"] = rng.choice(sorted(catalog.nodes))
    return api


def drop_node(api: Api, rng: random.Random, catalog: Catalog) -> Any:
    del api[rng.choice(list(api))]
    return api


def rename_node(api: Api, rng: random.Random, catalog: Catalog) -> Any:
    node_id = rng.choice(list(api))
    api[rng.choice((f"{node_id}0", f" {node_id}", "ü"))] = api.pop(node_id)
    return api


def dead_node(api: Api, rng: random.Random, catalog: Catalog) -> Any:
    class_type = rng.choice((*sorted(n for n, s in catalog.nodes.items() if not s.is_output), "NoSuchNode"))
    api["dead"] = {"class_type": class_type, "inputs": {"anything": ["nowhere", 9]}}
    return api


def graft(api: Api, rng: random.Random, catalog: Catalog) -> Any:
    """Put a random node of the catalog between a linked input and its source."""
    inputs, name = _pick_input(api, rng, link=True)
    kind = catalog[api[inputs[name][0]]["class_type"]].outputs[inputs[name][1]]
    fitting = sorted(n for n, s in catalog.nodes.items() if kind in s.outputs or rng.random() < 0.02)
    spec = catalog[rng.choice(fitting)]
    api["graft"] = {"class_type": spec.class_type, "inputs": _plausible_inputs(spec, api, catalog)}
    inputs[name] = ["graft", spec.outputs.index(kind) if kind in spec.outputs else 0]
    return api


def extra_output(api: Api, rng: random.Random, catalog: Catalog) -> Any:
    """Add a random output node: the engine accepts if one output of several is valid."""
    spec = catalog[rng.choice(sorted(n for n, s in catalog.nodes.items() if s.is_output))]
    api["extra"] = {"class_type": spec.class_type, "inputs": _plausible_inputs(spec, api, catalog)}
    return api


def _plausible_inputs(spec: NodeSpec, api: Api, catalog: Catalog) -> dict[str, Any]:
    """Defaults, and links to the first outputs of the right type; unlinkable inputs stay out."""
    inputs: dict[str, Any] = {}
    for item in spec.inputs.values():
        sources = [
            [node_id, catalog[node["class_type"]].outputs.index(item.type)]
            for node_id, node in api.items()
            if item.type in catalog[node["class_type"]].outputs
        ]
        if not item.is_link:
            inputs[item.name] = item.default
        elif sources:
            inputs[item.name] = sources[0]
    return inputs


# --- links: dangling, cyclic, to itself, to a wrong slot or type, badly written -----------------------


def relink(api: Api, rng: random.Random, catalog: Catalog) -> Any:
    """Link to any node and slot: mostly a wrong type, often a cycle or a self link."""
    inputs, name = _pick_input(api, rng, link=True)
    inputs[name] = [rng.choice(list(api)), rng.choice((0, 0, 1, 2))]
    return api


def cycle(api: Api, rng: random.Random, catalog: Catalog) -> Any:
    """Two image filters that feed each other, in front of an output."""
    loop = [str(n) for n in range(900, 900 + rng.choice((1, 2, 3)))]
    for here, there in zip(loop, loop[1:] + loop[:1], strict=True):
        api[here] = _node("ImageInvert", image=[there, 0])
    output = rng.choice([n for n in api.values() if catalog[n["class_type"]].is_output])
    output["inputs"]["images"] = [loop[0], 0]
    return api


def odd_slot(api: Api, rng: random.Random, catalog: Catalog) -> Any:
    inputs, name = _pick_input(api, rng, link=True)
    inputs[name] = [inputs[name][0], rng.choice(ODD_SLOTS)]
    return api


def odd_source(api: Api, rng: random.Random, catalog: Catalog) -> Any:
    inputs, name = _pick_input(api, rng, link=True)
    source = inputs[name][0]
    inputs[name] = [rng.choice(("nowhere", int(source, 36), 1.0, None, True, [source], {}, "")), 0]
    return api


def odd_length(api: Api, rng: random.Random, catalog: Catalog) -> Any:
    inputs, name = _pick_input(api, rng, link=True)
    inputs[name] = rng.choice(([], inputs[name][:1], [*inputs[name], 0], [inputs[name]], [inputs[name], 0]))
    return api


def link_for_widget(api: Api, rng: random.Random, catalog: Catalog) -> Any:
    inputs, name = _pick_input(api, rng, link=False)
    inputs[name] = [rng.choice(list(api)), 0]
    return api


def number_source(api: Api, rng: random.Random, catalog: Catalog) -> Any:
    """Feed a value from a primitive node, as the front end does: right for some types only."""
    inputs, name = _pick_input(api, rng, link=False)
    kind = rng.choice(("PrimitiveInt", "PrimitiveFloat", "PrimitiveString", "PrimitiveBoolean"))
    api["value"] = _node(kind, value=rng.choice((1, 0.5, "euler", True)))
    inputs[name] = ["value", 0]
    return api


# --- no output, wrong JSON shapes ---------------------------------------------------------------------


def no_output(api: Api, rng: random.Random, catalog: Catalog) -> Any:
    return {i: n for i, n in api.items() if not catalog[n["class_type"]].is_output}


def odd_prompt(api: Api, rng: random.Random, catalog: Catalog) -> Any:
    return rng.choice((*ODD_SHAPES, [api], {"prompt": api}, json.dumps(api), list(api.values()), {"": {}}))


def odd_node(api: Api, rng: random.Random, catalog: Catalog) -> Any:
    node_id = rng.choice(list(api))
    api[node_id] = rng.choice((*ODD_SHAPES, [api[node_id]], {"inputs": {}}, {"class_type": "SaveImage"}))
    return api


def odd_inputs(api: Api, rng: random.Random, catalog: Catalog) -> Any:
    node = rng.choice(list(api.values()))
    node["inputs"] = rng.choice(
        (*ODD_SHAPES, list(node["inputs"]), [node["inputs"]], " ".join(node["inputs"]))
    )
    return api


def drop_property(api: Api, rng: random.Random, catalog: Catalog) -> Any:
    node = rng.choice(list(api.values()))
    del node[rng.choice(("inputs", "class_type"))]
    return api


MUTATIONS: dict[str, Callable[[Any, random.Random, Catalog], Any]] = {
    function.__name__: function
    for function in (
        drop_input, extra_input, rename_input, odd_value, literal_for_link, edge_of_range, change_choice,
        unknown_class, swap_class, drop_node, rename_node, dead_node, graft, extra_output,
        relink, cycle, odd_slot, odd_source, odd_length, link_for_widget, number_source,
        no_output, odd_prompt, odd_node, odd_inputs, drop_property,
    )
}  # fmt: skip
