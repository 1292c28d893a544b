"""The scorers that ship, on forty real pictures of the studio's world (Fluent emoji, MIT) and on renders.

`data/real_pictures.webp` holds drawings of datasets/scenes.py, 128 px each, and `real_pictures.json`
for each the right caption and a wrong one, of another colour, number, style or a subject like it.
`data/renders.webp` holds renders of the studio at ComfyUI's default cfg, 8: a row of 3 steps above a row of
20 of the same prompts and seeds (`benchmarks/scorer_pairs.py` draws such).
"""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
from bench_scorers import SIDE, changed, tiles
from PIL import Image

from flowtailor.errors import FlowtailorError
from flowtailor.models import scorers
from flowtailor.models.degrade import FAULTS_A, with_text
from flowtailor.pipelines.config import Config
from flowtailor.pipelines.config_file import load_config

DATA = Path(__file__).parent / "data"
SHIPPED = ["alignment", "fidelity", "sharpness", "held_out_alignment"]
MATCHING = ["alignment", "held_out_alignment"]


@functools.cache
def scorer(name: str) -> scorers.Scorer:
    return scorers.load_scorer(name, evaluation=True)


PICTURES = tiles(DATA / "real_pictures.webp")
CAPTIONS = json.loads((DATA / "real_pictures.json").read_text())
RIGHT, WRONG = ([caption[key] for caption in CAPTIONS] for key in ("right", "wrong"))


def scores(name: str, pictures: list[np.ndarray], prompts: list[str] = RIGHT) -> np.ndarray:
    given = scorer(name).score([Image.fromarray(picture) for picture in pictures], prompts)
    assert all(0 <= score <= 1 for score in given)
    return np.array(given)


@functools.cache
def real_scores(name: str) -> np.ndarray:
    return scores(name, PICTURES)


@pytest.mark.parametrize("name", SHIPPED)
def test_real_pictures_score_above_degraded_ones(name: str):
    """At two strengths of blur, noise, JPEG, few colours, crop, stains; the last scorer learned others."""
    above = [
        real_scores(name) > scores(name, changed(PICTURES, kind, level))
        for kind in FAULTS_A
        for level in (0.5, 0.8)
    ]
    assert np.mean(above) >= 0.95


@pytest.mark.parametrize("name", MATCHING)
def test_the_right_prompt_scores_above_a_wrong_one(name: str):
    """In 90% against one that differs in a colour, a number, a style or is alike; oftener against any."""
    assert np.mean(real_scores(name) > scores(name, PICTURES, WRONG)) >= 0.9
    others = [real_scores(name) > scores(name, PICTURES, RIGHT[i:] + RIGHT[:i]) for i in (1, 7, 19)]
    assert np.mean(others) >= 0.98


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("trick", ["plain", "saturate", "sharpen", "tile"])
def test_a_trick_raises_no_score_above_that_of_the_real_picture(name: str, trick: str):
    tricked = scores(name, changed(PICTURES, trick, 0.6))
    assert tricked.mean() < real_scores(name).mean()
    assert np.mean(tricked <= real_scores(name) + 1e-3) >= 0.9  # saturation leaves black and white alone


@pytest.mark.parametrize(
    ("name", "ground"),
    [(name, "plain") for name in SHIPPED]
    + [(name, "another picture") for name in SHIPPED if name != "sharpness"],  # which is as sharp
)
def test_the_prompt_written_into_the_picture_does_not_pass_for_it(name: str, ground: str):
    grounds = {
        "plain": [np.full_like(picture, 245) for picture in PICTURES],
        "another picture": PICTURES[1:] + PICTURES[:1],
    }
    written = [
        with_text(picture, text, np.random.default_rng(i))
        for i, (picture, text) in enumerate(zip(grounds[ground], RIGHT, strict=True))
    ]
    cheated = scores(name, written)
    assert cheated.mean() < real_scores(name).mean()
    assert np.mean(cheated < real_scores(name)) >= 0.9


def test_twenty_steps_score_above_three():
    prompts = json.loads((DATA / "renders.json").read_text())
    pictures = tiles(DATA / "renders.webp")
    few, many = pictures[: len(prompts)], pictures[len(prompts) :]
    gain = {name: scores(name, many, prompts) - scores(name, few, prompts) for name in SHIPPED}
    weights = Config().scorers.weights
    gain["reward"] = np.sum([weight * gain[name] for name, weight in weights.items()], axis=0)
    for name, gained in gain.items():
        assert np.mean(gained > 0) >= 0.9, name


@pytest.mark.parametrize("name", SHIPPED)
def test_a_score_depends_neither_on_the_batch_nor_much_on_the_canvas(name: str):
    alone = [scores(name, [picture], [text])[0] for picture, text in zip(PICTURES[:4], RIGHT, strict=False)]
    assert real_scores(name)[:4] == pytest.approx(alone, abs=1e-3)
    enlarged = [np.asarray(Image.fromarray(picture).resize((512, 512))) for picture in PICTURES]
    assert scores(name, enlarged).mean() == pytest.approx(real_scores(name).mean(), abs=0.06)
    assert scorer(name).score([], []) == []


@pytest.mark.parametrize("name", ["fidelity", "sharpness"])
def test_a_small_canvas_costs_something(name: str):
    small = [np.asarray(Image.fromarray(picture).resize((64, 64))) for picture in PICTURES]
    assert scores(name, small).mean() < real_scores(name).mean() - 0.1


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("colour", ["white", "grey", "black"])
def test_an_empty_picture_scores_next_to_nothing(name: str, colour: str):
    assert scorer(name).score([Image.new("RGB", (SIDE, SIDE), colour)], ["a fox"])[0] < 0.3


def test_the_judge_of_evaluations_is_refused_as_a_reward():
    with pytest.raises(FlowtailorError, match="held out"):
        scorers.load_scorer("held_out_alignment")
    with pytest.raises(FlowtailorError, match="held out"):
        scorers.load_scorer("flowtailor.models.scorers:HeldOutAlignment")
    with pytest.raises(FlowtailorError, match=r"scorers\.weights.*held out"):
        load_config(None, ["scorers.weights={alignment = 0.5, held_out_alignment = 0.5}"])


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
