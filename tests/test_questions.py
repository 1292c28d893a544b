"""What policies are asked in training."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from tiny_rows import PROMPTS

from flowtailor.datasets.prompts import load_prompts
from flowtailor.errors import FlowtailorError
from flowtailor.pipelines.config_file import load_config
from flowtailor.pipelines.questions import Question, askable, draw_questions


def asked(seed: int = 1, budgeted: float = 0.5) -> list[Question]:
    return draw_questions(PROMPTS, 20, seconds=(0.5, 2.0), budgeted=budgeted, seed=seed)


def test_every_prompt_is_asked_before_any_is_asked_twice() -> None:
    questions = asked()
    assert len(questions) == 20
    assert Counter(question.prompt for question in questions) == dict.fromkeys(PROMPTS, 4)
    assert Counter(question.prompt for question in questions[:5]) == dict.fromkeys(PROMPTS, 1)
    assert questions == asked()
    assert questions != asked(seed=2)


def test_budgets_are_given_to_their_share_and_lie_in_their_range() -> None:
    budgets = [question.budget_s for question in asked() if question.budget_s is not None]
    assert 4 < len(budgets) < 16
    assert all(0.5 <= budget <= 2.0 for budget in budgets)
    assert {question.budget_s for question in asked(budgeted=0.0)} == {None}
    assert None not in {question.budget_s for question in asked(budgeted=1.0)}


def test_without_a_training_prompt_there_is_nothing_to_ask() -> None:
    with pytest.raises(FlowtailorError, match="no training prompt"):
        draw_questions([], 3, seconds=(0.5, 2.0), budgeted=0.5, seed=0)


def test_all_training_prompts_of_the_file_can_be_asked_and_no_others(tmp_path: Path) -> None:
    file = tmp_path / "prompts.csv"
    file.write_text("text,category\n" + "".join(f"a fox {i},animals\n" for i in range(40)))
    config = load_config(None, [f"prompts.file={str(file)!r}", "prompts.train=1"])
    texts = {prompt.text for prompt in load_prompts(file) if prompt.split == "train"}
    assert 10 < len(texts) < 40
    assert set(askable(config)) == texts
