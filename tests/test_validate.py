"""The engine's verdict without an engine: one example a rule, and thousands of mutants against a live one."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mutations
import pytest
import requests

from flowtailor.datasets.flows import load_seed_flows
from flowtailor.workflows.catalog import Catalog
from flowtailor.workflows.graph import Workflow
from flowtailor.workflows.validate import MAX_DEPTH, problems, verdict

MUTANTS = 3000


@pytest.fixture
def catalog(catalog_0375: Catalog) -> Catalog:
    return catalog_0375


@pytest.fixture
def flow(catalog: Catalog) -> dict[str, Any]:
    """Text to image; node 5 is the sampler, node 7 the only output."""
    return mutations.seeds(catalog)[0]


def found(api: object, catalog: Catalog) -> list[tuple[str, str | None, str | None]]:
    return [(p.type, p.node_id, p.input_name) for p in problems(api, catalog)]


def sampler(flow: dict[str, Any], **inputs: Any) -> dict[str, Any]:
    flow["5"]["inputs"].update(inputs)
    return flow


def test_valid_workflows_have_no_problems(catalog: Catalog):
    for api in mutations.seeds(catalog):
        assert problems(api, catalog) == []


def test_slots_count_as_filled_in_a_workflow_but_not_in_json(flow, catalog):
    flow["2"]["inputs"]["text"] = "{prompt}, 3d"
    sampler(flow, seed="{seed}")
    assert problems(Workflow.from_api(flow), catalog) == []
    assert found(flow, catalog) == [("invalid_input_type", "5", "seed")]


def test_missing_input(flow, catalog):
    del flow["5"]["inputs"]["steps"]
    assert found(flow, catalog) == [("required_input_missing", "5", "steps")]


def test_optional_and_extra_inputs_may_be_anything_or_nothing(flow, catalog):
    flow["5"]["inputs"]["no_such_input"] = ["nowhere", 99]
    assert problems(flow, catalog) == []


@pytest.mark.parametrize("value", ["12", " 12 ", "1_2", 12.7, True, {"__value__": 12}])
def test_values_are_converted_as_python_does(flow, catalog, value):
    assert problems(sampler(flow, steps=value), catalog) == []


@pytest.mark.parametrize("value", ["12.7", "abc", "", None, {}, float("nan"), float("inf")])
def test_values_that_do_not_convert(flow, catalog, value):
    assert found(sampler(flow, steps=value), catalog) == [("invalid_input_type", "5", "steps")]


def test_ranges(flow, catalog):
    assert found(sampler(flow, steps=0), catalog) == [("value_smaller_than_min", "5", "steps")]
    assert found(sampler(flow, steps=10_001), catalog) == [("value_bigger_than_max", "5", "steps")]
    assert problems(sampler(flow, steps=10_000, cfg=float("nan")), catalog) == []


def test_choices(flow, catalog):
    assert found(sampler(flow, sampler_name="EULER"), catalog) == [("value_not_in_list", "5", "sampler_name")]


def test_only_newer_engines_check_choices_declared_as_combo(catalog, catalog_0300):
    api = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
        "2": {"class_type": "UpscaleModelLoader", "inputs": {"model_name": "absent.pth"}},
        "3": {
            "class_type": "ImageUpscaleWithModel",
            "inputs": {"upscale_model": ["2", 0], "image": ["1", 0]},
        },
        "4": {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}},
    }
    assert problems(api, catalog) == []
    assert found(api, catalog_0300) == [("value_not_in_list", "2", "model_name")]


def test_inputs_that_newer_engines_make_up_are_taken_on_trust(catalog_0300):
    api = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
        "2": {
            "class_type": "BatchImagesNode",
            "inputs": {"images.image0": ["1", 0], "images.image1": ["1", 0]},
        },
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
    }
    assert problems(api, catalog_0300) == []


def test_links_must_be_pairs(flow, catalog):
    assert found(sampler(flow, model=["1"]), catalog) == [("bad_linked_input", "5", "model")]


@pytest.mark.parametrize("link", [["nowhere", 0], [1, 0], [None, 0], [["1"], 0]])
def test_links_to_missing_nodes(flow, catalog, link):
    assert found(sampler(flow, model=link), catalog) == [("exception_during_validation", "5", None)]


@pytest.mark.parametrize(("slot", "valid"), [(0, True), (-3, True), (False, True), (3, False), ("0", False)])
def test_slots_index_a_python_sequence(flow, catalog, slot, valid):
    assert (problems(sampler(flow, model=["1", slot]), catalog) == []) is valid


def test_link_types(flow, catalog):
    assert found(sampler(flow, model=["1", 1]), catalog) == [("return_type_mismatch", "5", "model")]
    flow["1"]["inputs"]["ckpt_name"] = ["4", 0]  # choices take no link
    assert ("return_type_mismatch", "1", "ckpt_name") in found(sampler(flow, model=["1", 0]), catalog)


def test_a_list_of_choices_is_fed_by_an_output_of_the_same_list(flow, catalog):
    choices = catalog["KSampler"].inputs["sampler_name"].choices or ()

    def judged(output: object) -> list[tuple[str, str | None, str | None]]:
        picker = {"input": {}, "output": [output], "output_node": False}
        flow["9"] = {"class_type": "PickSampler", "inputs": {}}
        return found(
            sampler(flow, sampler_name=["9", 0]), Catalog({**catalog.to_json(), "PickSampler": picker})
        )

    assert judged([*choices]) == []
    for other in ([*choices[1:]], "COMBO", "STRING"):
        assert judged(other) == [("return_type_mismatch", "5", "sampler_name")]


def test_a_literal_for_a_linked_input_is_not_looked_at(flow, catalog):
    assert problems(sampler(flow, model=5), catalog) == []


@pytest.mark.parametrize("loop", [["x"], ["x", "y"]])
def test_cycles(catalog, loop):
    api = {
        i: {"class_type": "ImageInvert", "inputs": {"image": [loop[n - 1], 0]}} for n, i in enumerate(loop)
    }
    api["out"] = {"class_type": "PreviewImage", "inputs": {"images": ["x", 0]}}
    assert [p.type for p in problems(api, catalog)] == ["dependency_cycle"]


def test_one_valid_output_is_enough(flow, catalog):
    flow["8"] = {"class_type": "PreviewImage", "inputs": {}}
    assert problems(flow, catalog) == []
    assert [p.node_id for p in verdict(flow, catalog).problems] == ["8"]


def test_no_output(flow, catalog):
    del flow["7"]
    assert found(flow, catalog) == [("prompt_no_outputs", None, None)]


def test_dead_nodes_need_a_known_class_and_no_more(flow, catalog):
    flow["dead"] = {"class_type": "KSampler"}
    assert problems(flow, catalog) == []
    flow["dead"]["class_type"] = "NoSuchNode"
    assert found(flow, catalog) == [("invalid_prompt", "dead", None)]


@pytest.mark.parametrize("api", [None, 3, "", [], {}, {"1": None}, {"1": []}, {"1": {"inputs": {}}}])
def test_wrong_json_shapes(catalog, api):
    assert problems(api, catalog)


def test_inputs_that_are_no_object(flow, catalog):
    flow["7"]["inputs"] = None
    assert found(flow, catalog) == [("exception_during_validation", "7", None)]


@pytest.mark.parametrize(
    ("name", "valid"),
    [("absent.png", False), ("sub/picture.png", True), ("picture.png [output]", True), (None, False)],
)
def test_files_are_judged_as_far_as_the_catalog_knows_them(catalog, name, valid):
    api = {
        "1": {"class_type": "LoadImage", "inputs": {"image": name}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    assert (problems(api, catalog) == []) is valid


def test_chains_may_be_long_but_not_endless(catalog):
    def chain(nodes: int) -> dict[str, Any]:
        api = {
            str(n): {"class_type": "ImageInvert", "inputs": {"image": [str(n + 1), 0]}} for n in range(nodes)
        }
        api["0"] = {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}
        api[str(nodes - 1)]["inputs"]["image"] = "a literal, which is not looked at"
        return api

    assert problems(chain(MAX_DEPTH), catalog) == []
    assert problems(chain(MAX_DEPTH + 1), catalog)


def test_mutants_are_reproducible_and_distinct(catalog):
    first = mutations.mutants(mutations.seeds(catalog), catalog, 300, seed=1)
    again = mutations.mutants(mutations.seeds(catalog), catalog, 300, seed=1)
    assert repr(first) == repr(again)
    assert len({json.dumps(m.prompt) for m in first}) == 300
    assert {kind for m in first for kind in m.kinds} == set(mutations.MUTATIONS)


@contextmanager
def held_queue(url: str, folder: Path) -> Iterator[requests.Session]:
    """Keep the engine from running what it accepts: a mutant may ask for a picture of many gigabytes.

    A workflow that reads a pipe goes first. Its reader waits, without using the processor, until the
    queue is cleared and the pipe removed.
    """
    session = requests.Session()
    pipe = folder / "pipe"
    os.mkfifo(pipe)
    api = {
        "1": {"class_type": "LoadImage", "inputs": {"image": str(pipe)}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    assert session.post(f"{url}/prompt", json={"prompt": api}, timeout=30).ok
    try:
        yield session
    finally:
        session.post(f"{url}/queue", json={"clear": True}, timeout=30)
        writer = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
        pipe.unlink()
        os.close(writer)


@pytest.mark.engine
def test_agrees_with_a_live_engine_on_every_mutant(comfy: Any, tmp_path: Path):
    live = Catalog(comfy.object_info())
    shipped = [flow.bind("a red apple", seed=1).to_api() for flow in load_seed_flows().values()]
    seeds = [*mutations.seeds(live), *shipped]
    batch = mutations.mutants(seeds, live, MUTANTS, seed=0)
    cases = [*batch, *(mutations.Mutant(("valid",), copy.deepcopy(api)) for api in seeds)]
    wrong: list[str] = []
    accepted = 0
    with held_queue(comfy.base_url, tmp_path) as session:
        for case in cases:
            body = json.dumps({"prompt": case.prompt})  # json= would refuse NaN, which the engine reads
            answer = session.post(f"{comfy.base_url}/prompt", data=body, timeout=30)
            accepted += answer.ok
            ours = problems(case.prompt, live)
            if answer.ok == bool(ours):
                wrong.append(f"{case.kinds}: HTTP {answer.status_code}, we say {ours[:2]}: {body[:500]}")
    assert not wrong, f"{len(wrong)} of {len(cases)} differ:\n" + "\n".join(wrong[:5])
    assert 0.1 < accepted / len(cases) < 0.9  # both verdicts were really put to the test
