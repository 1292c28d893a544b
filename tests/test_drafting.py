"""A space for somebody's own engine: drawn from plain exports, it holds them, and designs in it are valid."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from conftest import saved_catalog
from exports import FLUX, SDXL, Api, cropping, node

from flowtailor.actors.client import ComfyClient
from flowtailor.pipelines.catalog import read_world, write_catalog
from flowtailor.pipelines.config_file import load_config
from flowtailor.pipelines.stage import Run
from flowtailor.workflows.augment import augment
from flowtailor.workflows.catalog import Catalog
from flowtailor.workflows.codec import canonical_words, decode
from flowtailor.workflows.counterfactual import LEFT_OUT, counterfactuals
from flowtailor.workflows.drafting import draft, is_safe
from flowtailor.workflows.grammar import Grammar
from flowtailor.workflows.graph import PROMPT, Link, Workflow, WorkflowError
from flowtailor.workflows.slots import made_ready
from flowtailor.workflows.space import Space
from flowtailor.workflows.validate import problems

MODELS = {
    ("CheckpointLoaderSimple", "ckpt_name"): ["dreamshaper.safetensors", "sd_xl_base.safetensors"],
    ("LoraLoader", "lora_name"): ["add_detail.safetensors"],
    ("UpscaleModelLoader", "model_name"): [],
    ("UNETLoader", "unet_name"): ["flux1-dev.safetensors", "flux1-schnell.safetensors"],
    ("DualCLIPLoader", "clip_name1"): ["clip_l.safetensors", "t5xxl.safetensors"],
    ("DualCLIPLoader", "clip_name2"): ["clip_l.safetensors", "t5xxl.safetensors"],
    ("VAELoader", "vae_name"): ["ae.safetensors"],
}


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return with_models("0.3.75")


def with_models(version: str) -> Catalog:
    """A real engine's answer, with other models than the studio's."""
    info = json.loads(json.dumps(saved_catalog(version).to_json()))
    for (class_type, name), models in MODELS.items():
        declared = info[class_type]["input"]["required"][name]
        declared[:] = ["COMBO", {"options": models}] if declared[0] == "COMBO" else [models]
    return Catalog(info)


def drafted(catalog: Catalog, *exports: Api) -> tuple[Space, list[Workflow]]:
    flows = [made_ready(Workflow.from_api(api)) for api in exports]
    return Space(draft(dict(zip("abc", flows, strict=False)), catalog), catalog, "space.toml"), flows


@pytest.mark.parametrize("exports", [(SDXL,), (FLUX,), (SDXL, FLUX)], ids=["sdxl", "flux", "both"])
def test_what_somebody_exported_lies_in_the_space_drawn_from_it(catalog: Catalog, exports: tuple[Api, ...]):
    space, flows = drafted(catalog, *exports)
    for flow in flows:
        canonical = flow.canonical(catalog)
        assert decode(canonical_words(canonical, space), space) == canonical
    assert space.missing == ()


@pytest.mark.parametrize("export", [SDXL, FLUX], ids=["sdxl", "flux"])
def test_variations_and_random_designs_in_it_are_valid(catalog: Catalog, export: Api):
    space, flows = drafted(catalog, export)
    grammar, rng = Grammar(space, max_tokens=64), random.Random(0)
    drawn = [decode([grammar.vocabulary[i] for i in grammar.sample(rng)], space) for _ in range(20)]
    for flow in [*augment(flows, space, n=40), *drawn]:
        assert problems(flow.bind("a fox", 1).to_api(), catalog) == []
        assert PROMPT not in flow.bind("a fox", 1).dumps()


def test_a_second_pass_of_a_custom_sampler_is_left_out_with_what_prepares_it(catalog: Catalog):
    """Its seed stands on another node; the enlarged latent alone would be decoded as it is, blurred."""
    enlarged = node("LatentUpscaleBy", samples=["12", 0], upscale_method="bicubic", scale_by=1.5)
    again = node(
        "SamplerCustomAdvanced", noise=["17", 0], guider=["7", 0], sampler=["9", 0], sigmas=["16", 0]
    )
    again["inputs"]["latent_image"] = ["15", 0]
    hires = FLUX | {
        "15": enlarged,
        "16": node("BasicScheduler", model=["1", 0], scheduler="simple", steps=10, denoise=0.5),
        "17": node("RandomNoise", noise_seed=5),
        "18": again,
        "13": node("VAEDecode", samples=["18", 0], vae=["3", 0]),
    }
    space, [plain, flow] = drafted(catalog, FLUX, hires)
    words = canonical_words(flow.canonical(catalog), space)
    left_out = [one.tokens for one in counterfactuals(words, space) if one.change == LEFT_OUT]
    assert canonical_words(plain.canonical(catalog), space) in left_out
    assert all("LatentUpscaleBy" not in tokens or "SamplerCustomAdvanced" in tokens for tokens in left_out)


def test_the_first_value_is_the_workflow_s_and_others_are_offered_beside_it(catalog: Catalog):
    space, _ = drafted(catalog, SDXL)
    offered = {param.name: param.values for param in space.rules["KSampler"].params}
    assert offered["steps"] == (25, 12, 19, 38)
    assert offered["cfg"][0] == 7.0
    assert offered["sampler_name"][:2] == ("dpmpp_2m", "euler")
    [models] = space.rules["CheckpointLoaderSimple"].params
    assert models.values == ("sd_xl_base.safetensors", "dreamshaper.safetensors")
    assert "LoraLoader" in space.rules  # there is one installed
    assert "UpscaleModelLoader" not in space.rules  # there is none


def test_a_file_that_happens_to_come_first_is_named_all_the_same(catalog: Catalog):
    """Tomorrow another one may be installed that comes before it."""
    text = draft({"flux": made_ready(Workflow.from_api(FLUX))}, catalog)
    assert 'vae_name = ["ae.safetensors"]' in text
    assert 'clip_name1 = ["t5xxl.safetensors"]' in text


def test_values_that_differ_by_a_rounding_are_told_apart(catalog: Catalog):
    first, other = (json.loads(json.dumps(SDXL)) for _ in range(2))
    first["3"]["inputs"]["cfg"], other["3"]["inputs"]["cfg"] = 0.8000000000000002, 0.8
    space, flows = drafted(catalog, first, other)
    for flow in flows:
        canonical = flow.canonical(catalog)
        assert decode(canonical_words(canonical, space), space) == canonical


def test_an_older_export_that_lacks_an_optional_value_lies_in_the_space_too(catalog: Catalog):
    older = json.loads(json.dumps(FLUX))
    loader = next(n for n in older.values() if n["class_type"] == "DualCLIPLoader")
    newer = json.loads(json.dumps(FLUX))
    loader["inputs"].pop("device", None)
    for one in newer.values():
        if one["class_type"] == "DualCLIPLoader":
            one["inputs"]["device"] = "default"
    space, flows = drafted(catalog, older, newer)
    assert len({canonical_words(flow, space) for flow in flows}) == 1


def test_a_text_in_any_script_gives_its_word_a_name(catalog: Catalog):
    api = json.loads(json.dumps(SDXL).replace("blurry, text", "\\u4f4e\\u8d28\\u91cf"))
    space, _ = drafted(catalog, api)
    assert "text=\u4f4e\u8d28\u91cf" in space.vocabulary


def test_a_box_lies_in_the_space_of_its_workflow():
    export = cropping(x=0, y=8, width=256, height=256)
    flow, later = made_ready(Workflow.from_api(export)), saved_catalog("0.30.0")
    assert "crop_region = [{x = 0, y = 8, width = 256, height = 256}]" in draft({"a": flow}, later)


def test_boxes_that_differ_are_values_like_others():
    exports = [cropping(x=0, y=y, width=256, height=256) for y in (0, 8)]
    space, flows = drafted(with_models("0.30.0"), *exports)
    [crop] = space.rules["ImageCropV2"].params
    assert len(crop.values) == 2
    assert [flow.key for flow in augment(flows, space, n=20)][:2] == [
        flow.canonical(space.catalog).key for flow in flows
    ]


def test_several_choices_at_once_are_a_value_too(catalog: Catalog):
    info = json.loads(json.dumps(catalog.to_json()))
    tags = ["COMBO", {"options": ["sky", "sea", "sand"], "multiselect": True, "default": []}]
    info["Tagged"] = info["ImageInvert"] | {"input": {"required": {"image": ["IMAGE"], "tags": tags}}}
    exports = [
        SDXL
        | {
            "20": node("Tagged", image=["8", 0], tags={"__value__": chosen}),
            "9": node("SaveImage", images=["20", 0], filename_prefix="ComfyUI"),
        }
        for chosen in (["sky"], ["sky", "sea"])
    ]
    space, flows = drafted(Catalog(info), *exports)
    assert space.missing == ()
    assert len(augment(flows, space, n=10)) == 10


def test_a_default_of_the_wrong_kind_does_not_put_workflows_out_of_the_space(catalog: Catalog):
    info = json.loads(json.dumps(catalog.to_json()))
    info["EmptyLatentImage"]["input"]["required"]["width"][1]["default"] = "1024"
    space, [flow] = drafted(Catalog(info), SDXL)
    canonical = flow.canonical(space.catalog)
    assert "width" not in space.text
    assert decode(canonical_words(canonical, space), space) == canonical


def test_several_pictures_of_one_input_do_not_stop_a_draft():
    batch = {"images.image0": ["8", 0], "images.image1": ["20", 0]}
    empty = node("EmptyImage", width=64, height=64, batch_size=1, color=0)
    saved = node("SaveImage", images=["21", 0], filename_prefix="ComfyUI")
    export = SDXL | {"20": empty, "21": node("BatchImagesNode", **batch), "9": saved}
    later = saved_catalog("0.30.0")
    text = draft({"a": made_ready(Workflow.from_api(export))}, later)
    assert "[nodes.BatchImagesNode]" in text
    assert "makes its COMFY_AUTOGROW_V3" in Space(text, later, "space.toml").why_not("BatchImagesNode")


def test_a_class_with_an_odd_name_stands_in_the_draft(catalog: Catalog):
    info = json.loads(json.dumps(catalog.to_json()))
    info["Invert++"] = info["ImageInvert"]
    odd = Catalog(info)
    saved = node("SaveImage", images=["20", 0], filename_prefix="ComfyUI")
    export = SDXL | {"20": node("Invert++", image=["8", 0]), "9": saved}
    space, [flow] = drafted(odd, export)
    assert "Invert++" in canonical_words(flow.canonical(odd), space)


def test_nodes_that_nobody_vouches_for_are_left_out_and_named(catalog: Catalog):
    info = json.loads(json.dumps(catalog.to_json()))
    info["MyPack"] = info["ImageInvert"] | {"python_module": "custom_nodes.my_pack"}
    mine = Catalog(info)
    export = SDXL | {
        "20": node("MyPack", image=["8", 0]),
        "9": node("SaveImage", images=["20", 0], filename_prefix="ComfyUI"),
    }
    text = draft({"mine": made_ready(Workflow.from_api(export))}, mine)
    assert "# left out, add it if designs may use it: MyPack" in text
    assert "MyPack" not in Space(text, mine, "space.toml").rules
    for unsafe in ("LoadImage", "SaveAnimatedWEBP", "SaveLatent", "LoadLatent", "PreviewImage"):
        assert not is_safe(mine[unsafe])
    for safe in ("KSampler", "CheckpointLoaderSimple", "SaveImage", "UNETLoader", "FluxGuidance"):
        assert is_safe(mine[safe])


def test_previews_give_way_to_what_is_saved():
    preview = node("PreviewImage", images=["8", 0])
    both = made_ready(Workflow.from_api(SDXL | {"20": preview}))
    assert both == made_ready(Workflow.from_api(SDXL))
    shown = made_ready(Workflow.from_api({i: n for i, n in SDXL.items() if i != "9"} | {"20": preview}))
    kinds = [n.class_type for n in shown.nodes.values()]
    assert kinds.count("SaveImage") == 1 and "PreviewImage" not in kinds
    passing = SDXL | {"20": preview, "9": node("SaveImage", images=["20", 0], filename_prefix="ComfyUI")}
    assert made_ready(Workflow.from_api(passing)).nodes["9"].inputs["images"] == Link("8", 0)


def test_the_prompt_s_place_is_found():
    def texts(api: Api) -> set[Any]:
        flow = made_ready(Workflow.from_api(api))
        return {node.inputs["text"] for node in flow.nodes.values() if "text" in node.inputs}

    assert texts(SDXL) == {PROMPT, "blurry, text"}
    assert texts(FLUX) == {PROMPT}  # through a primitive node, which is gone
    control = node("ControlNetApplyAdvanced", positive=["6", 0], negative=["7", 0], strength=0.8)
    sampler = node("KSampler", **SDXL["3"]["inputs"] | {"positive": ["20", 0], "negative": ["20", 1]})
    assert texts(SDXL | {"20": control, "3": sampler}) == {PROMPT, "blurry, text"}  # one node takes both
    ready = json.loads(json.dumps(SDXL).replace("a cosy library", "a drawing of {prompt}"))
    assert texts(ready) == {"a drawing of {prompt}, warm light", "blurry, text"}  # left as it is
    with pytest.raises(WorkflowError, match="where the prompt belongs"):
        made_ready(Workflow.from_api({"9": SDXL["9"]}))


@pytest.mark.engine
def test_a_server_of_one_s_own_needs_exports_and_nothing_else(
    comfy: ComfyClient, plain_api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    exported = json.loads(json.dumps(plain_api).replace("{prompt}", "a cosy library"))
    exported["5"]["inputs"]["seed"] = 77
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows/mine.json").write_text(json.dumps(exported))
    stranger = exported | {"4": node("LoadLatent", latent="no.latent")}
    (tmp_path / "flows/stranger.json").write_text(json.dumps(stranger))
    mine = [f'engine.urls=["{comfy.base_url}"]', f'space.flows="{tmp_path}/flows"', f'run.root="{tmp_path}"']
    config = load_config("comfyui", mine)
    write_catalog(config)
    told = capsys.readouterr().out
    assert "workflow stranger lies outside of it" in told and "LoadLatent" in told
    assert "workflow mine" not in told
    _, space = read_world(Run(config))
    [flow] = augment([made_ready(Workflow.from_api(exported))], space, n=1)
    rendered = comfy.render(flow.bind("a red apple", 1).to_api(), 60)
    assert rendered.png.startswith(b"\x89PNG")
