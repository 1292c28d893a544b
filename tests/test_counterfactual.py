"""Neighbours of a design: one part less or one value plain, always valid."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtailor.datasets.flows import load_seed_flows
from flowtailor.workflows.codec import canonical_words, decode, encode
from flowtailor.workflows.counterfactual import LEFT_OUT, counterfactuals
from flowtailor.workflows.grammar import Grammar
from flowtailor.workflows.space import Space
from flowtailor.workflows.validate import problems

SEEDS = load_seed_flows()
PLAIN = (
    "VAEDecode KSampler CheckpointLoaderSimple CLIPTextEncode CLIPTextEncode text=empty EmptySD3LatentImage"
)


def changes(name: str, space: Space) -> dict[tuple[str, str], str]:
    """(component, change) -> the neighbour's words, of a seed flow."""
    found = counterfactuals(encode(SEEDS[name], space), space)
    return {(one.component, one.change): " ".join(one.tokens) for one in found}


@settings(max_examples=100, deadline=None)
@given(choices=st.lists(st.integers(min_value=0), max_size=64))
def test_every_neighbour_of_any_design_is_another_valid_design(space: Space, choices: list[int]):
    grammar, unlimited = Grammar(space), Grammar(space, max_tokens=None)
    state, ids = grammar.start(), []
    for choice in [*choices, *[0] * 64]:
        allowed = grammar.allowed(state)
        if not allowed:
            break
        ids.append(allowed[choice % len(allowed)])
        state = grammar.advance(state, ids[-1])
    words = [grammar.vocabulary[i] for i in ids]
    flow = decode(words, space)
    found = counterfactuals(words, space)
    assert found == counterfactuals(canonical_words(flow, space), space)
    assert len({one.tokens for one in found}) == len(found)
    for one in found:
        neighbour = decode(one.tokens, space)
        assert neighbour != flow and len(neighbour.nodes) <= len(flow.nodes)
        assert problems(neighbour.bind("a red apple", 1), space.catalog) == []
        assert canonical_words(neighbour, space) == one.tokens
        assert unlimited.accepts([*one.tokens, "<end>"])
        classes = [node.class_type for node in neighbour.nodes.values()]
        assert all(sum(c in group.classes for c in classes) <= group.limit for group in space.groups)


def test_nothing_to_leave_out_of_a_design_of_defaults(space: Space):
    assert changes("plain", space) == {}


def test_an_upscaler_goes_with_its_model(space: Space):
    found = changes("model_upscale", space)
    assert found[("upscaler studio_x2", LEFT_OUT)] == PLAIN
    kept = found[("model_name=studio_x2.safetensors", "model_name=realesr-animevideov3-x2.pth")]
    assert kept == f"ImageUpscaleWithModel UpscaleModelLoader {PLAIN}"


@pytest.mark.parametrize("name", ["latent_upscale", "pixel_second_pass"])
def test_a_second_pass_goes_with_what_prepares_it(space: Space, name: str):
    passes = [words for (part, change), words in changes(name, space).items() if "denoise 0." in part]
    assert passes == [PLAIN]


def test_each_lora_goes_alone_and_the_other_is_wired_on(space: Space):
    found = changes("two_loras", space)
    assert "lora_name=pixel_style.safetensors" in found[("LoRA fine_detail 0.3", LEFT_OUT)]
    assert "lora_name=pixel_style.safetensors" not in found[("LoRA pixel_style 0.8", LEFT_OUT)]
    assert ("strength_model=0.8 (LoraLoader 1)", "strength_model=0.5") in found


def test_values_go_back_to_the_default_and_a_canvas_is_one_value(space: Space):
    assert changes("quick_lcm", space).keys() == {
        ("steps=4", "steps=8"),
        ("cfg=1", "cfg=2"),
        ("sampler_name=lcm", "sampler_name=euler"),
    }
    assert ("width=192 height=192", "width=128 height=128") in changes("large_canvas", space)


def test_a_negative_prompt_goes_back_to_none_and_a_template_to_the_prompt(space: Space):
    texts = [pair for pair in changes("white_background", space) if pair[0].startswith("text=")]
    assert texts == [
        ("text=white (CLIPTextEncode 1)", "text={prompt}"),
        ("text=blurry (CLIPTextEncode 2)", "text=empty"),
    ]
