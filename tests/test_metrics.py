"""Metrics and error bars on cases that can be checked by hand."""

import numpy as np
import pytest

from flowtailor.models import metrics
from flowtailor.models.calibration import (
    NORMALLY_LATE,
    Bars,
    error_correlation,
    fit_bars,
    late_deviations,
    weighted_std,
)

A, B = np.array(["a"] * 4), np.array(["b"] * 4)


def test_ranks_share_ties():
    assert metrics.ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [2.5, 0, 2.5, 1]


def test_spearman_counts_order_only():
    values = np.array([1.0, 2.0, 3.0, 4.0])
    assert metrics.spearman(values, values**3) == pytest.approx(1)
    assert metrics.spearman(values, -values) == pytest.approx(-1)
    assert metrics.spearman(values, np.array([1.0, 2, 4, 3])) == pytest.approx(0.8)
    assert np.isnan(metrics.spearman(values, np.ones(4)))


def test_within_prompt_ignores_how_prompts_differ():
    prompt = np.concatenate([A, B])
    measured = np.array([1.0, 2, 3, 4, 101, 102, 103, 104])
    predicted = np.array([4.0, 3, 2, 1, 104, 103, 102, 101])
    assert metrics.spearman_within(prompt, measured, predicted) == pytest.approx(-1)
    assert metrics.spearman(measured, predicted) > 0.4


def test_pairs_are_counted_within_prompts_and_above_the_margin():
    prompt = np.array(["a", "a", "a", "b"])
    measured, predicted = np.array([0.0, 1.0, 1.1, 9.0]), np.array([0.0, 2.0, 1.0, 0.0])
    assert metrics.pair_accuracy(prompt, measured, predicted) == pytest.approx(2 / 3)
    assert metrics.pair_accuracy(prompt, measured, predicted, margin=0.5) == 1
    assert metrics.pair_accuracy(prompt, measured, np.zeros(4)) == 0.5


def test_regret_is_what_the_favourite_loses_to_the_best_of_its_prompt():
    prompt = np.array(["a", "a", "a", "b", "b"])
    measured = np.array([0.1, 0.5, 0.9, 0.2, 0.4])
    assert metrics.regret(prompt, measured, measured) == 0
    wrong_in_a = np.array([0.0, 1.0, 0.5, 0.0, 1.0])
    assert metrics.regret(prompt, measured, wrong_in_a) == pytest.approx((0.4 + 0) / 2)
    assert metrics.regret(prompt, measured, np.zeros(5)) == pytest.approx((0.4 + 0.1) / 2)


def test_errors_and_coverage():
    measured, mean = np.array([1.0, 2.0, 4.0]), np.array([1.5, 2.0, 2.0])
    assert metrics.coverage(measured, mean, np.array([1.0, 1.0, 1.0])) == pytest.approx(2 / 3)
    assert metrics.coverage(measured, mean, np.array([1.0, 1.0, 1.0]), 2.0) == 1.0
    assert metrics.rmse(measured, mean) == pytest.approx(np.sqrt((0.25 + 4) / 3))
    assert metrics.median_relative_error(measured, mean) == 0.5


def test_the_noise_ceiling_bounds_what_a_perfect_predictor_reaches():
    rng = np.random.default_rng(0)
    prompts = np.repeat(np.arange(200), 40)
    workflows = np.tile(np.repeat(np.arange(20), 2), 200)
    truth = rng.normal(size=(200, 20))[prompts, workflows]
    measured = truth + rng.normal(size=len(truth))  # as much noise as signal: reliability one half
    ceiling = metrics.noise_ceiling(prompts, workflows, measured)
    reached = metrics.spearman_within(prompts[::2], truth[::2], measured[::2])
    assert ceiling == pytest.approx(reached, abs=0.03)
    assert np.isnan(metrics.noise_ceiling(prompts[::2], workflows[::2], measured[::2]))


def test_bars_cover_two_thirds_of_known_and_of_new_workflows():
    rng = np.random.default_rng(0)
    new = np.arange(4000) % 4 == 0
    spread = np.where(new, 0.3, 0.1) * rng.uniform(0.5, 1.5, 4000)
    scatter = np.full(4000, 0.2)
    error = rng.normal(size=4000) * 1.5 * np.hypot(scatter, 3 * spread)  # members agree far too well
    bars = fit_bars(error, scatter, spread, np.zeros(4000), new, np.arange(4000))
    assert bars.disagreement == pytest.approx(3, rel=0.2)
    inside = np.abs(error) <= bars.std(scatter, spread, np.zeros(4000))
    assert inside[new].mean() == pytest.approx(0.683, abs=0.03)
    assert inside[~new].mean() == pytest.approx(0.683, abs=0.03)


def test_what_no_rendered_workflow_tells_counts_as_much_as_new_workflows_show():
    rng = np.random.default_rng(0)
    new = np.arange(4000) % 4 == 0
    posterior = np.where(new, 0.3, 0.05) * rng.uniform(0.5, 1.5, 4000)
    scatter, spread = np.full(4000, 0.2), np.full(4000, 0.01)
    error = rng.normal(size=4000) * np.hypot(scatter, 2 * posterior)
    bars = fit_bars(error, scatter, spread, posterior, new, np.arange(4000))
    assert bars.process == pytest.approx(2, rel=0.3)
    assert bars.doubt(posterior) == pytest.approx(bars.scale * bars.process * posterior)


def test_without_new_workflows_one_scale_serves_all():
    error = np.linspace(-1, 1, 101)
    none = np.zeros(101)
    bars = fit_bars(error, np.full(101, 0.1), none, none, none > 0, np.arange(101))
    assert bars.disagreement == bars.process == 1
    assert bars.scale == pytest.approx(6.83, abs=0.1)
    assert Bars(2.0).std(np.array([2.0]), np.array([3.0]), np.array([6.0])).tolist() == [14]


def test_disagreement_about_a_prompt_of_the_training_rows_counts_at_face_value():
    scatter, spread, none = np.array([4.0, 4.0]), np.array([3.0, 3.0]), np.zeros(2)
    known = np.array([True, False])
    assert Bars(1.0, 5.0).std(scatter, spread, none, known).tolist() == [5, pytest.approx(15.524, abs=1e-3)]
    # Below 1 the scale pays back what disagreement about others counts too much.
    assert Bars(0.5, 5.0).std(scatter, spread, none, known).tolist() == [5, pytest.approx(7.762, abs=1e-3)]


def test_a_prompt_counts_once_however_many_rows_it_has():
    easy, hard = np.full(300, 0.1), np.full(3, 1.0)  # one prompt with 300 rows, three with one
    error, prompt = np.concatenate([easy, hard]), np.concatenate([np.zeros(300), [1, 2, 3]])
    none = np.zeros(303)
    bars = fit_bars(error, np.ones(303), none, none, none > 0, prompt)
    assert bars.scale == pytest.approx(1.0)


def test_bars_of_a_weighted_mean_know_how_far_the_scorers_err_together():
    rng = np.random.default_rng(0)
    shared, own = rng.normal(size=4000), rng.normal(size=(4000, 3))
    error = np.stack([shared, 0.6 * shared + 0.8 * own[:, 0], own[:, 1]], axis=1)
    correlation = error_correlation(error, np.full(4000, 1 / 4000))
    expected = [[1, 0.6, 0], [0.6, 1, 0], [0, 0, 1]]
    assert np.abs(correlation - expected).max() < 0.06
    share = np.array([0.5, 0.3, 0.2])
    std = weighted_std(np.ones_like(error), share, correlation)
    assert metrics.coverage(error @ share, np.zeros(4000), std) == pytest.approx(0.683, abs=0.02)
    as_if_together = weighted_std(np.ones_like(error), share, np.ones((3, 3)))
    assert as_if_together == pytest.approx(np.ones(4000))


def test_how_late_a_render_may_be_is_read_off_the_rows_whatever_their_tail():
    rng = np.random.default_rng(0)
    std_N, alike_N = rng.uniform(0.1, 0.4, 20_000), np.ones(20_000)
    normal_N = rng.normal(0, std_N)
    assert late_deviations(-normal_N / std_N, alike_N) == pytest.approx(NORMALLY_LATE, abs=0.05)
    heavy_N = std_N * rng.standard_t(2, 20_000)
    late = late_deviations(-heavy_N / std_N, alike_N)
    assert late > NORMALLY_LATE + 1
    assert (heavy_N <= late * std_N).mean() == pytest.approx(0.95, abs=0.001)
    first_N = (np.arange(20_000) < 10_000).astype(float)  # rows that weigh nothing say nothing
    worse_N = np.where(first_N == 1, normal_N, 100.0)
    assert late_deviations(-worse_N / std_N, first_N) == pytest.approx(NORMALLY_LATE, abs=0.1)
