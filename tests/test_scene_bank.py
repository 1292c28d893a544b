"""The scenes that alignment networks learn from, of made-up pictures: groups, kept banks, what is true."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flowtailor.datasets.pictures import Pictures
from flowtailor.models.scene_bank import K, also_true, draw_bank, sample_group


def test_a_group_is_one_subject_in_different_scenes(pictures: Pictures):
    scenes = sample_group(pictures, np.random.default_rng(0))
    assert len(set(scenes)) == K
    assert len({scene.subject for scene in scenes}) == 1


def test_a_bank_is_drawn_once(pictures: Pictures, tmp_path: Path):
    first = draw_bank(pictures, tmp_path, groups=2, seed=3)
    drawn = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = draw_bank(pictures, tmp_path, groups=2, seed=3)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == drawn
    assert np.array_equal(first.pixels, again.pixels) and first.captions == again.captions


def test_captions_hold_for_all_that_they_do_not_rule_out():
    """Columns: subject, style (0: the one that needs no word), count, colour, background (-1: none)."""
    facts = np.array(
        [[5, 0, 1, -1, -1], [5, 2, 1, -1, -1], [5, 0, 1, 7, -1], [5, 0, 1, -1, 9], [6, 0, 1, -1, -1]]
    )
    captions = ["a cat", "pixel art of a cat", "a blue cat", "a cat on a red background", "a dog"]
    assert also_true(facts, captions).astype(int).tolist() == [
        [1, 1, 0, 1, 0],  # a cat may be in pixel art and anywhere, but is not blue
        [0, 1, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 0, 1],
    ]
    assert not also_true(facts, ["a 3d icon of a cat", *captions[1:]])[0, 1]
