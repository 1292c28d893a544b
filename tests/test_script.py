"""Workflows printed as ComfyScript, by its own transpiler."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import mutations
import pytest

from flowtailor.errors import FlowtailorError
from flowtailor.workflows import script
from flowtailor.workflows.catalog import Catalog
from flowtailor.workflows.script import comfy_script
from flowtailor.workflows.ui import ui_to_api

DATA = Path(__file__).parent / "data"


@pytest.fixture
def catalog(catalog_0375: Catalog) -> Catalog:
    return catalog_0375


@pytest.mark.parametrize("version", ["catalog_0375", "catalog_0300"])
def test_prints_python_that_reads_like_the_graph(version: str, request: pytest.FixtureRequest):
    catalog: Catalog = request.getfixturevalue(version)
    untouched = asyncio.run.__module__
    text = comfy_script(mutations.seeds(catalog)[0], catalog.to_json())
    compile(text, "script", "exec")
    lines = text.strip().splitlines()
    assert lines[0].startswith("model, clip, vae = CheckpointLoaderSimple(")
    assert "'euler', 'normal'" in text
    assert lines[-1] == "SaveImage(image, 'mutant')"
    assert asyncio.run.__module__ == untouched  # comfy-script patches asyncio, but not ours


def test_ids_of_subgraphs_and_slots_do_not_disturb_it(catalog: Catalog):
    api = ui_to_api(json.loads((DATA / "ui_subgraph.json").read_text()), catalog)
    assert "ImageInvert" in comfy_script(api, catalog.to_json())
    flow = mutations.seeds(catalog)[0]
    flow["5"]["inputs"]["seed"] = "{seed}"
    assert "'{seed}'" in comfy_script(flow, catalog.to_json())


def test_an_unknown_class_is_named(catalog: Catalog):
    with pytest.raises(FlowtailorError, match="no node class Foo"):
        comfy_script({"1": {"class_type": "Foo", "inputs": {}}}, catalog.to_json())


def test_failures_are_one_line(catalog: Catalog):
    flow = mutations.seeds(catalog)[0]
    flow["6"]["inputs"]["samples"] = ["nowhere", 0]
    with pytest.raises(FlowtailorError, match="comfy-script failed") as caught:
        comfy_script(flow, catalog.to_json())
    assert "\n" not in str(caught.value)
    with pytest.raises(FlowtailorError, match="printed nothing"):
        comfy_script({}, catalog.to_json())


def test_a_hanging_transpiler_is_stopped(catalog: Catalog, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(script, "TIMEOUT_S", 0.5)
    monkeypatch.setattr(script, "_PROGRAM", "import time; time.sleep(60)")
    with pytest.raises(FlowtailorError, match="took over"):
        comfy_script(mutations.seeds(catalog)[0], catalog.to_json())
