"""Variance components are found again in scores that were made from known ones."""

from __future__ import annotations

import numpy as np
import pytest
from variance import (
    Effects,
    components,
    interaction_ratio,
    mean_squares,
    over_prompts,
    shares,
)

TRUTH = Effects(prompt=4.0, workflow=1.0, interaction=2.0, seed=0.5, noise=1.5)


def made(truth: Effects, shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """score_PWS as the sum of independent effects with these variances."""
    rng = np.random.default_rng(seed)
    P, W, S = shape
    sizes = ((P, 1, 1), (1, W, 1), (P, W, 1), (P, 1, S), (P, W, S))
    score_PWS = np.full(shape, 0.7)
    for variance, size in zip(truth, sizes, strict=True):
        score_PWS += np.sqrt(variance) * rng.normal(size=size)
    return score_PWS


def test_known_components_are_recovered():
    found = components(made(TRUTH, (400, 300, 3)))
    assert np.allclose(found, TRUTH, rtol=0.15)


def test_components_are_unbiased_in_a_small_study():
    found = np.array([components(made(TRUTH, (6, 5, 2), seed)) for seed in range(3000)])
    standard_error = found.std(axis=0) / np.sqrt(len(found))
    assert (np.abs(found.mean(axis=0) - TRUTH) < 4 * standard_error).all()


def test_mean_squares_of_a_case_done_by_hand():
    """Two prompts, two workflows, two seeds; the only difference is one of 4 between the workflows."""
    score_PWS = np.zeros((2, 2, 2))
    score_PWS[:, 1] = 4.0
    assert mean_squares(score_PWS) == Effects(prompt=0, workflow=32, interaction=0, seed=0, noise=0)


def test_shares_add_up_to_one():
    share = shares(made(TRUTH, (20, 10, 2)))
    assert sum(share.values()) == pytest.approx(1)
    assert set(share) == set(Effects._fields)


def test_the_ratio_is_one_without_interaction_whatever_the_seeds_share():
    alike = Effects(prompt=4.0, workflow=1.0, interaction=0.0, seed=9.0, noise=1.0)
    ratios = [interaction_ratio(made(alike, (20, 15, 2), seed)) for seed in range(200)]
    assert np.mean(ratios) == pytest.approx(1, abs=0.03)
    assert interaction_ratio(made(TRUTH, (20, 15, 2))) > 2


def test_intervals_hold_the_truth_as_often_as_they_say():
    hits = []
    for seed in range(60):
        found = over_prompts(made(TRUTH, (30, 60, 2), seed), lambda scores: components(scores)._asdict())
        hits += [
            [found[name].low <= getattr(TRUTH, name) <= found[name].high] for name in ("prompt", "noise")
        ]
        hits += [[found["interaction"].low <= TRUTH.interaction <= found["interaction"].high]]
    assert 0.87 < np.mean(hits) <= 1


def test_an_interval_belongs_to_the_value_of_the_whole():
    scores = made(TRUTH, (12, 8, 2))
    found = over_prompts(scores, lambda s: {"ratio": interaction_ratio(s)})["ratio"]
    assert found.value == interaction_ratio(scores)
    assert found.low < found.value < found.high


def test_one_seed_is_refused():
    with pytest.raises(ValueError, match="3 prompts x 4 workflows x 1 seeds"):
        components(np.zeros((3, 4, 1)))
