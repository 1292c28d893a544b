"""The scorers on twelve real pictures of the Fluent emoji (MIT): captions, blur, noise, sizes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from flowtailor.errors import FlowtailorError
from flowtailor.models import scorers

CAPTIONS = [
    *("a red apple", "a rocket", "a rainbow", "a cactus", "an airplane", "a hamburger"),
    *("a tulip", "an umbrella", "a fox", "a hot dog", "a house", "a birthday cake"),
]


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    """The 128 px pictures that CAPTIONS name, in order."""
    strip = Image.open(Path(__file__).parent / "data" / "fluent_emoji_12.png").convert("RGB")
    return [strip.crop((x, 0, x + 128, 128)) for x in range(0, strip.width, 128)]


@pytest.fixture(scope="module")
def alignment() -> scorers.Scorer:
    return scorers.load_scorer("alignment")


@pytest.fixture(scope="module")
def sharpness() -> scorers.Scorer:
    return scorers.load_scorer("sharpness")


def mean(scorer: scorers.Scorer, images: list[Image.Image]) -> float:
    scores = scorer.score(images, CAPTIONS)
    assert all(0 <= s <= 1 for s in scores)
    return float(np.mean(scores))


def noisy(image: Image.Image, sigma: float) -> Image.Image:
    noise = np.random.default_rng(0).normal(scale=sigma, size=(image.height, image.width, 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def test_every_picture_fits_its_own_caption_best(alignment, pictures):
    for picture, caption in zip(pictures, CAPTIONS, strict=True):
        scores = alignment.score([picture] * len(CAPTIONS), CAPTIONS)
        assert CAPTIONS[int(np.argmax(scores))] == caption
        assert 0.6 < max(scores) < 1  # room above: good is not yet perfect


def test_alignment_falls_with_blur_and_noise(alignment, pictures):
    clean = mean(alignment, pictures)
    assert clean > mean(alignment, [p.filter(ImageFilter.GaussianBlur(5)) for p in pictures]) + 0.1
    assert clean > mean(alignment, [noisy(p, 30) for p in pictures]) + 0.2


def test_alignment_hardly_depends_on_the_canvas(alignment, pictures):
    small, large = ([p.resize((s, s)) for p in pictures] for s in (64, 512))
    assert mean(alignment, small) == pytest.approx(mean(alignment, large), abs=0.05)


def test_a_score_does_not_depend_on_the_batch(alignment, pictures):
    alone = [alignment.score([p], [c])[0] for p, c in zip(pictures, CAPTIONS, strict=True)]
    assert alignment.score(pictures, CAPTIONS) == pytest.approx(alone, abs=1e-4)


def test_sharper_is_better(sharpness, pictures):
    blurred = [
        mean(sharpness, [p.filter(ImageFilter.GaussianBlur(r)) for p in pictures]) for r in (0, 1, 2, 4)
    ]
    assert blurred == sorted(blurred, reverse=True)
    assert blurred[0] > 0.6 > 0.2 > blurred[2]


def test_noise_is_not_sharpness(sharpness, pictures):
    scores = [mean(sharpness, [noisy(p, sigma) for p in pictures]) for sigma in (0, 10, 30)]
    assert scores == sorted(scores, reverse=True)


def test_enlarging_adds_no_sharpness_and_a_small_canvas_costs_some(sharpness, pictures):
    native = mean(sharpness, pictures)
    assert mean(sharpness, [p.resize((512, 512)) for p in pictures]) == pytest.approx(native, abs=0.03)
    assert mean(sharpness, [p.resize((64, 64)) for p in pictures]) < native - 0.1


@pytest.mark.parametrize("colour", ["white", "grey", "black"])
def test_an_empty_picture_scores_nothing(alignment, sharpness, colour):
    empty = [Image.new("RGB", (128, 128), colour)]
    assert sharpness.score(empty, ["a fox"]) == [0]
    assert alignment.score(empty, ["a fox"])[0] < 0.3


def test_scorers_of_others_are_found_by_name_or_path():
    class Constant:
        def score(self, images, prompts):
            return [0.5] * len(images)

    scorers.register("constant")(Constant)
    try:
        assert scorers.load_scorer("constant").score([], []) == []
        assert isinstance(scorers.load_scorer("flowtailor.models.scorers:Sharpness"), scorers.Sharpness)
    finally:
        del scorers.SCORERS["constant"]


@pytest.mark.parametrize("name", ["beauty", "no_such_module:Beauty", "flowtailor.models.scorers:Beauty"])
def test_unknown_scorers_are_explained(name):
    with pytest.raises(FlowtailorError, match="scorer"):
        scorers.load_scorer(name)
