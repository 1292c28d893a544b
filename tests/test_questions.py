"""What policies are asked in training."""

from __future__ import annotations

from collections import Counter

from tiny_rows import PROMPTS

from flowtailor.pipelines.questions import Question, draw_questions


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
