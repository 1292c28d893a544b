"""What each part of a design adds, and how foreseen differences are compared to rendered ones."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import why_study as study
from tiny_run import tiny_run

from flowtailor.datasets.flows import load_seed_flows
from flowtailor.datasets.prompts import Prompt
from flowtailor.models.attribution import Differences
from flowtailor.pipelines.trained import load_ensemble, open_run
from flowtailor.pipelines.why import Contribution, contributions, told
from flowtailor.workflows.codec import encode
from flowtailor.workflows.space import Space

WEIGHTS = {"alignment": 3.0, "sharpness": 1.0}


BOTH = ("alignment", "sharpness")


def test_the_error_bar_is_the_members_disagreement_and_scorers_are_weighted():
    scores = np.array([[[0.2, 0.0]], [[0.4, 0.4]]])  # 2 members, a pair
    none, apart = np.zeros((1, 2)), np.eye(2)
    added = Differences(scores, np.array([[1.0], [2.0]]), none, none[0, :1], BOTH, apart).weighted(WEIGHTS)
    each = np.array([0.75 * 0.2, 0.75 * 0.4 + 0.25 * 0.4])
    assert added.score == pytest.approx([each.mean()])
    assert added.score_std == pytest.approx([each.std(ddof=1)])
    assert (added.seconds, added.seconds_std) == (pytest.approx([1.5]), pytest.approx([0.5**0.5]))


def test_what_nobody_rendered_widens_the_bar_and_scorers_err_as_far_together_as_they_do():
    agreed, posterior = np.full((3, 1, 2), 0.1), np.array([[0.04, 0.12]])
    parts = Differences(agreed, np.ones((3, 1)), posterior, np.array([0.5]), BOTH, np.eye(2))
    assert parts.weighted(WEIGHTS).score_std == pytest.approx([np.hypot(0.03, 0.03)])
    assert parts.weighted(WEIGHTS).seconds_std == pytest.approx([0.5])
    together = dataclasses.replace(parts, correlation=np.ones((2, 2)))
    assert together.weighted(WEIGHTS).score_std == pytest.approx([0.06])


def test_contributions_are_differences_of_predictions_the_largest_first(tmp_path: Path, space: Space):
    ensemble = load_ensemble(open_run(tiny_run(tmp_path / "run", space)))
    flows = load_seed_flows()
    designs = [("a fox", encode(flows[name], space)) for name in ("plain", "two_loras", "quick_lcm")]
    nothing, loras, quick = contributions(designs, ensemble, space, WEIGHTS)
    assert (nothing, len(loras), len(quick)) == ([], 6, 3)
    for parts in (loras, quick):
        sizes = [abs(part.score) for part in parts]
        assert sizes == sorted(sizes, reverse=True)
        assert all(part.score_std > 0 and part.seconds_std > 0 for part in parts)
    words = [designs[2][1], quick[0].without]
    score, _ = ensemble.predict(["a fox"] * 2, words).score(WEIGHTS)
    assert quick[0].score == pytest.approx(score[0] - score[1], abs=1e-6)
    (alone,) = contributions([designs[2]], ensemble, space, WEIGHTS)
    assert [part.component for part in alone] == [part.component for part in quick]
    assert contributions([], ensemble, space, WEIGHTS) == []


def test_the_few_that_matter_are_told():
    parts = [
        Contribution("upscaler x2", "left out", 0.0634, 0.011, 0.31, 0.02, ()),
        Contribution("steps=12", "steps=8", -0.02, 0.01, 0.2, 0.02, ()),
        Contribution("cfg=3", "cfg=2", 0.001, 0.01, 0.0, 0.02, ()),
    ]
    assert told(parts) == [
        "upscaler x2: +0.06 ± 0.01, +0.31 s",
        "steps=12 instead of steps=8: -0.02 ± 0.01, +0.20 s",
    ]


def differences(noise: float) -> pd.DataFrame:
    """20 designs of 6 parts, rendered = foreseen and noise as wide as the error bars."""
    rng = np.random.default_rng(1)
    foreseen = rng.normal(0, 0.1, 120)
    return pd.DataFrame(
        {
            "design": np.repeat(np.arange(20), 6),
            "foreseen": foreseen,
            "foreseen_std": noise or 0.01,
            "rendered": foreseen + rng.normal(0, noise, 120),
        }
    )


def test_agreement_of_foreseen_and_rendered_differences():
    exact = study.agreement(differences(0.0))
    assert exact["spearman"] == pytest.approx([1, 1, 1])
    assert (exact["designs"], exact["parts"], exact["same_sign"], exact["coverage_1"]) == (20, 120, 1, 1)
    noisy = study.agreement(differences(0.1))
    value, low, high = noisy["spearman"]
    assert low < value < high < 1
    assert 0.5 < noisy["spearman_within_design"] < 0.95
    assert noisy["coverage_1"] == pytest.approx(0.68, abs=0.1)
    assert noisy["same_sign"] > 0.8


def test_the_study_compares_each_part_to_its_own_renders():
    part = Contribution("steps=12", "steps=8", 0.05, 0.01, 0.2, 0.02, ("KSampler",))
    pictures = [("KSampler steps=12", 0.8, 0.9), ("KSampler steps=12", 0.6, 0.7), ("KSampler", 0.6, 0.5)]
    rows = pd.DataFrame(
        [{"prompt": "a fox", "tokens": t, "score": score, "seconds": s} for t, score, s in pictures]
    )
    design = (Prompt("a fox", "animals", "test"), ("KSampler", "steps=12"), [part])
    parts = study.compared([design], rows)
    assert parts["rendered"].tolist() == pytest.approx([0.1])
    assert parts["rendered_seconds"].tolist() == pytest.approx([0.3])
    seconds = study.of_seconds(parts)
    assert seconds[["foreseen", "foreseen_std"]].to_numpy().tolist() == [[0.2, 0.02]]
    told = {"score": study.agreement(differences(0.1)), "seconds": study.agreement(differences(0.0))}
    table = study.markdown(told, 3)
    assert "20 designs with 120 parts, 3 seeds each" in table
    assert "| seconds | 1.00 (1.00 to 1.00) | 1.00 | 100% | 100% |" in table
