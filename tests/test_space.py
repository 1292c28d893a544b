"""The space: an allow-list in TOML, cut down to what is installed."""

import random

import pytest

from flowtailor.errors import FlowtailorError
from flowtailor.workflows.catalog import Catalog
from flowtailor.workflows.grammar import Grammar
from flowtailor.workflows.rules import END, quote, value_word
from flowtailor.workflows.space import STUDIO_SPACE, Space


def write(tmp_path, text: str):
    file = tmp_path / "space.toml"
    file.write_text(text)
    return file


def test_vocabulary_is_closed_whitespace_free_and_distinct(space: Space):
    assert space.vocabulary[-1] == END
    assert len(set(space.vocabulary)) == len(space.vocabulary)
    assert all(len(word.split()) == 1 for word in space.vocabulary)


def test_only_installed_models_are_in_the_space(space: Space):
    words = set(space.vocabulary)
    assert "ckpt_name=nature.ckpt" in words
    assert not any("sd15" in word for word in words)


def test_what_the_engine_lacks_is_left_out(catalog_0375: Catalog, tmp_path):
    """No LoRA installed and an unknown class: both go, with all that only they could feed."""
    info = catalog_0375.to_json()
    declared = info["LoraLoader"]["input"]["required"]
    emptied = {
        **info,
        "LoraLoader": {**info["LoraLoader"], "input": {"required": {**declared, "lora_name": [[]]}}},
    }
    text = """
    [nodes.SaveImage]
    [nodes.VAEDecode]
    [nodes.KSampler]
    [nodes.CheckpointLoaderSimple]
    ckpt_name = "*"
    [nodes.LoraLoader]
    lora_name = "*"
    [nodes.CLIPTextEncode]
    [nodes.EmptySD3LatentImage]
    [nodes.NotInstalled]
    [nodes.ImageUpscaleWithModel]
    """
    space = Space.load(write(tmp_path, text), Catalog(emptied))
    assert space.missing == ("LoraLoader.lora_name", "NotInstalled")
    assert space.unfed == {"ImageUpscaleWithModel": "UPSCALE_MODEL"}
    assert "lacks LoraLoader.lora_name; install it" in space.why_not("LoraLoader")
    assert "makes its UPSCALE_MODEL; add what does" in space.why_not("ImageUpscaleWithModel")
    assert "add [nodes.ImageScaleBy]" in space.why_not("ImageScaleBy")
    assert "LoraLoader" not in space.rules
    assert "ImageUpscaleWithModel" not in space.rules


def test_a_loader_of_which_nothing_is_installed_is_left_out(catalog_0375: Catalog, tmp_path):
    info = catalog_0375.to_json()
    none = {**info, "VAELoader": {**info["VAELoader"], "input": {"required": {"vae_name": [[]]}}}}
    space = Space.load(write(tmp_path, STUDIO_SPACE.read_text() + "[nodes.VAELoader]\n"), Catalog(none))
    assert "VAELoader.vae_name" in space.missing
    assert "VAELoader" not in space.rules


def test_a_value_that_nobody_gives_must_be_given(catalog_0375: Catalog, tmp_path):
    """The class is installed; nothing is missing but the value."""
    info = catalog_0375.to_json()
    picky = {
        **info["ImageInvert"],
        "input": {"required": {"image": ["IMAGE"], "size": ["INT", {"default": 0, "min": 1}]}},
    }
    catalog = Catalog({**info, "Picky": picky})
    space = Space.load(write(tmp_path, STUDIO_SPACE.read_text() + "[nodes.Picky]\n"), catalog)
    assert space.unset == {"Picky": "size"} and space.missing == ()
    told = "its size has no default that the engine takes; give it under [nodes.Picky]"
    assert "Picky" not in space.rules and space.why_not("Picky") == told
    given = Space.load(write(tmp_path, STUDIO_SPACE.read_text() + "[nodes.Picky]\nsize = 2\n"), catalog)
    assert given.rules["Picky"].fixed == {"size": 2} and not given.unset
    with pytest.raises(FlowtailorError, match=r"cannot be made, Picky is left out: its size has no default"):
        Space.load(write(tmp_path, "[nodes.SaveImage]\n[nodes.Picky]\n"), catalog)


def test_a_class_may_have_dots_in_its_name(catalog_0375: Catalog, tmp_path):
    info = catalog_0375.to_json()
    text = STUDIO_SPACE.read_text() + '[nodes."Flip.v2"]\n'
    text = text.replace("[types]\n", '[types]\n"Flip.v2.IMAGE" = "FLIPPED"\n')
    text = text.replace("[accepts]\n", '[accepts]\n"Flip.v2.image" = ["FLIPPED", "IMAGE"]\n')
    space = Space.load(write(tmp_path, text), Catalog({**info, "Flip.v2": info["ImageInvert"]}))
    assert space.rules["Flip.v2"].outputs == ("FLIPPED",)
    assert space.rules["Flip.v2"].links[0].accepts == ("FLIPPED", "IMAGE")


def test_classes_that_only_feed_themselves_are_left_out(catalog_0375: Catalog, tmp_path):
    """GrowMask needs a MASK and makes one, and no other node here makes any."""
    masks = "[nodes.GrowMask]\n[nodes.SetLatentNoiseMask]\n"
    space = Space.load(write(tmp_path, STUDIO_SPACE.read_text() + masks), catalog_0375)
    assert not {"GrowMask", "SetLatentNoiseMask"} & set(space.rules)
    grammar = Grammar(space)
    for seed in range(20):
        grammar.sample(random.Random(seed))


def test_a_class_of_which_there_may_be_none_is_not_planned_with(catalog_0375: Catalog, tmp_path):
    barred = '[groups]\nnone = { classes = ["LoraLoader"], max = 0 }\n'
    text = STUDIO_SPACE.read_text().replace("[groups]\n", barred)
    space = Space.load(write(tmp_path, text), catalog_0375)
    assert "LoraLoader" not in space.rules


def test_one_text_by_two_names_is_one_value(catalog_0375: Catalog, tmp_path):
    text = STUDIO_SPACE.read_text().replace("[texts]\n", '[texts]\ntwice = "{prompt}"\n')
    space = Space.load(write(tmp_path, text.replace('["prompt", ', '["prompt", "twice", ')), catalog_0375)
    [texts] = space.rules["CLIPTextEncode"].params
    assert texts.values[0] == "{prompt}" and len(set(texts.values)) == len(texts.values)


def test_an_output_that_nothing_feeds_says_what_is_not_installed(catalog_0375: Catalog, tmp_path):
    text = "[nodes.SaveImage]\n[nodes.DreamLoader]\n[nodes.CheckpointLoaderSimple]\nckpt_name = 'sd15.ckpt'"
    lacks = r"'SaveImage' cannot be made .* lacks DreamLoader, CheckpointLoaderSimple\.ckpt_name = sd15\.ckpt"
    with pytest.raises(FlowtailorError, match=lacks):
        Space.load(write(tmp_path, text), catalog_0375)
    with pytest.raises(FlowtailorError, match="'SaveImage' must be fed by its nodes"):
        Space.load(write(tmp_path, "[nodes.SaveImage]"), catalog_0375)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[nodes.KSampler]\nsteps = [0]", "steps = 0: must be between 1 and 10000"),
        ("[nodes.KSampler]\nsteps = [2.5]", "must be INT"),
        ("[nodes.KSampler]\nstep = [2]", "KSampler has no input 'step'"),
        ("[nodes.CLIPTextEncode]\ntext = ['nice']", "no such text"),
        ("[nodes.KSampler]", "output 'SaveImage' must be one of its nodes"),
        ("[nodes", "not valid TOML"),
        ("max_nodes = 'many'", "max_nodes = 'many': must be a whole number"),
        ("nodes = 3", "nodes = 3: must be a table"),
        ("[texts]\na = 3", "texts.a = 3: must be a text, in quotes"),
        ("max_node = 10", "no such key 'max_node'; it may have accepts, groups, max_nodes"),
        ('[groups]\nloras = { classes = ["LoraLoder"], max = 2 }', "groups.loras: LoraLoder is none of the"),
        ('[groups]\nloras = { classes = ["LoraLoader"] }', "groups.loras: must say `classes` and `max`"),
        ('[groups]\nloras = { classes = [], max = "2" }', "groups.loras.max = '2': must be a whole number"),
        (
            '[types]\n"VAEDecode.IMAG" = "X"\n[nodes.VAEDecode]',
            "types.'VAEDecode.IMAG': none of its nodes",
        ),
        ('[accepts]\n"VAEDecode.sample" = []\n[nodes.VAEDecode]', "accepts.'VAEDecode.sample': none of its"),
        ('[nodes.LoraLoader]\nlinks = ["typo"]', "LoraLoader has no input 'typo'"),
        ('[accepts]\n"VAEDecode.samples" = "LATENT"\n[nodes.VAEDecode]', "must be a list of types"),
        ('[types]\n"VAEDecode.IMAGE" = ["X"]\n[nodes.VAEDecode]', "must be a type, in quotes"),
    ],
)
def test_mistakes_are_named(text: str, message: str, catalog_0375: Catalog, tmp_path):
    with pytest.raises(FlowtailorError, match=message):
        Space.load(write(tmp_path, text), catalog_0375)


def test_words_of_values():
    assert value_word("steps", 12) == "steps=12"
    assert value_word("cfg", 1.5) == "cfg=1.5"
    assert value_word("cfg", 0.8) != value_word("cfg", 0.8000000000000002)
    assert value_word("tiled", True) == "tiled=true"
    assert quote("my model.safetensors") == "my%20model.safetensors"
