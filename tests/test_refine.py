"""Refinement: what is picked, how a round is judged, and that the run only ever holds finished rounds."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny_refine
from tiny_refine import Faked, inputs_of
from tiny_rows import SCORERS, tiny_rows
from tiny_run import move_to

from flowtailor.actors.client import ComfyClient
from flowtailor.actors.comfy import engine_name
from flowtailor.datasets.store import Store
from flowtailor.errors import FlowtailorError
from flowtailor.pipelines.config import Config
from flowtailor.pipelines.picks import FREQUENT, UNSURE, judge, per_prompt, pick
from flowtailor.pipelines.refine import _bring_up_to_date, joined, refine, run_stage
from flowtailor.pipelines.rounds import Round
from flowtailor.pipelines.stage import Run, is_done
from flowtailor.pipelines.trained import adapter_hash
from flowtailor.workflows.space import Space

config, faked = tiny_refine.config, tiny_refine.faked  # fixtures


def candidates() -> pd.DataFrame:
    """Four prompts; workflow A is said to all of them, the others once each, and surest of A."""
    rows = [
        {"prompt": f"p{p}", "workflow_key": key, "doubt": doubt + 0.01 * p, "drawn": drawn, "said": said}
        for p in range(4)
        for key, doubt, drawn, said in (("A", 0.1, 5, 20), (f"B{p}", 0.2, 2, 2), (f"C{p}", 0.3, 1, 1))
    ]
    return pd.DataFrame(rows)


def test_half_of_the_picks_are_unsure_and_half_are_what_the_policy_says_most() -> None:
    picks = pick(candidates(), 6)
    assert Counter(picks["why"]) == {UNSURE: 3, FREQUENT: 3}
    unsure = picks[picks["why"] == UNSURE]
    assert set(unsure["workflow_key"].str[0]) == {"C"}
    assert unsure["prompt"].is_unique
    assert set(picks.loc[picks["why"] == FREQUENT, "workflow_key"]) == {"A"}
    assert picks["prompt"].nunique() == 4  # spread out


def test_what_is_said_less_gets_its_share_too() -> None:
    frame = candidates().assign(doubt=0.0)
    frequent = pick(frame.assign(said=frame["said"].replace({20: 4})), 12)
    assert len(frequent) == 12
    assert not frequent.duplicated(["prompt", "workflow_key"]).any()


def test_no_more_is_picked_than_there_is() -> None:
    assert len(pick(candidates(), 100)) == 12
    assert pick(candidates().iloc[:0], 5).empty


def judged(scores: list[float], predicted: list[float]) -> pd.DataFrame:
    """Two prompts with the same designs; the first of each is the answer."""
    one = {"score": scores, "predicted": predicted, "std": 0.1, "first": [True] + [False] * (len(scores) - 1)}
    return pd.concat([pd.DataFrame(one).assign(prompt=prompt) for prompt in ("a", "b")], ignore_index=True)


def test_a_round_is_judged_by_answers_and_by_order() -> None:
    before = judged([0.5, 0.6, 0.7], [0.9, 0.8, 0.7])
    refit = before.assign(predicted=[0.5, 0.6, 0.7] * 2)
    told = judge(before, refit, judged([0.8, 0.6, 0.7], [0.8, 0.6, 0.7]))
    assert told["before"]["score"] == pytest.approx([0.5] * 3)  # of the answer, not of the alternatives
    assert told["before"]["spearman_within_prompt"] == pytest.approx([-1.0] * 3)
    assert told["before"]["bias"] == pytest.approx([0.2] * 3)
    assert told["refit"]["spearman_within_prompt"] == pytest.approx([1.0] * 3)
    assert told["change"]["score"] == pytest.approx([0.3] * 3)
    assert told["change"]["spearman_within_prompt"] == pytest.approx([2.0] * 3)
    assert (told["after"]["prompts"], told["after"]["designs"]) == (2, 6)


def test_what_cannot_be_told_is_none() -> None:
    two = judged([0.5, 0.6], [0.5, 0.6])  # too few for a rank correlation
    assert np.isnan(per_prompt(two)["spearman_within_prompt"]).all()
    assert judge(two, two, two)["after"]["spearman_within_prompt"] is None


def test_the_steps_of_the_log_count_on() -> None:
    later = [{"step": 1, "audit_step": 0}, {"step": 2}]
    assert joined([{"step": 1}, {"step": 2}], later) == [
        {"step": 1},
        {"step": 2},
        {"step": 3, "audit_step": 2},
        {"step": 4},
    ]


def test_a_round_ends_in_the_run_and_every_stage_is_up_to_date(
    config: Config, faked: Faked, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(config)
    rows = len(Store(run.path("dataset")).rows())
    run_stage(config)
    # Picks, then designs to judge by; the policy of the fake stays as it is, so its designs are known.
    assert faked.calls == ["render", "render", "fit", "train 1"]
    learned = Store(run.path("dataset")).rows()
    assert 1 <= len(learned) - rows <= 4
    new = learned[learned["image"].notna()]
    assert set(new["prompt_split"]) == set(new["workflow_split"]) == {"train"}
    assert all(run.path("dataset").joinpath(image).is_file() for image in new["image"])
    summary = json.loads(run.path("refine/summary.json").read_text())
    assert sum(summary["picked"].values()) == len(new)
    assert summary["before"]["score"] == summary["after"]["score"]
    log = run.path("policy/grpo/log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == [1, 2]
    assert all(is_done(run, name, inputs) for name, inputs in inputs_of(config).items())

    capsys.readouterr()
    run_stage(config)
    assert len(faked.calls) == 4
    assert "refine/round-1: up to date" in capsys.readouterr().out


@pytest.mark.parametrize("step", ["render", "fit", "train 1"])
def test_an_interrupted_round_leaves_the_run_alone_and_goes_on(
    config: Config, faked: Faked, step: str
) -> None:
    run = Run(config)
    faked.fail_at = step
    with pytest.raises(KeyboardInterrupt):
        run_stage(config)
    assert all(is_done(run, name, inputs) for name, inputs in inputs_of(config).items())
    faked.fail_at = ""
    run_stage(config)
    assert faked.calls.count("render") == 2
    assert faked.calls[-1] == "train 1"


def test_a_round_designs_with_the_guidance_that_the_evaluation_chose(config: Config, faked: Faked) -> None:
    run, one = Run(config), Round(config, 1)
    run.path("evaluation").mkdir()
    told = {"chosen": 0.75, "adapter": adapter_hash(run.dir)}
    run.path("evaluation/guidance.json").write_text(json.dumps(told))
    run_stage(config)
    assert one.guidance == 0.75 != config.design.guidance
    assert is_done(run, one.name, one.inputs(), output=f"{one.name}/summary.json")


def test_a_second_round_starts_from_the_first(
    config: Config, faked: Faked, capsys: pytest.CaptureFixture[str]
) -> None:
    twice = config.changed(refine={"rounds": 2})
    run_stage(config)
    run_stage(twice)
    run = Run(config)
    assert faked.calls.count("train 1") == 2
    assert json.loads(run.path("refine/summary.json").read_text())["round"] == 2
    assert json.loads(run.path("policy/grpo/refined.json").read_text()) == {"round": 2}

    fewer = twice.changed(refine={"renders": 2})
    run_stage(fewer)
    assert "refine/round-1: stays as it is, round 2 went on from it" in capsys.readouterr().out
    assert faked.calls.count("fit") == 3  # the second round was made again


def test_a_policy_that_was_trained_anew_is_refined_anew(config: Config, faked: Faked) -> None:
    run = Run(config)
    run_stage(config)
    shutil.rmtree(run.path("policy/grpo"))
    shutil.copytree(run.path("policy/score_conditioned"), run.path("policy/grpo"))
    run_stage(config)
    assert faked.calls.count("train 1") == 2


def test_stages_that_were_out_of_date_stay_so(config: Config, faked: Faked) -> None:
    later = config.changed(sft={"steps": 7})
    faked.fail_at = "fit"
    with pytest.raises(KeyboardInterrupt):  # they were up to date by the configuration that it began with
        run_stage(config)
    faked.fail_at = ""
    run_stage(later)
    assert not is_done(Run(later), "policy/sft", inputs_of(later)["policy/sft"])


def test_a_run_that_was_only_collected_is_told_what_to_do_first(config: Config) -> None:
    shutil.rmtree(Run(config).path("reward"))
    with pytest.raises(FlowtailorError, match="has no reward; make it with `flowtailor fit-reward`"):
        refine(Round(config, 1))


def test_a_round_that_is_made_again_learns_what_scorers_have_seen_since(tmp_path: Path, space: Space) -> None:
    collected, own = tiny_rows(space), Store(tmp_path)
    unseen = collected.assign(score_sharpness=np.nan)
    own.append(unseen.iloc[1:])
    parts = len(list(tmp_path.rglob("*.parquet")))
    _bring_up_to_date(own, unseen.iloc[1:], SCORERS)  # nothing new, nothing written
    assert len(list(tmp_path.rglob("*.parquet"))) == parts
    _bring_up_to_date(own, collected.assign(created_at="2027"), SCORERS)
    rows = own.rows()
    assert len(rows) == len(collected)
    assert rows["score_sharpness"].notna().all()


def test_dry_run_says_what_it_takes(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    run_stage(config, dry_run=True)
    said = capsys.readouterr().out
    assert "at most 4 of them rendered to learn from and 12 of validation prompts" in said
    assert not Run(config).path("refine").exists()


def test_without_validation_prompts_there_is_nothing_to_judge_by(config: Config) -> None:
    none = config.changed(prompts={"validation": 0})
    with pytest.raises(FlowtailorError, match=r"prompts\.validation = 0"):
        run_stage(none)


@pytest.mark.engine
@pytest.mark.ray
@pytest.mark.slow
def test_a_round_for_real(
    config: Config, space: Space, comfy: ComfyClient, capsys: pytest.CaptureFixture[str]
) -> None:
    """Renders, fits and trains; the second call finds everything done."""
    run = Run(config)
    move_to(engine_name(config.engine, comfy), run.dir, space)
    run_stage(config)
    summary = json.loads(run.path("refine/summary.json").read_text())
    for side in ("before", "refit", "after"):
        assert 0 < summary[side]["score"][0] < 1
    assert summary["failed"] == 0
    rows = Store(run.path("refine/round-1/validation")).rows()
    assert len(rows) == summary["judged"]
    assert set(rows["prompt_split"]) == {"validation"}
    capsys.readouterr()
    run_stage(config)
    assert "refine/round-1: up to date" in capsys.readouterr().out
