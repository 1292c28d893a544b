"""Judged designs: the order in which they are given, with a budget and without."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tiny_run import tiny_run

from flowtailor.pipelines.config import Config
from flowtailor.pipelines.judging import Judged, Wish, best_first, draw, how_many
from flowtailor.pipelines.trained import load_designer, load_ensemble, open_run
from flowtailor.workflows.space import Space

WISH = Wish("a red apple", n=2, guidance=1.5, temperature=0.7, budget_s=None, seed=3)
ONE = Judged(("VAEDecode",), -1.0, 0.7, 0.05, {}, 0.6, 1.0, 0.1, None)


def test_without_a_budget_the_reward_decides():
    low, high = replace(ONE, reward=0.2, seconds=0.1), replace(ONE, reward=0.9, seconds=9.0)
    assert best_first([low, high]) == [high, low]


def test_with_a_budget_those_that_keep_it_come_first_then_the_quickest():
    good = replace(ONE, reward=0.5, keeps_budget=True)
    poor = replace(ONE, reward=0.1, keeps_budget=True)
    late = replace(ONE, reward=0.9, seconds=2.0, keeps_budget=False)
    later = replace(ONE, reward=0.95, seconds=3.0, keeps_budget=False)
    assert best_first([later, poor, late, good]) == [good, poor, late, later]


def test_more_is_drawn_where_a_budget_must_be_kept():
    assert how_many(WISH, best_of=4) == 2
    assert how_many(replace(WISH, budget_s=1.0), best_of=4) == 4
    assert how_many(replace(WISH, budget_s=1.0, n=9), best_of=4) == 9


def test_designs_of_a_trained_run_keep_a_wide_budget_and_miss_a_narrow_one(tmp_path: Path, space: Space):
    run = open_run(tiny_run(tmp_path / "run", space))
    wishes = [replace(WISH, budget_s=1000.0), WISH, replace(WISH, n=1, budget_s=0.001)]
    models = load_designer(run, space), load_ensemble(run), Config()
    wide, free, narrow = draw(wishes, *models)
    assert [one.keeps_budget for one in wide] == [True, True]
    assert [one.keeps_budget for one in free] == [None, None]
    assert [one.keeps_budget for one in narrow] == [False]
    assert free[0].reward >= free[1].reward
    (alone,) = draw([WISH], *models)
    assert [one.tokens for one in alone] == [one.tokens for one in free]  # whatever stands beside it
