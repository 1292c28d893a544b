"""The codec: workflows as words and back, and how short the words are."""

import json
import random

import pytest

from flowtailor.datasets.flows import load_seed_flows
from flowtailor.workflows.codec import DecodeError, decode, encode, respelled
from flowtailor.workflows.grammar import Grammar
from flowtailor.workflows.graph import Node, Workflow
from flowtailor.workflows.space import OutOfSpace, Space

SEEDS = load_seed_flows()


@pytest.mark.parametrize("name", SEEDS)
def test_seed_flows_come_back_exactly(name: str, space: Space):
    flow = SEEDS[name]
    assert decode(encode(flow, space), space) == flow.canonical(space.catalog)


def test_defaults_are_left_out(space: Space):
    words = encode(SEEDS["plain"], space)
    assert words == [
        "VAEDecode", "KSampler", "CheckpointLoaderSimple",
        "CLIPTextEncode", "CLIPTextEncode", "text=empty", "EmptySD3LatentImage", "<end>",
    ]  # fmt: skip


def test_a_default_is_written_only_where_the_next_word_would_be_mistaken_for_it(space: Space):
    """After the averaged prompt, one more prompt could be its second half or the negative."""
    core = ["VAEDecode", "KSampler", "CheckpointLoaderSimple", "ConditioningAverage", "CLIPTextEncode"]
    with_negative = [*core, "CONDITIONING@1", "CLIPTextEncode", "text=empty", "EmptySD3LatentImage", "<end>"]
    assert encode(decode(with_negative, space), space) == with_negative
    without = [*core, "CONDITIONING@1", "EmptySD3LatentImage", "<end>"]
    assert encode(decode(without, space), space) == [*core, "EmptySD3LatentImage", "<end>"]


def test_whatever_the_grammar_lets_through_has_one_spelling(space: Space):
    grammar, rng = Grammar(space), random.Random(3)
    for _ in range(100):
        said = [space.vocabulary[i] for i in grammar.sample(rng)]
        words = respelled(said, space)
        assert decode(words, space) == decode(said, space)
        assert respelled(words, space) == words


def test_what_the_space_does_not_hold_is_named(space: Space):
    flow = SEEDS["plain"]
    (sampler,) = [i for i, n in flow.nodes.items() if n.class_type == "KSampler"]
    odd = Node("KSampler", {**flow.nodes[sampler].inputs, "steps": 7})
    with pytest.raises(OutOfSpace, match=r"KSampler\), input steps = 7: the space allows 8, 1, 2"):
        encode(Workflow({**flow.nodes, sampler: odd}), space)
    with pytest.raises(DecodeError, match="word 2, 'steps=7': not in the vocabulary"):
        decode(["VAEDecode", "steps=7"], space)
    with pytest.raises(DecodeError, match="word 2: word '<end>' fits no open need"):
        decode(["VAEDecode"], space)
    beyond = ["VAEDecode", "KSampler", *["LoraLoader"] * 5, "CheckpointLoaderSimple"]
    with pytest.raises(
        DecodeError, match="word 9: word '<end>' fits no open need"
    ):  # more CLIPs than words for them
        decode(beyond, space)


def test_words_are_far_fewer_than_characters_of_json(space: Space):
    """A floor without a tokenizer; `benchmarks/bench_tokens.py` measures against SmolLM2's."""
    ratios = [
        len(encode(flow, space)) / len(json.dumps(flow.to_api(), separators=(",", ":")))
        for flow in SEEDS.values()
    ]
    assert sum(ratios) / len(ratios) < 1 / 60
