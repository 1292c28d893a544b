"""The methods: what the baselines choose from known rows, and that each gives valid workflows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from tiny_run import tiny_run

from flowtailor.datasets.flows import load_seed_flows
from flowtailor.datasets.prompts import Prompt
from flowtailor.pipelines.config import Config
from flowtailor.pipelines.judging import Wish, draw
from flowtailor.pipelines.methods import LEARNED, METHODS, Materials, choose, default_design
from flowtailor.pipelines.sweep import best_guidance, guidance_report, sweep_designs
from flowtailor.pipelines.trained import load_designer, load_ensemble, open_run
from flowtailor.workflows.codec import canonical_words, decode
from flowtailor.workflows.similarity import Known
from flowtailor.workflows.space import Space
from flowtailor.workflows.validate import problems

FOX, APPLE, CAR = (
    Prompt("a fox", "animals", "test"),
    Prompt("an apple", "food", "test"),
    Prompt("a car", "", "test"),
)


def words(name: str, space: Space) -> tuple[str, ...]:
    return canonical_words(load_seed_flows()[name], space)


@pytest.fixture
def materials(space: Space) -> Materials:
    """Rows in which `lora` is best for animals, `few_steps` for food and on the whole."""
    scores = {
        "animals": {"plain": 0.5, "lora": 0.8, "few_steps": 0.7},
        "food": {"plain": 0.5, "lora": 0.3, "few_steps": 0.9},
    }
    rows = [
        {
            "prompt": f"{category} {i}",
            "category": category,
            "style": "",
            "workflow_key": name,
            "tokens": " ".join(words(name, space)),
            "score": score,
        }
        for category, table in scores.items()
        for i in range(12)
        for name, score in table.items()
    ]
    none = cast(Any, None)  # the baselines use neither policy nor ensemble
    told = {text: {"category": ("animals",)} for text in (FOX.text, APPLE.text)}  # mistaken about the apple
    return Materials(
        Config(),
        pd.DataFrame(rows),
        Known(()),
        words("plain", space),
        space,
        none,
        none,
        lambda text: told.get(text, {}),
    )


def test_the_default_is_the_plain_graph_or_else_the_commonest(materials: Materials, space: Space):
    flows = load_seed_flows()
    assert default_design(flows, materials.rows, space) == words("plain", space)
    only_lora = {"mine": flows["lora"]}
    rows = pd.DataFrame({"tokens": ["b", "a", "b", "a b", "a b"]})
    assert default_design(only_lora, rows, space) == ("a", "b")


def test_baselines_choose_what_the_rows_say(materials: Materials, space: Space):
    def chosen(method: str) -> list[tuple[str, ...]]:
        return [choice.tokens for choice in choose(method, [FOX, APPLE, CAR], materials)]

    plain, lora, few = (words(name, space) for name in ("plain", "lora", "few_steps"))
    assert chosen("most_used") == [plain] * 3
    assert chosen("best_fixed") == [few] * 3
    assert chosen("retrieval") == [lora, lora, few]  # an unknown category gets the best of all
    assert chosen("retrieval_labelled") == [lora, few, few]


def test_what_is_told_of_style_adds_to_the_category(materials: Materials, space: Space):
    rows = materials.rows
    lines = rows["prompt"].str[-1] < "3"
    plain_is_for_lines = 0.5 * (lines & (rows["workflow_key"] == "plain"))
    styled = rows.assign(style=np.where(lines, "line", ""), score=rows["score"] + plain_is_for_lines)
    drawn = replace(FOX, style="line")
    choices = choose("retrieval_labelled", [FOX, drawn], replace(materials, rows=styled))
    assert [choice.tokens for choice in choices] == [words("lora", space), words("plain", space)]


def test_random_valid_is_valid_varied_and_reproducible(materials: Materials, space: Space):
    prompts = [FOX, APPLE, CAR] * 4
    designs = [choice.tokens for choice in choose("random_valid", prompts, materials)]
    assert designs == [choice.tokens for choice in choose("random_valid", prompts, materials)]
    assert len(set(designs)) > 6
    for tokens in designs:
        assert problems(decode(tokens, space).bind("a fox", 1).to_api(), space.catalog) == []


def test_every_choice_is_timed(materials: Materials):
    assert all(0 <= choice.seconds < 5 for choice in choose("retrieval", [FOX, APPLE], materials))


def test_learned_methods_design_valid_workflows(materials: Materials, space: Space, tmp_path: Path):
    run = open_run(tiny_run(tmp_path / "run", space))
    trained = replace(
        materials,
        designer=load_designer(run, space, score_conditioned=True),
        ensemble=load_ensemble(run),
    )
    assert set(LEARNED) < set(METHODS)
    designs = {}
    for method in LEARNED:
        designs[method] = [choice.tokens for choice in choose(method, [FOX, APPLE], trained)]
        for tokens in designs[method]:
            assert problems(decode(tokens, space).bind("a fox", 1).to_api(), space.catalog) == []
    assert designs["sft"] != designs["grpo"] != designs["guided"]
    design = trained.config.design
    wish = Wish(FOX.text, design.best_of, design.guidance, design.temperature, budget_s=None, seed=0)
    [drawn] = draw([wish], trained.designer, trained.ensemble, trained.config)
    assert len(drawn) == design.best_of
    assert designs["guided_best_of_n"][0] == max(drawn, key=lambda one: one.reward).tokens


def test_guidance_is_the_plainest_of_what_renders_no_worse_than_the_best():
    def point(w: float, rendered: list[float], reward: float) -> dict:
        return {"guidance": w, "rendered_by_prompt": rendered, "predicted_reward": reward}

    # w=0 renders best by a hair, w=3 clearly worse: both ways on every prompt
    rendered = [point(0, [0.5, 0.8], 0.6), point(1.5, [0.6, 0.69], 0.5), point(3, [0.4, 0.6], 0.9)]
    assert best_guidance(rendered) == 1.5
    assert best_guidance([point(0, [0.5], 0.1), point(1.5, [0.5], 0.1), point(3, [0.5], 0.1)]) == 1.5
    clearly = [point(1, [0.5, 0.6, 0.7, 0.5], 0.9), point(2, [0.6, 0.71, 0.8, 0.61], 0.1)]
    assert best_guidance(clearly) == 2
    assert best_guidance([point(1, [], 0.2), point(2, [], 0.3)]) == 2


def test_a_sweep_reports_expectation_and_diversity(materials: Materials, space: Space, tmp_path: Path):
    run = open_run(tiny_run(tmp_path / "run", space))
    config = Config.model_validate({"evaluate": {"guidance_sweep": [0, 2], "sweep_designs": 3}})
    known = Known([words("plain", space), words("lora", space)])
    trained = replace(
        materials, config=config, known=known, designer=load_designer(run, space), ensemble=load_ensemble(run)
    )
    sweeps = sweep_designs(trained, [FOX, APPLE])
    rows = pd.DataFrame({"method": ["w=2"], "prompt": [FOX.text], "score": [0.5]})
    report = guidance_report(sweeps, rows, trained)
    still, strong = report["points"]
    assert (report["prompts"], report["designs_per_prompt"], report["chosen"]) == (2, 3, 2)
    assert still["rendered_score"] is None
    assert strong["rendered_score"][0] == 0.5
    for point in (still, strong):
        low, high = point["predicted_score"][1:]
        assert low <= point["predicted_score"][0] <= high
        assert 0 < point["unique_share"] <= 1
        assert 0 < point["nearest_training_similarity"] < 1
        assert point["logprob"] < 0
