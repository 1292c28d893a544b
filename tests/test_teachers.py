"""Whom SFT imitates, and the objective that the ensemble teaches by."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection

import numpy as np
import pytest
from tiny_ensemble import RuleEnsemble
from tiny_rows import tiny_rows

from flowtailor.pipelines.config_file import load_config
from flowtailor.pipelines.examples import training_rows
from flowtailor.pipelines.objective import Objective, Words, limit
from flowtailor.pipelines.questions import Question
from flowtailor.pipelines.teachers import Answer, EnsembleTeacher, RowsTeacher
from flowtailor.workflows.rules import END
from flowtailor.workflows.space import Space

SLOW, FAST, POOR = ("KSampler", "steps=20"), ("KSampler", "steps=2"), ("KSampler", "steps=1")
# What is foreseen for each workflow, whatever the prompt: score and seconds.
FORESEEN: dict[Words, tuple[float, float]] = {SLOW: (0.80, 4.0), FAST: (0.78, 1.0), POOR: (0.30, 0.5)}


def ensemble_teacher(temperature: float, known: Collection[tuple[str, ...]] = ()) -> EnsembleTeacher:
    settings = ["scorers.weights={alignment = 1.0}", "reward.lambda_seconds=0.0", "reward.novelty=0.03"]
    config = load_config(None, [*settings, f"sft.teacher_temperature={temperature}"])
    ensemble = RuleEnsemble(lambda _, words: FORESEEN[words], ["alignment"])
    return EnsembleTeacher(ensemble, ["an owl"], list(FORESEEN), known, config)


def test_a_design_past_its_budget_is_fined_by_its_excess() -> None:
    reward_N, latest_N = np.array([0.8, 0.8, 0.8, 0.8]), np.array([1.0, 2.0, 2.25, 9.0])
    objective = Objective(reward_N, latest_N, penalty=0.4)
    fined = 0.4 * np.log([1.125, 4.5])  # beside the half and the whole of the penalty
    assert objective.within(limit(2.0)) == pytest.approx([0.8, 0.8, 0.6 - fined[0], 0.4 - fined[1]])
    assert objective.within(limit(None)) == pytest.approx(reward_N)


def test_the_ensemble_teaches_in_proportion_to_what_it_foresees() -> None:
    said = ensemble_teacher(0.02).answer(Question("an owl", None)).draw(4000, random.Random(0))
    count = Counter(said)
    assert count[SLOW] / count[FAST] == pytest.approx(np.e, rel=0.1)  # a score of 0.02 apart
    assert count[POOR] == 0


def test_a_cold_teacher_knows_one_answer_which_keeps_the_budget() -> None:
    teacher = ensemble_teacher(1e-4)
    for budget, best in ((None, SLOW), (4.0, SLOW), (2.0, FAST)):
        assert set(teacher.answer(Question("an owl", budget)).draw(50, random.Random(0))) == {best}


def test_the_teacher_prefers_what_is_new_by_as_much_as_novelty_is_worth() -> None:
    for known, best in ({SLOW}, FAST), ({SLOW, FAST}, SLOW):  # a score of 0.02 apart
        answer = ensemble_teacher(1e-4, known).answer(Question("an owl", None))
        assert answer.workflows[int(answer.share_W.argmax())] == best


def test_the_rows_teach_the_best_designs_within_the_budget(space: Space) -> None:
    rows = training_rows(tiny_rows(space), {"alignment": 0.7, "sharpness": 0.3})
    teacher = RowsTeacher(rows, keep=0.5)
    for budget in (None, float(rows["seconds"].median())):
        for prompt, group in rows.groupby("prompt"):
            fitting = group if budget is None else group.loc[group["seconds"] <= budget]
            for words in teacher.answer(Question(str(prompt), budget)).workflows:
                own = group.loc[group["tokens"] == " ".join(words)].iloc[0]
                assert own["score"] >= fitting["score"].median() - 1e-9
                assert budget is None or own["seconds"] <= max(budget, group["seconds"].min())


def test_where_no_row_keeps_the_budget_the_fastest_is_taught(space: Space) -> None:
    rows = training_rows(tiny_rows(space), {"alignment": 1.0})
    fastest = rows.loc[rows["prompt"] == "an owl"].nsmallest(1, "seconds").iloc[0]
    answer = RowsTeacher(rows, keep=0.5).answer(Question("an owl", 1e-3))
    assert [" ".join(words) for words in answer.workflows] == [fastest["tokens"]]


def test_what_may_follow_each_beginning_is_told_with_its_share() -> None:
    answer = Answer([("A", "x", "C"), ("A", "y"), ("A", "x"), ("B",)], np.array([0.2, 0.1, 0.2, 0.5]))
    first, second, third = answer.continuations(("A", "x"))
    assert first == pytest.approx({"A": 0.5, "B": 0.5})
    assert second == pytest.approx({"x": 0.8, "y": 0.2})
    assert third == pytest.approx({"C": 0.5, END: 0.5})
