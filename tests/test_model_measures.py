"""The measures of the studio's checkpoints, on pictures whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from model_measures import seed_distance, told_apart
from PIL import Image


def grey(level: int) -> Image.Image:
    return Image.new("RGB", (4, 4), (level, level, level))


def test_seeds_are_compared_with_prompts():
    """Seeds of a prompt differ by 10 levels, the two prompts by 40."""
    drawn = [[grey(0), grey(40)], [grey(10), grey(50)]]
    assert seed_distance(drawn) == pytest.approx(0.25)


def test_seeds_that_draw_the_same_have_no_distance():
    assert seed_distance([[grey(0), grey(40)]] * 2) == 0.0


class Brightness:
    """Finds the caption that names a picture's level."""

    def cosines(self, images: list[Image.Image], texts: list[str]) -> np.ndarray:
        levels = [np.asarray(image).mean() for image in images]
        return np.array([[-abs(level - float(text)) for text in texts] for level in levels])


def test_each_picture_has_captions_of_its_own():
    told = told_apart(
        Brightness(),  # pyright: ignore[reportArgumentType]
        [grey(10), grey(200)],
        captions=[["10", "90"], ["250", "20", "190"]],
        right=[0, 0],  # the second one is nearer to 190 than to 250
    )
    assert told.tolist() == [1.0, 0.0]
