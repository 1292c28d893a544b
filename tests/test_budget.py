"""Budgets in an evaluation: what is designed, how it is counted, what fixed workflows stand beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from tiny_run import tiny_run

from flowtailor.datasets.flows import load_seed_flows
from flowtailor.datasets.prompts import Prompt
from flowtailor.pipelines.budget import (
    budget_choices,
    budget_report,
    engine_pace,
    fixed_points,
    share_interval,
)
from flowtailor.pipelines.config import Config
from flowtailor.pipelines.methods import Materials
from flowtailor.pipelines.trained import load_designer, load_ensemble, open_run
from flowtailor.workflows.codec import decode, encode
from flowtailor.workflows.similarity import Known
from flowtailor.workflows.space import Space
from flowtailor.workflows.validate import problems

CONFIG = Config.model_validate({"evaluate": {"budget_quantiles": [0.9, 0.2]}})


def training_rows(space: Space) -> pd.DataFrame:
    """`plain` met easy prompts, `lora` hard ones and beats it where both were drawn."""
    met = {
        "plain": ("easy 1", "easy 2", "hard 1"),
        "lora": ("hard 1", "hard 2", "easy 2"),
        "tiny_canvas": ("easy 1",),
    }
    level = {"easy 1": 0.8, "easy 2": 0.8, "hard 1": 0.4, "hard 2": 0.4}
    return pd.DataFrame(
        [
            {
                "prompt": prompt,
                "category": "any",
                "workflow_key": name,
                "tokens": " ".join(encode(load_seed_flows()[name], space)[:-1]),
                "score": level[prompt] + 0.1 * (name == "lora"),
                "seconds": {"plain": 0.4, "lora": 0.6}.get(name, 0.2),
            }
            for name, prompts in met.items()
            for prompt in prompts
            for _ in range(15 if name != "tiny_canvas" else 1)
        ]
    )


def materials(space: Space, config: Config = CONFIG) -> Materials:
    none = cast(Any, None)  # a report needs neither policy nor ensemble
    return Materials(config, training_rows(space), Known(()), (), space, none, none, none)


def rendered() -> pd.DataFrame:
    """Two prompts, two seeds: 0.4 s is kept three times of four, 0.6 s always but for a failed render."""
    seconds = {"budget=0.4": [0.3, 0.35, 0.2, 0.5], "budget=0.6": [0.5, 0.4, 0.55, np.nan]}
    score = {"budget=0.4": [0.5, 0.6, 0.5, 0.6], "budget=0.6": [0.8, 0.9, 0.8, 0.0]}
    seconds["guided_best_of_n"], score["guided_best_of_n"] = [2.0] * 4, [0.9] * 4
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "method": name,
                    "prompt": ["a fox", "a fox", "a car", "a car"],
                    "seconds": seconds[name],
                    "score": score[name],
                    "predicted_seconds": 0.45,
                    "workflow_key": ["a", "a", "b", "b"],
                }
            )
            for name in seconds
        ]
    )


def test_a_budget_is_kept_by_rendered_seconds_and_never_by_a_failure(space: Space):
    rows = rendered()
    of_budgets = rows["method"].str.startswith("budget=")
    report = budget_report(rows.loc[~of_budgets], rows.loc[of_budgets], 1.1, materials(space))
    assert report["pace"] == 1.1
    narrow, wide = report["points"]
    assert (narrow["budget_s"], wide["budget_s"]) == (
        0.4,
        0.6,
    )
    assert narrow["kept"][0] == wide["kept"][0] == 0.75
    assert narrow["score"][0] == pytest.approx(0.55)
    assert wide["score"][0] == pytest.approx(0.625)
    assert wide["seconds"][0] == pytest.approx((0.45 + 0.55) / 2)  # of what was drawn, prompts alike
    assert (narrow["prompts"], narrow["pictures"], narrow["unique_workflows"]) == (2, 4, 2)
    assert report["unlimited"]["kept"][0] == 1
    assert report["unlimited"]["seconds"][0] == 2


def test_without_budgets_there_is_nothing_to_tell(space: Space):
    assert Config().evaluate.budget_quantiles == ()
    assert budget_report(rendered(), rendered().iloc[:0], 1.0, materials(space, Config()))["points"] == []


def test_fixed_workflows_are_compared_as_on_the_same_prompts(space: Space):
    points = {point["summary"]: point for point in fixed_points(materials(space))}
    assert len(points) == 2  # one render is no mean
    lora, plain = sorted(points.values(), key=lambda point: -point["score"])
    assert "LoRA" in lora["summary"]
    assert lora["score"] - plain["score"] == pytest.approx(
        0.1, abs=0.03
    )  # not -0.1 as the plain means have it
    assert (plain["seconds"], plain["renders"]) == (pytest.approx(0.4), 45)


def test_the_pace_of_an_engine_is_that_of_its_workflows():
    rows = pd.DataFrame(
        {
            "workflow_key": ["a"] * 5 + ["b", "c"],  # `a` was drawn most, and is one workflow all the same
            "seconds": [0.5] * 4 + [9.0] + [1.2, 1.5],
            "predicted_seconds": [0.5] * 5 + [1.0, 1.0],
        }
    )
    assert engine_pace(rows) == pytest.approx(1.2)
    assert engine_pace(rows.assign(seconds=np.nan)) == 1.0  # every render failed: nothing is known


def test_all_of_a_few_is_not_certainty():
    value, low, high = share_interval(np.ones(12))
    assert (value, high) == (1.0, 1.0)
    assert low == pytest.approx(0.757, abs=0.001)  # Wilson, 12 of 12
    assert share_interval(np.zeros(3)).low == 0.0
    assert share_interval(np.array([0.5, 1.0])).value == 0.75


def test_designs_within_budgets_are_valid_and_timed(tmp_path: Path, space: Space):
    run = open_run(tiny_run(tmp_path / "run", space))
    none = cast(Any, None)  # no category is asked for
    trained = Materials(
        CONFIG,
        training_rows(space),
        Known(()),
        (),
        space,
        load_designer(run, space),
        load_ensemble(run),
        none,
    )
    choices = budget_choices(trained, [Prompt("a fox", "animals", "test"), Prompt("a car", "", "test")], 1.0)
    assert set(choices) == {"budget=0.4", "budget=0.6"}
    for picks in choices.values():
        assert len(picks) == 2
        for pick in picks:
            assert problems(decode(pick.tokens, space).bind("a fox", 1).to_api(), space.catalog) == []
            assert pick.seconds > 0
