"""Augmentation: many distinct valid workflows from a few, reproducible by seed."""

import conftest
import pytest

from flowtailor.datasets.flows import load_seed_flows
from flowtailor.errors import FlowtailorError
from flowtailor.workflows.augment import augment, including, variants
from flowtailor.workflows.catalog import Catalog
from flowtailor.workflows.codec import decode, encode
from flowtailor.workflows.grammar import Grammar
from flowtailor.workflows.graph import Workflow
from flowtailor.workflows.space import STUDIO_SPACE, Space
from flowtailor.workflows.validate import problems

SEEDS = list(load_seed_flows().values())


def test_a_thousand_distinct_valid_workflows(space: Space):
    flows = augment(SEEDS, space, 1_000, seed=1)
    assert len({flow.key for flow in flows}) == 1_000
    for flow in flows:
        assert problems(flow.bind("a red apple", 1), space.catalog) == []
        assert decode(encode(flow, space), space) == flow
    used = {node.class_type for flow in flows for node in flow.nodes.values()}
    assert used == set(space.rules)


def test_seed_flows_come_first_and_the_seed_decides_the_rest(space: Space):
    first = augment(SEEDS, space, 60, seed=2)
    assert [flow.key for flow in first[: len(SEEDS)]] == [flow.canonical(space.catalog).key for flow in SEEDS]
    assert [flow.key for flow in first] == [flow.key for flow in augment(SEEDS, space, 60, seed=2)]
    assert {flow.key for flow in first} != {flow.key for flow in augment(SEEDS, space, 60, seed=3)}


def test_half_of_the_new_flows_are_seeds_with_another_checkpoint(space: Space):
    def without_model(flow: Workflow) -> tuple[str, ...]:
        return tuple(word for word in encode(flow, space) if not word.startswith("ckpt_name="))

    flows = augment(SEEDS, space, len(SEEDS) + 60, seed=2)
    known = {without_model(flow) for flow in flows[: len(SEEDS)]}
    assert 28 <= sum(without_model(flow) in known for flow in flows[len(SEEDS) :]) <= 36


def test_variants_are_few_edits_away_from_their_seeds_and_none_of_them(space: Space):
    seeds = [flow.canonical(space.catalog) for flow in SEEDS]
    found = variants(seeds, space, 100, seed=1)
    assert found == variants(seeds, space, 100, seed=1)
    assert 20 < len({flow.key for flow in found} - {flow.key for flow in seeds}) == len(found)
    assert not any(problems(flow.bind("a red apple", 1), space.catalog) for flow in found)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("word", ["ckpt_name=kitchen.ckpt", "strength_model=0.8", "scale_by=0.75"])
def test_a_value_is_put_into_a_workflow_with_a_node_if_need_be(space: Space, word: str, seed: int):
    plain = load_seed_flows()["plain"].canonical(space.catalog)
    flow = including(plain, word, Grammar(space), seed=seed)
    assert flow is not None
    assert word in encode(flow, space)
    assert problems(flow.bind("a red apple", 1), space.catalog) == []
    assert flow == including(plain, word, Grammar(space), seed=seed)


@pytest.mark.parametrize(
    ("upscalers", "word"),
    [
        (["u.pth"], "UpscaleModelLoader"),
        (["u.pth"], "ImageUpscaleWithModel"),
        (["u.pth", "v.pth"], "model_name=v.pth"),
    ],
)
def test_the_first_models_of_a_kind_come_with_the_nodes_that_they_need(
    upscalers: list[str], word: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(conftest.INSTALLED, ("UpscaleModelLoader", "model_name"), upscalers)
    space = Space.default(conftest.saved_catalog("0.3.75"))
    plain = load_seed_flows()["plain"].canonical(space.catalog)
    for seed in range(3):
        flow = including(plain, word, Grammar(space), seed=seed)
        assert flow is not None
        assert word in encode(flow, space)
        assert problems(flow.bind("a red apple", 1), space.catalog) == []


def test_a_loader_of_what_is_there_already_comes_in_its_place(catalog_0375: Catalog):
    text = STUDIO_SPACE.read_text() + "\n[nodes.unCLIPCheckpointLoader]\n"
    space = Space(text, catalog_0375, "space.toml")
    plain = load_seed_flows()["plain"].canonical(space.catalog)
    flow = including(plain, "unCLIPCheckpointLoader", Grammar(space))
    assert flow is not None
    assert "unCLIPCheckpointLoader" in encode(flow, space)


def test_a_value_that_nothing_takes_is_told(space: Space):
    assert including(SEEDS[0].canonical(space.catalog), "ckpt_name=none.ckpt", Grammar(space)) is None


def test_no_seed_in_the_space_is_an_error(space: Space):
    with pytest.raises(FlowtailorError, match="holds none of the 0 seed workflows"):
        augment([], space, 10)
