"""The grammar: whatever it offers leads to a valid workflow, and it always leads to an end."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtailor.errors import FlowtailorError
from flowtailor.workflows.catalog import Catalog
from flowtailor.workflows.codec import decode, encode
from flowtailor.workflows.grammar import Grammar
from flowtailor.workflows.space import Space
from flowtailor.workflows.validate import problems


def words_of(grammar: Grammar, ids: list[int]) -> list[str]:
    return [grammar.vocabulary[i] for i in ids]


@pytest.mark.parametrize("count", [2_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_samples_come_back_exactly(space: Space, count: int):
    grammar, rng = Grammar(space), random.Random(count)
    for _ in range(count):
        words = words_of(grammar, grammar.sample(rng))
        flow = decode(words, space)
        assert decode(encode(flow, space), space) == flow


@settings(max_examples=200, deadline=None)
@given(choices=st.lists(st.integers(min_value=0), max_size=80), max_tokens=st.integers(8, 64))
def test_any_choice_among_the_allowed_ends_in_a_valid_workflow(
    space: Space, choices: list[int], max_tokens: int
):
    grammar = Grammar(space, max_tokens)
    state, ids = grammar.start(), []
    for choice in [*choices, *[0] * max_tokens]:
        allowed = grammar.allowed(state)
        if not allowed:
            break
        ids.append(allowed[choice % len(allowed)])
        state = grammar.advance(state, ids[-1])
    assert state.done and len(ids) <= max_tokens
    flow = grammar.workflow(state)
    assert problems(flow.bind("a red apple", 1), space.catalog) == []
    counts = [node.class_type for node in flow.nodes.values()]
    for group in space.groups:
        assert sum(class_type in group.classes for class_type in counts) <= group.limit


def test_a_word_that_does_not_fit_is_refused(space: Space):
    grammar = Grammar(space)
    with pytest.raises(ValueError, match="'CLIPTextEncode' fits no open need here"):
        grammar.advance(grammar.start(), grammar.ids["CLIPTextEncode"])


def test_limits_too_tight_for_any_design_are_refused(space: Space):
    with pytest.raises(FlowtailorError, match="max_tokens = 3"):
        Grammar(space, max_tokens=3)


def test_works_on_the_new_catalog_too(catalog_0300: Catalog):
    space = Space.default(catalog_0300)
    grammar = Grammar(space)
    for seed in range(50):
        words = words_of(grammar, grammar.sample(random.Random(seed)))
        flow = decode(words, space)
        assert problems(flow.bind("a fox", 1), catalog_0300) == []
        # There SaveImage passes its picture on, which is no reason to end a design in two of them.
        assert decode(encode(flow, space), space) == flow


def draw_samples(comfy, catalog: Catalog, count: int, seed: int) -> None:
    space = Space.default(catalog)
    grammar, rng = Grammar(space), random.Random(seed)
    for number in range(count):
        flow = decode(words_of(grammar, grammar.sample(rng)), space)
        picture = comfy.render(flow.bind("a red apple", number).to_api(), timeout_s=120)
        assert picture.width > 0


@pytest.mark.engine
def test_samples_draw_a_picture(comfy, studio_catalog: Catalog):
    draw_samples(comfy, studio_catalog, 12, seed=8)


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_three_hundred_samples_draw_a_picture(comfy, studio_catalog: Catalog):
    draw_samples(comfy, studio_catalog, 300, seed=7)
