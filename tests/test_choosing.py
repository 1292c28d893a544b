"""Choosing per prompt is measured on other seeds than it was chosen on, so luck is not counted."""

from __future__ import annotations

import numpy as np
import pytest
from choosing import (
    best_fixed,
    different_bests,
    different_bests_by_chance,
    folds,
    gain_over_fixed,
    helped,
    pareto_front,
)


def noise(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def test_each_seed_is_chosen_on_once_and_measured_on_the_others():
    score_PWS = np.arange(6.0).reshape(1, 2, 3)
    pairs = [(chosen.tolist(), measured.tolist()) for chosen, measured in folds(score_PWS)]
    assert pairs[0] == ([[0, 3]], [[1.5, 4.5]])
    assert len(pairs) == 3
    with pytest.raises(ValueError, match="another one"):
        list(folds(score_PWS[:, :, :1]))


def test_choosing_among_equals_gains_nothing():
    """The best of 60 noisy scores is about 2.3 deviations above the mean; on another seed it is not."""
    score_PWS = noise((200, 60, 2))
    assert (score_PWS.max(axis=1) - score_PWS.mean(axis=1)).mean() > 2
    assert abs(gain_over_fixed(score_PWS).mean()) < 0.2


def test_the_gain_is_that_of_the_better_workflow():
    """Workflow 0 is right for three prompts in four, workflow 1 for the fourth, by 2."""
    score_PWS = np.zeros((40, 3, 2))
    score_PWS[:30, 0] = score_PWS[30:, 1] = 2.0
    assert best_fixed(score_PWS[:, :, 0]) == 0
    assert gain_over_fixed(score_PWS).mean() == pytest.approx(0.5)


def test_workflows_that_are_best_for_some_are_counted():
    score_PWS = 0.1 * noise((100, 30, 2))
    for w in range(6):
        score_PWS[w * 15 : w * 15 + 15, w] += 3.0
    score_PWS[90:94, 7] += 3.0  # too few prompts
    assert different_bests(score_PWS) == 6
    # Alike on average, the six would share the prompts by luck, and half would pass on the other seed.
    assert different_bests_by_chance(score_PWS, repeats=50) == pytest.approx(3, abs=0.7)


def test_wins_by_luck_are_told_by_chance():
    score_PWS = noise((80, 20, 2))  # four prompts a workflow: many win 5% by luck
    counted = different_bests(score_PWS)
    assert counted > 1
    assert different_bests_by_chance(score_PWS, repeats=50) == pytest.approx(counted, abs=2.5)


def test_by_chance_keeps_the_noise_of_the_scores():
    """One clear winner and little noise: chance cannot make a second one."""
    score_PWS = 0.01 * noise((40, 10, 2))
    score_PWS[:, 3] += 1
    assert different_bests_by_chance(score_PWS, repeats=10) == 1


def test_a_kind_of_workflow_helps_some_prompts():
    score_PWS = 0.01 * noise((50, 6, 2))
    score_PWS[:20, 4:] += 1.0  # the last two workflows help the first twenty prompts
    score_PWS[20:, 4:] -= 0.5
    share, gain = helped(score_PWS, np.arange(6) >= 4)
    assert share.value == pytest.approx(0.4)
    assert share.low < 0.4 < share.high
    assert gain.value == pytest.approx(0.4 * 1.0 - 0.6 * 0.5, abs=0.02)
    with pytest.raises(ValueError, match="and others"):
        helped(score_PWS, np.ones(6, dtype=bool))


def test_the_front_holds_what_nothing_beats():
    score_W = np.array([0.5, 0.7, 0.6, 0.7, 0.9])
    seconds_W = np.array([1.0, 2.0, 3.0, 2.5, 9.0])
    assert pareto_front(score_W, seconds_W) == [0, 1, 4]
    assert pareto_front(np.array([0.2, 0.4]), np.array([1.0, 1.0])) == [1]
