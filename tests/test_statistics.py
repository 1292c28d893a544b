"""Bootstrap intervals, win rates and balanced workflow effects on data whose answer is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from flowtailor.pipelines.statistics import (
    bootstrap_mean,
    category_effects,
    lead,
    win_rate,
    workflow_effects,
)


def scores(table: dict[str, list[float]], seeds: int = 1) -> pd.DataFrame:
    """method -> one score per (prompt, seed), prompts first."""
    return pd.DataFrame(
        [
            {"prompt": f"p{i // seeds}", "seed": i % seeds, "method": method, "score": score}
            for method, values in table.items()
            for i, score in enumerate(values)
        ]
    )


def test_bootstrap_interval_covers_the_true_mean_about_95_times_in_100():
    rng = np.random.default_rng(1)
    hits = 0
    for trial in range(300):
        interval = bootstrap_mean(rng.normal(0.4, 0.2, size=40), seed=trial, resamples=500)
        hits += interval.low <= 0.4 <= interval.high
    assert 0.90 <= hits / 300 <= 0.99


def test_bootstrap_is_reproducible_and_exact_on_constants():
    assert bootstrap_mean(np.array([0.25, 0.25])) == (0.25, 0.25, 0.25)
    values = np.arange(10.0)
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(values, seed=3)
    with pytest.raises(ValueError, match="no prompts"):
        bootstrap_mean(np.array([]))


def test_win_rate_counts_ties_half_and_mirrors():
    rows = scores({"a": [0.9, 0.2, 0.5, 0.7], "b": [0.1, 0.8, 0.5, 0.6]})
    assert win_rate(rows, "a", "b").value == pytest.approx(0.625)
    assert win_rate(rows, "b", "a").value == pytest.approx(0.375)


def test_lead_is_of_the_same_prompts_and_seeds():
    """A hard prompt that only one of the two drew does not count."""
    both = scores({"a": [0.9, 0.2, 0.5, 0.7], "b": [0.1, 0.8, 0.5, 0.6]})
    hard = pd.DataFrame({"prompt": ["hard"], "seed": [0], "method": ["a"], "score": [0.0]})
    led = lead(pd.concat([both, hard]), "a", "b")
    assert led.value == pytest.approx(0.3 / 4)
    assert led.low < 0 < led.high


def test_win_rate_averages_the_seeds_of_a_prompt_first():
    rows = scores({"a": [1.0, 1.0, 0.0, 0.0], "b": [0.5, 0.5, 0.5, 0.5]}, seeds=2)
    rate = win_rate(rows, "a", "b")
    assert (rate.value, rate.low, rate.high) == (0.5, 0.0, 1.0)  # two prompts, not four trials


def test_a_prompt_is_won_by_the_mean_of_its_seeds():
    rows = scores({"a": [0.9, 0.4, 0.4, 0.0], "b": [0.5, 0.5, 0.3, 0.3]}, seeds=2)
    rate = win_rate(rows, "a", "b")  # 0.65 against 0.5, 0.2 against 0.3
    assert (rate.value, rate.low, rate.high) == (0.5, 0.0, 1.0)  # two prompts, not four trials


def test_a_workflow_scores_what_an_average_prompt_has_with_it():
    """`good` is 0.2 better than `plain`, and drawn far more often; the two prompts are at 0.7 and 0.3."""
    rows = pd.DataFrame(
        [
            (p, w, level + (0.1 if w == "good" else -0.1))
            for p, level in (("easy", 0.7), ("hard", 0.3))
            for w in ["good"] * 9 + ["plain"]
        ],
        columns=["prompt", "workflow_key", "score"],
    ).assign(category="any")
    told = workflow_effects(rows, shrink=1e-9)["score"].to_dict()
    assert told == pytest.approx({"good": 0.6, "plain": 0.4}, abs=1e-3)


def test_workflow_effects_are_not_fooled_by_easy_prompts():
    # `good` is 0.2 better than `plain` on both, but was mostly tried on the hard prompt.
    rows = pd.DataFrame(
        [("easy", "plain", 0.8)] * 9
        + [("easy", "good", 1.0)]
        + [("hard", "good", 0.3)] * 9
        + [("hard", "plain", 0.1)],
        columns=["prompt", "workflow_key", "score"],
    )
    means = {key: np.mean(group["score"]) for key, group in rows.groupby("workflow_key")}
    assert means["plain"] > means["good"]
    effects = workflow_effects(rows.assign(category="any"), shrink=1e-9)["effect"].to_dict()
    assert list(effects) == ["good", "plain"]  # best first
    assert effects["good"] - effects["plain"] == pytest.approx(0.2, abs=1e-6)


def test_one_lucky_render_does_not_win():
    steady = [(f"p{i}", key, score) for i in range(20) for key, score in (("steady", 0.7), ("weak", 0.5))]
    rows = pd.DataFrame([*steady, ("p0", "lucky", 0.75)], columns=["prompt", "workflow_key", "score"])
    assert workflow_effects(rows.assign(category="any")).index[0] == "steady"


def test_a_workflow_that_was_tried_where_it_suits_is_not_the_best_everywhere():
    rows = pd.DataFrame(
        [
            (f"{category}{i}", category, key, score)
            for category in ("animals", "objects", "food")
            for i in range(10)
            for key, score in (("all-rounder", 0.7), ("weak", 0.5))
        ]
        # As a policy tries them: for animals alone, though three times as often.
        + [(f"animals{i}", "animals", "specialist", 0.75) for i in range(10) for _ in range(3)],
        columns=["prompt", "category", "workflow_key", "score"],
    )
    assert workflow_effects(rows).index[0] == "all-rounder"
    best = category_effects(rows).idxmax(axis=1)
    assert best.to_dict() == {"animals": "specialist", "objects": "all-rounder", "food": "all-rounder"}


def test_category_effects_fall_back_to_the_general_best():
    rows = pd.DataFrame(
        [
            (f"{category}{i}", category, key, score)
            for category, soft, hard in (("animals", 0.8, 0.6), ("objects", 0.4, 0.8))
            for i in range(10)
            for key, score in (("soft", soft), ("hard", hard))
        ]
        + [("thin0", "thin", "soft", 0.5)],
        columns=["prompt", "category", "workflow_key", "score"],
    )
    best = category_effects(rows).idxmax(axis=1)
    assert best.to_dict() == {"animals": "soft", "objects": "hard", "thin": "hard"}
