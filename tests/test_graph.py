"""The workflow graph: reading API JSON, slots, and the canonical form."""

import json
import random

import pytest

from flowtailor.datasets.flows import load_seed_flows
from flowtailor.workflows.catalog import Catalog
from flowtailor.workflows.graph import SEED, Link, Workflow, WorkflowError, is_slot, takes_seed
from flowtailor.workflows.slots import templated
from flowtailor.workflows.space import Space
from flowtailor.workflows.validate import problems

API = {
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a.ckpt"}},
    "5": {"class_type": "EmptySD3LatentImage", "inputs": {"width": 128, "height": "128", "batch_size": 1}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red apple", "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["4", 1], "text": "blurry"}},
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 5, "steps": 8, "cfg": 2, "sampler_name": "euler", "scheduler": "simple", "denoise": 1,
            "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0],
        },
    },
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "ComfyUI"}},
}  # fmt: skip


def renamed(api: dict, rng: random.Random) -> dict:
    """The same flow with other ids, in another order, its inputs shuffled."""
    ids = dict(zip(api, rng.sample(range(1000), len(api)), strict=True))
    nodes = list(api)
    rng.shuffle(nodes)
    return {
        str(ids[i]): {
            "class_type": api[i]["class_type"],
            "inputs": {
                k: [str(ids[v[0]]), v[1]] if isinstance(v, list) else v
                for k, v in rng.sample(sorted(api[i]["inputs"].items()), len(api[i]["inputs"]))
            },
        }
        for i in nodes
    }


def test_slots_are_filled_by_bind(catalog_0375: Catalog):
    flow = templated(Workflow.from_api(API), "a red apple").canonical(catalog_0375)
    bound = flow.bind("a fox", seed=7, filename_prefix="x")
    values = {(n.class_type, k): v for n in bound.nodes.values() for k, v in n.inputs.items()}
    assert values["KSampler", "seed"] == 7
    assert values["SaveImage", "filename_prefix"] == "x"
    assert {n.inputs["text"] for n in bound.nodes.values() if "text" in n.inputs} == {"a fox", "blurry"}


def test_only_texts_hold_the_prompt():
    flow = templated(Workflow.from_api(API), "a")
    assert flow.nodes["4"].inputs["ckpt_name"] == "a.ckpt"
    assert flow.nodes["6"].inputs["text"] == "{prompt} red {prompt}pple"


def test_the_parts_of_an_input_that_grows_are_kept(catalog_0300: Catalog):
    def batch(first: str, second: str) -> Workflow:
        loads = {i: {"class_type": "LoadImage", "inputs": {"image": f"{i}.png"}} for i in "ab"}
        images = {"images.image0": [first, 0], "images.image1": [second, 0]}
        saved = {"class_type": "SaveImage", "inputs": {"images": ["b1", 0], "filename_prefix": "x"}}
        batched = {"class_type": "BatchImagesNode", "inputs": images}
        return Workflow.from_api({**loads, "b1": batched, "9": saved}).canonical(catalog_0300)

    one, other = batch("a", "b"), batch("b", "a")
    assert [n.class_type for n in one.nodes.values()].count("LoadImage") == 2
    assert one.key != other.key
    assert one == one.canonical(catalog_0300)


@pytest.mark.parametrize(
    ("declared", "sent"),
    [
        (["FLOAT", {"default": 0.5}], 0.5),
        (["INT", {"default": -1, "min": 0}], None),  # which the engine would refuse
        (["COMBO", {"options": ["a", "b"], "default": "None"}], None),
        (["BOXES", {"default": [1, 2], "socketless": True}], {"__value__": [1, 2]}),
        (["IMAGE"], None),
    ],
)
def test_optional_values_that_are_not_given_are_the_defaults(
    declared: list, sent: object, catalog_0375: Catalog
):
    info = json.loads(json.dumps(catalog_0375.to_json()))
    info["SaveImage"]["input"]["optional"] = {"more": declared}
    flow = Workflow.from_api(API).canonical(Catalog(info))
    [saved] = (node for node in flow.nodes.values() if node.class_type == "SaveImage")
    assert saved.inputs.get("more") == sent
    assert Workflow.loads(flow.dumps()).canonical(Catalog(info)) == flow


def test_a_seed_that_an_input_cannot_hold_is_cut_to_what_it_takes(catalog_0375: Catalog):
    info = json.loads(json.dumps(catalog_0375.to_json()))
    info["KSampler"]["input"]["required"]["seed"][1]["max"] = 2**32 - 1
    narrow = Catalog(info)
    flow = Workflow.from_api(API).canonical(narrow)
    assert flow == flow.canonical(narrow) == Workflow.loads(flow.dumps())
    [sampler] = [i for i, n in flow.nodes.items() if n.class_type == "KSampler"]
    assert takes_seed(flow.nodes[sampler])
    for seed, sent in ((7, 7), (2**48 - 1, 2**32 - 1), (2**63 - 1, 2**32 - 1), (2**40 + 5, 5)):
        bound = flow.bind("a fox", seed)
        assert bound.nodes[sampler].inputs["seed"] == sent
        assert not any(p.input_name == "seed" for p in problems(bound.to_api(), narrow))
    drawn = Space.default(narrow).rules["KSampler"].fixed["seed"]
    assert drawn == flow.nodes[sampler].inputs["seed"] and is_slot(drawn)


def test_a_seed_by_its_name_alone_is_a_slot(catalog_0375: Catalog):
    info = json.loads(json.dumps(catalog_0375.to_json()))
    info["KSampler"]["input"]["required"]["seed"] = ["INT", {"default": 0, "min": 0}]
    flow = Workflow.from_api(API).canonical(Catalog(info))
    assert SEED in [n.inputs.get("seed") for n in flow.nodes.values()]


def test_equal_workflows_have_equal_hashes():
    titled = API | {"4": API["4"] | {"_meta": {"title": "my model"}}}
    backwards = dict(reversed(API.items()))
    assert len({Workflow.from_api(api) for api in (API, titled, backwards)}) == 1


def test_canonical_is_stable_and_ordered_as_executed(catalog_0375: Catalog):
    flow = Workflow.from_api(API).canonical(catalog_0375)
    assert flow == flow.canonical(catalog_0375) == Workflow.loads(flow.dumps())
    assert flow.nodes["1"].class_type == "CheckpointLoaderSimple"
    assert flow.nodes["4"].inputs["height"] == 128


def test_key_ignores_ids_order_titles_seed_and_dead_nodes(catalog_0375: Catalog):
    key = Workflow.from_api(API).canonical(catalog_0375).key
    for seed in range(50):
        api = renamed(API, random.Random(seed))
        first = next(iter(api.values()))
        first["_meta"] = {"title": "mine"}
        api["dead"] = {"class_type": "EmptySD3LatentImage", "inputs": {"width": 64}}
        assert Workflow.from_api(api).canonical(catalog_0375).key == key
    other = {**API, "3": {**API["3"], "inputs": {**API["3"]["inputs"], "seed": 6}}}
    assert Workflow.from_api(other).canonical(catalog_0375).key == key
    other["3"]["inputs"]["steps"] = 9
    assert Workflow.from_api(other).canonical(catalog_0375).key != key


def test_equal_nodes_become_one(catalog_0375: Catalog):
    twice = {
        **API,
        "14": API["4"],
        "7": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["14", 1], "text": "blurry"}},
    }
    assert Workflow.from_api(twice).canonical(catalog_0375) == Workflow.from_api(API).canonical(catalog_0375)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "must be a JSON object of nodes"),
        ({"1": []}, "node 1: must be an object with a class_type"),
        ({"1": {"class_type": "A", "inputs": []}}, "inputs must be an object"),
        ({"1": {"class_type": "A", "inputs": {"x": ["2"]}}}, "a link must be"),
    ],
)
def test_wrong_shapes_are_named(data: object, message: str):
    with pytest.raises(WorkflowError, match=message):
        Workflow.from_api(data)


def test_dangling_and_cyclic_links_have_no_canonical_form(catalog_0375: Catalog):
    flow = Workflow.from_api(API)
    for target, message in (("99", "missing node 99"), ("9", "cycle")):
        nodes = dict(flow.nodes)
        inputs = {**nodes["8"].inputs, "samples": Link(target, 0)}
        nodes["8"] = type(nodes["8"])("VAEDecode", inputs)
        with pytest.raises(WorkflowError, match=message):
            Workflow(nodes).canonical(catalog_0375)


def test_a_value_is_set_in_each_node_that_has_such_an_input():
    flow = load_seed_flows()["latent_upscale"].with_values(steps=3, nowhere=1)
    steps = [node.inputs.get("steps") for node in flow.nodes.values() if node.class_type == "KSampler"]
    assert steps == [3, 3]
    assert all("nowhere" not in node.inputs for node in flow.nodes.values())
