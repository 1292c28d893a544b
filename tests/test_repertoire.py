"""What the teacher may choose from: good workflows, rendered or not, for any time limit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from tiny_ensemble import RuleEnsemble
from tiny_rows import tiny_rows

from flowtailor.pipelines import repertoire
from flowtailor.pipelines.config_file import load_config
from flowtailor.pipelines.objective import Objective
from flowtailor.workflows.codec import canonical_words, decode
from flowtailor.workflows.space import Space

PROMPTS = ["an owl", "a taco"]


def likes_cfg_3(prompt: str, words: tuple[str, ...]) -> tuple[float, float]:
    """`cfg=3` is good, above all for owls, and each word takes a tenth of a second."""
    return (1 + (prompt == "an owl")) * ("cfg=3" in words) / 4, len(words) / 10


@pytest.fixture
def rendered(space: Space) -> list[tuple[str, ...]]:
    texts = sorted(set(tiny_rows(space)["tokens"]))
    return [canonical_words(decode(tuple(text.split()), space), space) for text in texts]


def chosen(rendered: list[tuple[str, ...]], space: Space, monkeypatch: Any, variants: int) -> list:
    monkeypatch.setattr(repertoire, "KEPT", 5)
    config = load_config(None, ["scorers.weights={alignment = 1.0}", f"sft.variants={variants}"])
    ensemble = RuleEnsemble(likes_cfg_3, ["alignment"])
    return repertoire.repertoire(rendered, set(rendered), PROMPTS, ensemble, space, config)


def test_without_variants_only_rendered_workflows_are_kept(rendered, space, monkeypatch) -> None:
    assert set(chosen(rendered, space, monkeypatch, 0)) < set(rendered)


def test_variants_that_are_foreseen_to_be_better_take_their_place(rendered, space, monkeypatch) -> None:
    kept = chosen(rendered, space, monkeypatch, 400)
    assert any("cfg=3" in words and words not in rendered for words in kept)
    assert kept == chosen(rendered, space, monkeypatch, 400)
    for words in kept:
        assert canonical_words(decode(words, space), space) == words


def test_each_limit_and_each_prompt_keeps_its_best() -> None:
    reward_PW = np.array([[0.9, 0.8, 0.5, 0.1], [0.2, 0.8, 0.5, 0.1]])
    latest_PW = np.array([[4.0, 4.0, 2.0, 1.0]] * 2)
    told = Objective(reward_PW, latest_PW, penalty=1.0)
    assert repertoire.best(told, [math.inf], 1) == [0, 1]
    assert repertoire.best(told, [math.inf, 2.0, 1.0], 1) == [0, 1, 2, 3]
