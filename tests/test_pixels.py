"""Pools of scenes, their crops, and how pictures are compared."""

from __future__ import annotations

import numpy as np
import torch
from tiny_pictures import silent

from flowtailor.datasets.pictures import STYLES
from flowtailor.studio.pixels import detail_loss, draw_pool, psnr, to_tensor, turned


def test_a_pool_is_drawn_the_same_again_and_has_all_styles(pictures):
    pools = [draw_pool(pictures, {64: 8, 96: 4}, seed=1, echo=silent) for _ in range(2)]
    assert [p.shape for p in pools[0].pictures] == [(8, 64, 64, 3), (4, 96, 96, 3)]
    assert pools[0].styles == (STYLES * 2, STYLES)
    assert all(np.array_equal(a, b) for a, b in zip(pools[0].pictures, pools[1].pictures, strict=True))


def test_held_out_subjects_are_in_no_training_pool(pictures, monkeypatch):
    from flowtailor.studio import pixels

    seen: dict[bool, set[int]] = {False: set(), True: set()}
    blank = np.zeros((64, 64, 3), np.uint8)
    for held_out, scenes in seen.items():
        monkeypatch.setattr(pixels, "draw", lambda _, scene, *__, s=scenes: s.add(scene.subject) or blank)
        draw_pool(pictures, {64: 40}, seed=0, held_out=held_out, echo=silent)
    assert seen[True] and len(seen[False]) > 10 and not seen[True] & seen[False]


def test_crops_depend_on_the_generator_alone(pictures):
    pool = draw_pool(pictures, {64: 4, 96: 4}, seed=0, echo=silent)
    a, b, c = (pool.crops(5, 32, np.random.default_rng(seed)) for seed in (7, 7, 8))
    assert a.shape == (5, 3, 32, 32) and a.min() >= 0 and a.max() <= 1
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_eight_turns_are_eight_pictures():
    picture = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    assert len({turned(picture, i).tobytes() for i in range(8)}) == 8
    assert torch.equal(to_tensor(picture[None])[0, :, 1, 2] * 255, torch.tensor([18.0, 19.0, 20.0]))


def test_psnr_is_that_of_the_saved_picture():
    black = torch.zeros(2, 3, 8, 8)
    assert torch.allclose(psnr(black + 0.1, black), torch.tensor(20.0))
    assert (psnr(black - 5, black) > 90).all()  # below black is black


def test_a_blurred_line_costs_more_than_a_darker_field():
    """At the same mean error: what the differences are for."""
    target = torch.ones(1, 3, 32, 32)
    target[..., 16] = 0
    blurred = torch.nn.functional.avg_pool2d(target, (1, 3), 1, (0, 1), count_include_pad=False)
    darker = target - (blurred - target).abs().mean()
    assert detail_loss(blurred, target) > 3 * detail_loss(darker, target)
