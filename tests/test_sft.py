"""What SFT imitates, and the stage on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from killing import KillOneWorker
from tiny_policy import tiny_base
from tiny_rows import tiny_rows
from tiny_run import tiny_config, tiny_run

from flowtailor.datasets.store import Store
from flowtailor.errors import FlowtailorError
from flowtailor.models.designing import Designer
from flowtailor.models.labels import Labels
from flowtailor.pipelines.config import Config
from flowtailor.pipelines.examples import imitation_examples, score_examples, training_rows
from flowtailor.pipelines.known import known_to, read_known, workflows_of, write_known
from flowtailor.pipelines.questions import Question
from flowtailor.pipelines.sft import run_stage, stage_inputs
from flowtailor.pipelines.stage import Run
from flowtailor.pipelines.teachers import RowsTeacher
from flowtailor.workflows.space import Space

WEIGHTS = {"alignment": 0.7, "sharpness": 0.3}


def test_a_policy_that_goes_on_knows_what_it_knew(tmp_path: Path, space: Space) -> None:
    """What a round of refinement has rendered since is news all the same."""
    rows = tiny_rows(space)
    assert known_to("smollm2-135m-instruct", rows) == workflows_of(rows)
    write_known(tmp_path, rows.head(1))
    assert known_to(str(tmp_path), rows) == workflows_of(rows.head(1))


def test_each_question_gets_its_designs_one_after_another(space: Space) -> None:
    rows = training_rows(tiny_rows(space), WEIGHTS)
    questions = [Question("an owl", None), Question("a taco", 1.0), Question("an owl", 0.7)]
    examples = imitation_examples(questions, RowsTeacher(rows, keep=0.5), each=3, seed=0)
    assert [(example.prompt, example.budget_s) for example in examples[::3]] == questions
    assert [example.prompt for example in examples[:3]] == ["an owl"] * 3
    assert examples == imitation_examples(questions, RowsTeacher(rows, keep=0.5), each=3, seed=0)
    assert examples != imitation_examples(questions, RowsTeacher(rows, keep=0.5), each=3, seed=1)


def test_test_prompts_and_failed_rows_teach_nothing_and_rows_without_a_score_have_none(space: Space) -> None:
    rows = tiny_rows(space).astype({"error_type": object})
    rows.loc[0, "error_type"] = "ComfyTimeout"
    rows.loc[1, "score_sharpness"] = np.nan
    kept = training_rows(rows, WEIGHTS)
    assert set(kept["prompt_split"]) == {"train"}
    assert "0" not in set(kept["row_id"])
    assert list(kept.loc[kept["score"].isna(), "row_id"]) == ["1"]  # its workflow is known all the same
    with pytest.raises(FlowtailorError, match="flowtailor collect"):
        training_rows(rows.loc[rows["prompt_split"] == "test"], WEIGHTS)


def test_without_a_whole_row_there_is_no_score_to_show(space: Space) -> None:
    rows = training_rows(tiny_rows(space).assign(score_sharpness=np.nan), WEIGHTS)
    with pytest.raises(FlowtailorError, match="no row has the score of every scorer"):
        score_examples(rows.dropna(subset="score"), 3, each=1, seed=0)


@pytest.mark.parametrize(
    ("policy", "teacher", "unread"),
    [
        ("policy/sft", "ensemble", ["keep=0.5", "score_conditioned_steps=9"]),
        ("policy/sft", "rows", ["variants=9", "teacher_temperature=1.0"]),
        ("policy/score_conditioned", "ensemble", ["variants=9", "keep=0.5", "steps=9"]),
    ],
)
def test_what_a_policy_does_not_read_trains_nothing_again(
    policy: str, teacher: str, unread: list[str], tmp_path: Path
) -> None:
    def inputs(*settings: str) -> dict[str, Any]:
        config = tiny_config(tmp_path, f"sft.teacher={teacher}", *(f"sft.{one}" for one in settings))
        return stage_inputs(config, Run(config), policy)

    assert inputs() == inputs(*unread)
    assert inputs() != inputs("learning_rate=0.5")


def test_score_conditioned_examples_show_every_row_with_its_score(space: Space) -> None:
    rows = training_rows(tiny_rows(space), WEIGHTS)
    examples = score_examples(rows, len(rows) + 5, each=3, seed=0)
    assert sorted(example.score for example in examples[: len(rows)] if example.score) == pytest.approx(
        sorted(rows["score"])
    )
    assert len(examples) == len(rows) + 5
    assert {len({example.prompt for example in examples[i : i + 3]}) for i in range(0, len(rows), 3)} == {1}
    assert [example.prompt for example in examples] != sorted(example.prompt for example in examples)


def config_in(folder: Path, *overrides: str) -> Config:
    return tiny_config(
        folder,
        f"sft.base={str(folder / 'language-model')!r}",
        "sft.steps=12",
        "sft.batch_size=4",
        "sft.score_conditioned_steps=2",
        "sft.learning_rate=1e-2",  # random weights learn little in so few steps otherwise
        "sft.variants=60",
        *overrides,
    )


@pytest.fixture
def folder(tmp_path: Path, space: Space) -> Path:
    """A root folder with the collection of the run "tiny" and a tiny language model."""
    run = tiny_run(tmp_path / "tiny", space)
    Store(run / "dataset").append(tiny_rows(space))
    tiny_base(tmp_path / "language-model")
    return tmp_path


def test_dry_run_says_on_what_it_would_train(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_stage(config_in(folder), dry_run=True)
    said = capsys.readouterr().out
    assert "policy/sft: 12 steps of 4 examples, taught by ensemble (1368 prompts, 24 rows)" in said
    assert "each with its score (4 prompts, 24 rows)" in said
    assert not (folder / "tiny/stages").exists()


@pytest.mark.ray
def test_a_killed_worker_resumes_and_the_policies_design(
    folder: Path, space: Space, capsys: pytest.CaptureFixture[str]
) -> None:
    killer = KillOneWorker(folder / "tiny/ray", "*/step-*/trainer/trainer_state.json")
    killer.start()
    run_stage(config_in(folder))
    killer.join()
    assert killer.killed

    policy = folder / "tiny/policy"
    log = [json.loads(line) for line in (policy / "sft/log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == list(range(1, 13))  # nothing twice, nothing missing
    assert log[-1]["loss"] < log[0]["loss"]
    assert not list((folder / "tiny/ray").iterdir())
    shown = training_rows(tiny_rows(space), WEIGHTS)
    assert read_known(Run(config_in(folder))) == workflows_of(shown)

    labels = Labels.find(policy / "sft")
    assert labels is not None and labels.of("a red apple")["category"][0] == "food"

    designer = Designer.load(policy / "sft", None, space, score_conditioned_dir=policy / "score_conditioned")
    designs = designer.design(["an owl"], n=2, adapter="score_conditioned", score=0.9)
    assert all(design.tokens for design in designs[0])

    run_stage(config_in(folder))
    assert capsys.readouterr().out.count("up to date") == 2
