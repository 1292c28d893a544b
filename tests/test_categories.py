"""Categories told from sentence features: names that were left out, two categories, one alone."""

from pathlib import Path

import pytest
import torch

from flowtailor.models.categories import Categories, category_layer
from flowtailor.models.text import TextEncoder

from .synthetic_rows import ANIMALS, FOODS


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder.load()


def labelled(last: int) -> dict[str, str]:
    return {f"a {name}": "animals" for name in ANIMALS[:last]} | {
        f"a {name}": "food" for name in FOODS[:last]
    }


def layer_of(prompts: dict[str, str], encoder: TextEncoder) -> torch.nn.Linear:
    return category_layer(encoder.encode(list(prompts)), list(prompts.values()))


def test_names_that_were_left_out_are_told(encoder):
    layer = layer_of(labelled(20), encoder)
    animals, foods = (layer(encoder.encode([f"a {n}" for n in names[20:]])) for names in (ANIMALS, FOODS))
    assert (animals.argmax(1) == 0).float().mean() > 0.8
    assert (foods.argmax(1) == 1).float().mean() > 0.8


def test_three_categories_are_told_by_probability(encoder):
    tools = dict.fromkeys(("a hammer", "a drill", "a saw"), "tools")
    layer = layer_of({**labelled(20), **tools}, encoder)
    share = layer(encoder.encode(["a tomato soup", "a screwdriver"])).softmax(-1)
    assert share.shape == (2, 3)
    assert share.argmax(1).tolist() == [1, 2]


def test_one_category_alone_says_nothing(encoder):
    layer = layer_of({"a fox": "animals", "a cat": "animals"}, encoder)
    assert torch.equal(layer(encoder.encode(["a dog", "a pie"])).softmax(-1), torch.ones(2, 1))


def test_saved_and_found_again_they_say_the_same(tmp_path: Path):
    categories = Categories.fit(labelled(20), "minilm-l6")
    assert Categories.find(tmp_path) is None
    categories.save(tmp_path)
    found = Categories.find(tmp_path)
    assert found is not None and found.names == ("animals", "food")
    said = [found.of(f"a {name}") for name in (*ANIMALS[20:], *FOODS[20:])]
    assert said == [categories.of(f"a {name}") for name in (*ANIMALS[20:], *FOODS[20:])]
    assert set(said) == {"animals", "food"}
