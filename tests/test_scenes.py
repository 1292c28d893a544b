"""Scenes: what is drawn keeps to what the caption says."""

from dataclasses import replace

import numpy as np
import pytest

from flowtailor.datasets.phrasing import coloured, countable, is_plural, plural, with_article
from flowtailor.datasets.pictures import SIDE, STYLES, Pictures, pixelate
from flowtailor.datasets.recolour import COLOURS, dominant, recolour
from flowtailor.datasets.scenes import (
    BACKGROUNDS,
    Scene,
    caption,
    draw,
    fitting_background,
    in_any_style,
    recolourable,
    sample_scene,
)
from flowtailor.datasets.subjects import Subject

APPLE, FACE, GLOBE, CHERRIES = range(4)
SUBJECTS = [
    Subject("red apple", "food", "1f34e", ("fruit",), ("crimson apple",)),
    Subject("winking face", "faces", "1f609", ()),
    Subject("wire globe", "places", "1f310", ()),
    Subject("cherries", "food", "1f352", ()),
]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    """A red, a yellow, a many-coloured and a red disc with a green leaf, in every style."""
    root = tmp_path_factory.mktemp("pictures")
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    disc = (x - 128) ** 2 + (y - 140) ** 2 < 110**2
    shade = (0.75 + 0.25 * x / SIDE)[..., None]
    drawn = np.zeros((len(SUBJECTS), SIDE, SIDE, 4), np.uint8)
    for index, colour in enumerate([(240, 30, 40), (250, 200, 20), (0, 0, 0), (230, 20, 60)]):
        drawn[index, ..., :3] = np.array(colour) * shade
        drawn[index, ..., 3] = 255 * disc
    drawn[GLOBE, ..., :3] = np.dstack([x, y, 255 - x])
    for index in (APPLE, CHERRIES):
        drawn[index, 5:40, 120:180] = (40, 180, 60, 255)  # the leaf
    for style in STYLES:
        styled = np.stack([pixelate(picture) for picture in drawn]) if style == "pixel" else drawn
        np.save(root / f"{style}.npy", styled)
    return Pictures(root, SUBJECTS)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def blobs(canvas: np.ndarray) -> int:
    """How many separate things stand on a white canvas."""
    from skimage.measure import label

    counts = np.bincount(np.ravel(np.asarray(label(canvas.min(axis=2) < 200))))[1:]
    return int((counts > 50).sum())


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("size", [128, 192])
def test_a_scene_is_drawn_inside_the_canvas(pictures: Pictures, style: str, size: int):
    canvas = draw(pictures, Scene(APPLE, style, background="white"), size, rng())
    assert canvas.shape == (size, size, 3)
    assert canvas.dtype == np.uint8
    share = (canvas.min(axis=2) < 200).mean()
    assert 0.25 < share < 0.75  # the disc has 0.58 of its picture, which is shrunk to 0.875


def test_seeds_change_ground_and_mirroring_and_repeat_exactly(pictures: Pictures):
    scene = Scene(APPLE, "3d")
    assert (draw(pictures, scene, 128, rng(1)) == draw(pictures, scene, 128, rng(1))).all()
    different = [
        np.abs(
            draw(pictures, scene, 128, rng(2 * s)).astype(int) - draw(pictures, scene, 128, rng(2 * s + 1))
        )
        for s in range(10)
    ]
    assert np.mean(different) > 10


@pytest.mark.parametrize("count", [1, 2, 3])
def test_as_many_copies_as_asked_for(pictures: Pictures, count: int):
    for seed in range(6):
        canvas = draw(pictures, Scene(FACE, "3d", count=count, background="white"), 128, rng(seed))
        assert blobs(canvas) == count


@pytest.mark.parametrize("colour", COLOURS)
def test_the_surface_changes_its_colour_and_the_leaf_does_not(pictures: Pictures, colour: str):
    before = pictures.rgba(APPLE, "3d")
    source = dominant(before)
    assert source is not None
    after = recolour(before, source, colour)
    assert (after[5:40, 120:180] == before[5:40, 120:180]).all()
    assert (after[..., 3] == before[..., 3]).all()
    found = dominant(np.where(before[..., 3:] > 0, after, 0)[60:])
    hue, saturation, _ = COLOURS[colour]
    if saturation:
        assert found is not None
        assert abs((found.hue - hue + 180) % 360 - 180) < 12
    else:
        lightness = after[100:180, 100:180, :3].mean()
        assert lightness > 200 if colour == "white" else lightness < 60


def test_what_can_be_recoloured(pictures: Pictures):
    assert recolourable(pictures, APPLE, "3d")
    assert not recolourable(pictures, FACE, "3d")  # skin
    assert not recolourable(pictures, GLOBE, "3d")  # no colour of its own
    assert not recolourable(pictures, APPLE, "line")


def test_backgrounds_have_their_colour_and_show_the_subject(pictures: Pictures):
    for name, colour in BACKGROUNDS.items():
        corner = draw(pictures, Scene(APPLE, "3d", background=name), 128, rng(3))[:, 0].mean(axis=0)
        assert np.abs(corner - colour).max() < 10
    chosen = {fitting_background(pictures, APPLE, "3d", None, rng(seed)) for seed in range(60)}
    assert "red" not in chosen
    assert {"white", "blue", "yellow"} <= chosen


def test_scenes_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="line drawing has none"):
        Scene(0, "line", colour="red")
    with pytest.raises(ValueError, match="count"):
        Scene(0, "3d", count=4)
    with pytest.raises(ValueError, match="background"):
        Scene(0, "3d", background="plaid")


def test_sampling_keeps_to_weights_styles_and_sense(pictures: Pictures):
    random = rng()
    scenes = [sample_scene(pictures, random) for _ in range(1500)]
    assert {scene.style for scene in scenes} == set(STYLES)
    assert {scene.count for scene in scenes if scene.subject == APPLE} == {1, 2, 3}
    assert {scene.count for scene in scenes if scene.subject in (GLOBE, CHERRIES)} == {1}
    assert not [s for s in scenes if s.colour and s.subject in (FACE, GLOBE)]
    weights = np.array([0, 1, 0, 3.0])
    chosen = [sample_scene(pictures, random, weights, ["flat"]) for _ in range(200)]
    assert {scene.style for scene in chosen} == {"flat"}
    assert 100 < sum(scene.subject == CHERRIES for scene in chosen) < 190


def test_a_scene_under_any_style_keeps_its_subject(pictures: Pictures):
    scene = Scene(0, "3d", count=2, colour="blue", background="white")
    random = np.random.default_rng(0)
    asked = [in_any_style(scene, random) for _ in range(200)]
    assert {each.style for each in asked} == set(STYLES)
    assert sum(each.style == "3d" for each in asked) > 100  # as mostly asked for
    for each in asked:
        assert each == replace(scene, style=each.style, colour=None if each.style == "line" else "blue")


def test_captions_say_what_the_scene_is(pictures: Pictures):
    def captions(scene: Scene) -> set[str]:
        return {caption(pictures, scene, rng(seed)) for seed in range(80)}

    assert {"a red apple", "one red apple", "a picture of a red apple", "a crimson apple"} <= captions(
        Scene(APPLE, "3d")
    )
    assert all("cherries" in text and "a cherries" not in text for text in captions(Scene(CHERRIES, "3d")))
    assert "pixel art of a winking face" in captions(Scene(FACE, "pixel"))
    assert "a line drawing of a wire globe" in captions(Scene(GLOBE, "line"))
    assert "a flat icon of two blue apples" in captions(Scene(APPLE, "flat", 2, "blue"))
    assert all("yellow background" in text for text in captions(Scene(FACE, "3d", background="yellow")))
    assert "a winking face on an orange background" in captions(Scene(FACE, "3d", background="orange"))


@pytest.mark.parametrize(
    ("name", "article", "many"),
    [
        ("apple", "an apple", "apples"),
        ("unicorn", "a unicorn", "unicorns"),
        ("umbrella", "an umbrella", "umbrellas"),
        ("hourglass", "an hourglass", "hourglasses"),
        ("unamused face", "an unamused face", "unamused faces"),
        ("one-piece swimsuit", "a one-piece swimsuit", "one-piece swimsuits"),
        ("glass of milk", "a glass of milk", "glasses of milk"),
        ("woman surfing", "a woman surfing", "women surfing"),
        ("face holding back tears", "a face holding back tears", "faces holding back tears"),
        ("computer mouse", "a computer mouse", "computer mice"),
        ("maple leaf", "a maple leaf", "maple leaves"),
        ("strawberry", "a strawberry", "strawberries"),
        ("tropical fish", "a tropical fish", "tropical fish"),
        ("cactus", "a cactus", "cacti"),
    ],
)
def test_articles_and_plurals(name: str, article: str, many: str):
    assert (with_article(name), plural(name)) == (article, many)


def test_plurals_mass_nouns_and_proper_names_have_no_article():
    for name in ("cherries", "sunglasses", "broccoli", "santa claus", "two women with bunny ears"):
        assert with_article(name) == name
    assert with_article("statue of liberty") == "the statue of liberty"
    assert is_plural("music notes")
    assert not is_plural("glass of berries")
    assert not is_plural("dress")


def test_what_is_counted():
    assert countable(Subject("mouse", "animals", "", ()))
    for name in ("skis", "sushi", "fork and knife", "mount fuji", "face with its tongue out"):
        assert not countable(Subject(name, "objects", "", ()))


def test_a_colour_takes_the_place_of_the_colour_in_the_name():
    assert coloured("red apple", "blue") == "blue apple"
    assert coloured("small red bird", "green") == "small green bird"
    assert coloured("helicopter", "black") == "black helicopter"
