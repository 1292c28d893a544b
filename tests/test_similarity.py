"""Similarity of workflows by their tokens."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flowtailor.workflows.similarity import Known, likeness, similarity

PLAIN = ["CheckpointLoaderSimple", "CLIPTextEncode", "KSampler", "steps=8", "VAEDecode", "SaveImage"]
MORE_STEPS = ["steps=16" if token == "steps=8" else token for token in PLAIN]
UPSCALED = [*PLAIN[:-1], "UpscaleModelLoader", "ImageUpscaleWithModel", "SaveImage"]

sequences = st.lists(st.sampled_from("abcd"), max_size=8)


@given(sequences, sequences)
def test_symmetric_within_bounds_and_one_only_for_equal_parts(left: list[str], right: list[str]):
    value = similarity(left, right)
    assert value == similarity(right, left)
    assert 0.0 <= value <= 1.0
    assert similarity(left, left) == 1.0
    if value == 1.0:
        assert sorted(left) == sorted(right)


def test_order_counts_as_structure():
    assert similarity(["a", "b", "c"], ["c", "b", "a"]) == 0.5


def test_graph_and_values_are_told_apart():
    assert likeness(PLAIN, PLAIN) == (1.0, 1.0)
    assert likeness(PLAIN, MORE_STEPS) == (1.0, 0.0)
    structure, parameters = likeness(PLAIN, UPSCALED)
    assert structure < 1.0 and parameters == 1.0


def test_a_value_belongs_to_the_class_it_is_set_on():
    left, right = ["KSampler", "LATENT@1", "steps=8"], ["LoraLoader", "steps=8"]
    assert likeness(left, right).parameters == 0.0


def test_a_changed_number_is_nearer_than_an_added_block():
    assert 1.0 > similarity(PLAIN, MORE_STEPS) > 0.4
    assert Known([UPSCALED, PLAIN]).nearest(MORE_STEPS) == (similarity(MORE_STEPS, PLAIN), tuple(PLAIN))
    assert Known([]).nearest(PLAIN) == (0.0, ())
