"""Reading `/object_info`: the old form of ComfyUI 0.3.75 and the new one of 0.30.0."""

import copy

import pytest

from flowtailor.errors import FlowtailorError
from flowtailor.workflows.catalog import Catalog


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


def test_what_is_no_catalog_is_refused(tmp_path):
    with pytest.raises(FlowtailorError, match="no such catalog"):
        Catalog.load(tmp_path / "none.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(FlowtailorError, match="not a JSON catalog"):
        Catalog.load(tmp_path / "broken.json")
    with pytest.raises(FlowtailorError, match="object_info"):
        Catalog({"KSampler": {"inputs": []}})
