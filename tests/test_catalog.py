"""Reading `/object_info`: the old form of ComfyUI 0.3.75 and the new one of 0.30.0."""

import copy
from pathlib import Path

import pytest

from flowtailor.errors import FlowtailorError
from flowtailor.pipelines import catalog as command
from flowtailor.pipelines.catalog import World, write_catalog
from flowtailor.pipelines.config_file import load_config
from flowtailor.workflows.catalog import Catalog, InputSpec
from flowtailor.workflows.space import Space


@pytest.mark.parametrize("version", ["catalog_0375", "catalog_0300"])
def test_both_forms_are_read(version: str, request: pytest.FixtureRequest):
    catalog: Catalog = request.getfixturevalue(version)
    assert len(catalog.nodes) > 400
    sampler = catalog["KSampler"]
    assert sampler.outputs == ("LATENT",)
    assert "euler" in (sampler.inputs["sampler_name"].choices or ())
    assert sampler.inputs["model"].is_link and not sampler.inputs["steps"].is_link
    assert sampler.inputs["seed"].is_seed and not sampler.inputs["steps"].is_seed
    assert catalog["SaveImage"].is_output and not catalog["VAEDecode"].is_output


def test_hash_follows_what_is_installed(catalog_0375: Catalog):
    info = catalog_0375.to_json()
    assert Catalog(dict(reversed(info.items()))).hash == catalog_0375.hash
    fewer = {name: node for name, node in info.items() if name != "KSampler"}
    assert Catalog(fewer).hash != catalog_0375.hash


def test_hash_does_not_follow_the_pictures_in_the_input_folder(catalog_0375: Catalog):
    """Nor the folder that ComfyUI makes there when it is first asked, and lists from then on."""
    info = copy.deepcopy(catalog_0375.to_json())
    info["LoadImage"]["input"]["required"]["image"][0] = ["a picture that somebody loaded.png"]
    info["LoadImageDataSetFromFolder"]["input"]["required"]["folder"][1]["options"] = ["3d"]
    assert Catalog(info).hash == catalog_0375.hash
    info["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][0] = ["a new checkpoint.ckpt"]
    assert Catalog(info).hash != catalog_0375.hash


@pytest.mark.parametrize("declared", [[], None, {}, [3], ["COMBO", {"options": None}]])
def test_a_class_that_cannot_be_read_is_left_out(declared: object, catalog_0375: Catalog):
    info = catalog_0375.to_json()
    broken = {**info["KSampler"], "input": {"required": {"model": declared}}}
    read = Catalog({**info, "Broken": broken, "Outputs": {**info["KSampler"], "output": [None]}, "No": None})
    assert read.unreadable == ("Broken", "Outputs", "No")
    assert read.to_json() == info
    assert read.hash == catalog_0375.hash
    assert read.ordered_as(catalog_0375).nodes == catalog_0375.nodes


def test_the_command_names_what_it_cannot_read(
    space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    broken = Catalog({**space.catalog.to_json(), "Broken": None})
    monkeypatch.setattr(command, "look", lambda config: World("comfyui-0.3.75", broken, space))
    write_catalog(load_config(None, [f'run.root="{tmp_path}"']))
    assert "not understood, so left out: Broken\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "options", "sent"),
    [
        ("INT", {"default": "512", "min": 16}, 512),
        ("FLOAT", {"default": "0.5", "max": 1.0}, 0.5),
        ("STRING", {"default": 3}, "3"),
        ("INT", {"default": "many"}, None),
        ("INT", {"default": "8", "min": 16}, None),
        ("INT", {"default": 8, "min": "16"}, None),  # over which the engine stumbles
        ("COLOR", {"default": "#fff", "socketless": True}, "#fff"),
    ],
)
def test_a_default_is_what_the_engine_would_read(kind: str, options: dict, sent: object):
    assert InputSpec("x", kind, True, options=options).sent_default == sent


def test_what_is_no_catalog_is_refused(tmp_path):
    with pytest.raises(FlowtailorError, match="no such catalog"):
        Catalog.load(tmp_path / "none.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(FlowtailorError, match="not a JSON catalog"):
        Catalog.load(tmp_path / "broken.json")
    with pytest.raises(FlowtailorError, match="object_info"):
        Catalog({"KSampler": {"inputs": []}})
    with pytest.raises(FlowtailorError, match="object_info"):
        Catalog([])  # pyright: ignore[reportArgumentType]
