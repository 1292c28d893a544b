"""Labels told from sentence features: names that were left out, two classes, one alone, a file and back."""

from pathlib import Path

import pytest
import torch

from flowtailor.datasets.prompts import Prompt
from flowtailor.models.labels import Labels, fit_head, likeliest
from flowtailor.models.text import TextEncoder

from .synthetic_rows import ANIMALS, FOODS

STYLES = {"3d": "a {}", "pixel": "pixel art of a {}"}
CATEGORIES = {"animals": ANIMALS, "food": FOODS}


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder.load()


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    """Twenty names of each category, in each style."""
    return [
        Prompt(phrase.format(name), category, "train", style)
        for category, names in CATEGORIES.items()
        for name in names[:20]
        for style, phrase in STYLES.items()
    ]


def layer_of(told: dict[str, str], encoder: TextEncoder) -> torch.nn.Linear:
    return fit_head(encoder.encode(list(told)), list(told.values())).layer


def test_three_classes_are_told_by_probability(encoder):
    told = {f"a {name}": category for category, names in CATEGORIES.items() for name in names[:20]}
    layer = layer_of(told | dict.fromkeys(("a hammer", "a drill", "a saw"), "tools"), encoder)
    share = layer(encoder.encode(["a tomato soup", "a screwdriver"])).softmax(-1)
    assert share.shape == (2, 3)
    assert share.argmax(1).tolist() == [1, 2]


def test_a_blank_is_no_class(encoder):
    head = fit_head(encoder.encode(["a fox", "a pie", "a hammer"]), ["animals", "food", ""])
    assert head.classes == ("animals", "food")


def test_one_class_alone_says_nothing(encoder):
    layer = layer_of({"a fox": "animals", "a cat": "animals"}, encoder)
    assert torch.equal(layer(encoder.encode(["a dog", "a pie"])).softmax(-1), torch.ones(2, 1))


def test_names_that_were_left_out_are_told(prompts):
    labels = Labels.fit(prompts, "minilm-l6")
    told = [
        labels.of(phrase.format(name)) == {"category": (category,), "style": (style,)}
        for category, names in CATEGORIES.items()
        for name in names[20:]
        for style, phrase in STYLES.items()
    ]
    assert sum(told) > 0.8 * len(told)


def test_what_was_learned_from_is_told_as_if_it_were_new(prompts, encoder):
    """Else a policy would learn to trust labels that are nearly always right."""
    odd = [Prompt(text, "food", "train", name="lion") for text in ("a lion", "pixel art of a lion")]
    others = [prompt for prompt in prompts if "lion" not in prompt.text]
    labels = Labels.fit([*others, *odd], "minilm-l6")
    head = labels.heads["category"]
    fitted = head.layer(encoder.encode(["a lion"])).argmax(1)
    assert head.classes[int(fitted)] == "food"  # it has learned that by heart
    assert labels.of("a lion")["category"][0] == "animals"
    assert labels.of("a tiger in the grass")["category"][0] == "animals"


def test_an_unsure_label_comes_with_its_second_class(encoder):
    texts = encoder.encode(["a tomato", "a tomato", "a tomato", *["a fox"] * 9])
    head = fit_head(texts, ["food", "food", "plants", *["animals"] * 9])
    assert likeliest(head, encoder.encode(["a fox", "a tomato"])) == [("animals",), ("food", "plants")]


def test_a_label_that_all_prompts_share_is_left_out(prompts):
    labels = Labels.fit([prompt for prompt in prompts if prompt.style == "3d"], "minilm-l6")
    assert labels.of("a pie") == {"category": ("food",)}


def test_saved_and_found_again_they_say_the_same(prompts, tmp_path: Path):
    labels = Labels.fit(prompts, "minilm-l6")
    assert Labels.find(tmp_path) is None
    labels.save(tmp_path)
    found = Labels.find(tmp_path)
    assert found is not None
    asked = [phrase.format(name) for name in (*ANIMALS, *FOODS) for phrase in STYLES.values()]
    assert [found.of(text) for text in asked] == [labels.of(text) for text in asked]
