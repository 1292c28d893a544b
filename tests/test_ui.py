"""Workflow files as people have them: the editor's format, API JSON, pictures."""

from __future__ import annotations

import copy
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from flowtailor.errors import FlowtailorError
from flowtailor.workflows.catalog import Catalog
from flowtailor.workflows.ui import is_ui, load_workflow, ui_to_api
from flowtailor.workflows.validate import problems

DATA = Path(__file__).parent / "data"


@pytest.fixture
def catalog(catalog_0375: Catalog) -> Catalog:
    return catalog_0375


@pytest.fixture
def ui() -> dict[str, Any]:
    return json.loads((DATA / "ui_flow.json").read_text())


@pytest.fixture
def nested() -> dict[str, Any]:
    return json.loads((DATA / "ui_subgraph.json").read_text())


def node(ui: dict[str, Any], node_id: int) -> dict[str, Any]:
    return next(n for n in ui["nodes"] if n["id"] == node_id)


def test_the_editor_format_becomes_a_workflow_that_the_engine_accepts(ui, catalog):
    api = ui_to_api(ui, catalog)
    assert problems(api, catalog) == []
    assert set(api) == {"1", "3", "5", "6", "7", "9", "10"}


def test_widget_values_get_their_names_and_the_seed_control_goes(ui, catalog):
    inputs = ui_to_api(ui, catalog)["7"]["inputs"]
    assert (inputs["seed"], inputs["steps"], inputs["cfg"]) == (42, 8, 2.5)
    assert (inputs["sampler_name"], inputs["scheduler"], inputs["denoise"]) == ("euler", "normal", 1)


def test_a_primitive_overrides_a_converted_widget(ui, catalog):
    assert ui_to_api(ui, catalog)["3"]["inputs"]["text"] == "a red apple"


def test_bypassed_nodes_and_reroutes_pass_through(ui, catalog):
    api = ui_to_api(ui, catalog)
    assert api["7"]["inputs"]["model"] == ["1", 0]
    assert api["3"]["inputs"]["clip"] == ["1", 1]
    assert api["9"]["inputs"]["vae"] == ["1", 2]


def test_a_muted_source_leaves_the_input_open(ui, catalog):
    node(ui, 6)["mode"] = 2
    api = ui_to_api(ui, catalog)
    assert "latent_image" not in api["7"]["inputs"]
    assert [p.type for p in problems(api, catalog)] == ["required_input_missing"]


def test_widgets_that_came_later_have_their_defaults(ui, catalog):
    node(ui, 7)["widgets_values"] = [42, "fixed", 8]
    assert ui_to_api(ui, catalog)["7"]["inputs"]["cfg"] == 8.0


def test_braces_that_were_escaped_lose_their_backslash(ui, catalog):
    """As in the editor's own export; a bare {prompt} is what it would take the braces from."""
    node(ui, 5)["widgets_values"] = [r"\{prompt\}, {red|green}"]
    assert ui_to_api(ui, catalog)["5"]["inputs"]["text"] == "{prompt}, {red|green}"


def test_widget_values_by_name(ui, catalog):
    node(ui, 6)["widgets_values"] = {"width": 96, "height": 32, "batch_size": 1}
    assert ui_to_api(ui, catalog)["6"]["inputs"] == {"width": 96, "height": 32, "batch_size": 1}


def test_titles_are_kept(ui, catalog):
    assert ui_to_api(ui, catalog)["3"]["_meta"] == {"title": "Positive"}


def test_subgraphs_are_expanded(nested, catalog):
    api = ui_to_api(nested, catalog)
    assert set(api) == {"1", "2:7", "2:8", "3"}
    assert api["2:7"]["inputs"]["image"] == ["1", 0]
    assert api["3"]["inputs"]["images"] == ["2:8", 0]
    assert problems(api, catalog) == []


def test_a_widget_shown_on_the_subgraph_overrides_the_one_inside(nested, catalog):
    assert ui_to_api(nested, catalog)["2:7"]["inputs"]["width"] == 32
    node(nested, 2)["widgets_values"] = []
    assert ui_to_api(nested, catalog)["2:7"]["inputs"]["width"] == 16


def test_a_subgraph_says_which_widgets_it_shows(nested, catalog):
    """Newer files list widgets of nodes inside among its own, which those nodes keep the value of."""
    shown = node(nested, 2)
    shown["properties"] = {"proxyWidgets": [["7", "height"], ["-1", "width"]]}
    shown["widgets_values"] = [48, 32]
    inputs = ui_to_api(nested, catalog)["2:7"]["inputs"]
    assert (inputs["width"], inputs["height"]) == (32, 16)
    shown["widgets_values"] = [None, None]
    assert ui_to_api(nested, catalog)["2:7"]["inputs"]["width"] == 16
    shown["widgets_values"] = [48]
    assert ui_to_api(nested, catalog)["2:7"]["inputs"]["width"] == 16
    for listed in ('[["-1", "width"]]', [["7", "width", "of a nested one"]]):
        shown.update(properties={"proxyWidgets": listed}, widgets_values=[24])
        assert ui_to_api(nested, catalog)["2:7"]["inputs"]["width"] == 24


@pytest.mark.parametrize(
    "bypassed",
    [
        {"type": "Reroute", "inputs": [{"name": "", "type": "*", "link": 1}]},
        {
            "type": "ResizeImageMaskNode",
            "inputs": [
                {"name": "mask", "type": "MASK", "link": None},
                {"name": "input", "type": "IMAGE,MASK", "link": 1},
            ],
        },
        {
            "type": "Picky",
            "inputs": [
                {"name": "sampler", "type": ["euler", "heun"], "link": None},
                {"name": "image", "type": 0, "link": 1},
            ],
        },
    ],
    ids=["any", "several", "old"],
)
def test_a_bypassed_node_passes_on_what_the_next_one_takes(bypassed: dict[str, Any], catalog: Catalog):
    nodes = [
        {"id": 1, "type": "EmptyImage", "widgets_values": [64, 64, 1, 0]},
        {"id": 2, "mode": 4, "outputs": [{"name": "", "type": "IMAGE"}], **bypassed},
        {"id": 3, "type": "PreviewImage", "inputs": [{"name": "images", "type": "IMAGE", "link": 2}]},
    ]
    links = [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 0, "IMAGE"]]
    assert ui_to_api({"nodes": nodes, "links": links}, catalog)["3"]["inputs"]["images"] == ["1", 0]


def test_a_bypassed_subgraph_passes_through(nested, catalog):
    node(nested, 2)["mode"] = 4
    api = ui_to_api(nested, catalog)
    assert set(api) == {"1", "3"}
    assert api["3"]["inputs"]["images"] == ["1", 0]


def test_choices_that_bring_their_own_inputs(catalog_0300):
    resize = {"id": 1, "type": "ResizeImageMaskNode", "widgets_values": ["scale by multiplier", 0.5, "area"]}
    inputs = ui_to_api({"nodes": [resize], "links": []}, catalog_0300)["1"]["inputs"]
    assert inputs == {
        "resize_type": "scale by multiplier",
        "resize_type.multiplier": 0.5,
        "scale_method": "area",
    }


@pytest.mark.parametrize("suffix", ["ui", "api", "wrapped_ui"])
def test_every_kind_of_file_gives_the_same_workflow(ui, catalog, tmp_path, suffix):
    api = ui_to_api(ui, catalog)
    png = PngInfo()
    if suffix != "wrapped_ui":
        png.add_text("prompt", json.dumps(api))
    png.add_text("workflow", json.dumps(ui))
    picture, text = tmp_path / "picture.png", tmp_path / "flow.json"
    Image.new("RGB", (4, 4)).save(picture, pnginfo=png)
    text.write_text(json.dumps(ui if suffix == "ui" else api))
    assert load_workflow(picture, catalog).to_api() == load_workflow(text, catalog).to_api() == api


def test_a_picture_too_big_to_be_opened_is_read_all_the_same(catalog, plain_api, tmp_path):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    text = b"prompt\0" + json.dumps(plain_api).encode()
    chunks = (b"IHDR", size), (b"tEXt", text), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")
    picture = tmp_path / "huge.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks))
    assert load_workflow(picture, catalog).to_api() == plain_api


def test_only_the_editor_format_has_a_list_of_nodes(ui, catalog):
    assert is_ui(ui)
    assert not is_ui(ui_to_api(ui, catalog))


def test_unknown_classes_are_named(ui, catalog):
    node(ui, 7)["type"] = "SomebodysSampler"
    with pytest.raises(FlowtailorError, match="node 7: class SomebodysSampler is not in the catalog"):
        ui_to_api(ui, catalog)


def test_loops_end(ui, nested, catalog):
    node(ui, 8)["inputs"][0]["link"] = 12
    with pytest.raises(FlowtailorError, match="loop"):
        ui_to_api(ui, catalog)
    definition = nested["definitions"]["subgraphs"][0]
    definition["nodes"].append(copy.deepcopy(node(nested, 2)))
    with pytest.raises(FlowtailorError, match="contains itself"):
        ui_to_api(nested, catalog)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "must be a JSON object"),
        (b'{"nodes": [{"id": 1}]}', "not as ComfyUI saves it"),
        (b"\x89PNG broken", "broken PNG"),
    ],
)
def test_broken_files_are_named_in_one_line(catalog, tmp_path, content, message):
    file = tmp_path / "flow"
    file.write_bytes(content)
    with pytest.raises(FlowtailorError, match=message) as caught:
        load_workflow(file, catalog)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_and_plain_pictures(catalog, tmp_path):
    with pytest.raises(FlowtailorError, match="cannot be read"):
        load_workflow(tmp_path / "absent.json", catalog)
    Image.new("RGB", (4, 4)).save(tmp_path / "plain.png")
    with pytest.raises(FlowtailorError, match="carries no workflow"):
        load_workflow(tmp_path / "plain.png", catalog)
