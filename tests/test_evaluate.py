"""Planning an evaluation, taking over known rows, and the comparison of methods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from flowtailor.datasets.flows import load_seed_flows
from flowtailor.datasets.prompts import Prompt
from flowtailor.datasets.store import Store
from flowtailor.errors import FlowtailorError
from flowtailor.pipelines import evaluate, renders
from flowtailor.pipelines.comparison import JUDGE, NEAREST, summarise
from flowtailor.pipelines.config import Config
from flowtailor.pipelines.methods import METHODS, Choice
from flowtailor.pipelines.stage import Run, is_recorded, record, write_json
from flowtailor.pipelines.trained import adapter_hash, open_run
from flowtailor.workflows.codec import canonical_words
from flowtailor.workflows.space import Space

PROMPTS = [Prompt("a red apple", "food", "test"), Prompt("a sly fox", "animals", "test")]
ENGINE = "comfyui-0.3.75"


def design(name: str, space: Space, seconds: float = 0.5) -> Choice:
    return Choice(canonical_words(load_seed_flows()[name], space), seconds)


def planned(space: Space, **evaluation: Any) -> pd.DataFrame:
    config = Config.model_validate({"evaluate": {"seeds": 2, **evaluation}})
    plain, lora = design("plain", space), design("lora", space, seconds=0.7)
    choices = {"most_used": [plain, plain], "guided": [lora, plain]}
    return evaluate.plan(config, PROMPTS, choices, space, ENGINE)


def test_plan_has_a_row_per_method_prompt_and_seed(space: Space):
    plan = planned(space)
    assert len(plan) == 2 * 2 * 2
    # Both methods chose `plain` for the fox: the same pictures, to be rendered once.
    assert len(set(plan["row_id"])) == 6
    assert set(plan["prompt_split"]) == {"test"}
    assert set(plan["engine"]) == {"comfyui-0.3.75"}  # the one that collected last
    took = plan.set_index(["method", "prompt"])["design_seconds"]
    assert list(took["guided", "a red apple"]) == [0.7, 0.7]
    assert list(took["guided", "a sly fox"]) == [0.5, 0.5]


def test_methods_are_compared_on_the_same_noise(space: Space):
    seeds = {
        method: list(zip(group["prompt"], group["seed"], strict=True))
        for method, group in planned(space).groupby("method")
    }
    assert seeds["most_used"] == seeds["guided"]
    assert len({seed for _, seed in seeds["guided"]}) == 4  # each prompt has its own two


def with_results(plan: pd.DataFrame, images: Path) -> pd.DataFrame:
    """The plan as if it had been collected: pictures on disk and both scores."""
    rows = plan.drop_duplicates("row_id").drop(columns=["method", "design_seconds"])
    names = [f"images/{row_id[:2]}/{row_id}.png" for row_id in rows["row_id"]]
    for name in names:
        (images.parent / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(images.parent / name)
    return rows.assign(
        image=names, seconds=0.4, error_type=None, created_at="2026", score_alignment=0.5, score_sharpness=0.5
    )


def test_known_rows_are_taken_over_with_their_pictures(space: Space, tmp_path: Path):
    collection, evaluation = Store(tmp_path / "dataset"), Store(tmp_path / "evaluation")
    plan = planned(space)
    rows = with_results(plan, Path(collection.images_dir))
    rows.loc[rows.index[0], "score_sharpness"] = np.nan  # a scorer has not seen this one
    collection.append(rows)
    for _ in range(2):  # a second call finds nothing left to take over
        renders.adopt(collection, evaluation, plan, ["alignment", "sharpness"])
    assert len(evaluation.missing(plan)) == 1
    assert len(evaluation.rows()) == 5
    assert all((Path(evaluation.images_dir).parent / name).is_file() for name in evaluation.rows()["image"])


def test_rows_whose_pictures_are_gone_are_not_taken_over(space: Space, tmp_path: Path):
    collection, evaluation = Store(tmp_path / "dataset"), Store(tmp_path / "evaluation")
    plan = planned(space)
    rows = with_results(plan, Path(collection.images_dir))
    collection.append(rows)
    (Path(collection.images_dir).parent / rows["image"].iloc[0]).unlink()
    renders.adopt(collection, evaluation, plan, ["alignment", "sharpness"])
    assert len(evaluation.rows()) == 5


def test_a_picture_that_is_gone_is_no_fault_of_its_design(space: Space, tmp_path: Path):
    config = Config.model_validate({"run": {"root": str(tmp_path), "name": "made"}})
    evaluation = Store(Run(config).path("evaluation"))
    rows = with_results(planned(space), Path(evaluation.images_dir)).assign(error_message=None)
    rows.loc[rows.index[0], ["image", "error_type"]] = [None, "ComfyTimeout"]
    assert evaluate.judged(Run(config), rows)[f"score_{JUDGE}"].notna().sum() == len(rows) - 1
    (Path(evaluation.images_dir).parent / rows["image"].iloc[1]).unlink()
    with pytest.raises(FlowtailorError, match="1 pictures cannot be read"):
        evaluate.judged(Run(config), rows)


def test_another_engine_makes_the_collection_out_of_date(space: Space, tmp_path: Path):
    config = Config.model_validate({"run": {"root": str(tmp_path), "name": "made"}})
    record(Run(config), "collect", {}, output="dataset", seconds=1.0)
    plan, store = planned(space), Store(tmp_path / "evaluation")

    def other_engine(config: Config, missing: pd.DataFrame, store: Store) -> None:
        store.append(missing.assign(error_type="EngineChanged", error_message="run collect again"))

    with pytest.raises(FlowtailorError, match="run collect again"):
        renders.rendered_rows(config, plan, store, known=(), render=other_engine, label="evaluate")
    assert not is_recorded(Run(config), "collect", {})


def test_what_an_engine_lost_is_drawn_once_more(space: Space, tmp_path: Path):
    config = Config.model_validate({"run": {"root": str(tmp_path), "name": "made"}})
    plan, store = planned(space), Store(tmp_path / "evaluation")
    asked: list[int] = []

    def away_at_first(config: Config, missing: pd.DataFrame, store: Store) -> None:
        asked.append(len(missing))
        lost = missing.assign(error_type="ComfyUnavailable", error_message="away", created_at="2026-01-01")
        if len(asked) == 1:
            store.append(pd.concat([lost.head(2), with_results(missing.tail(4), tmp_path / "images")]))
        else:
            store.append(with_results(missing, tmp_path / "images"))

    rows = renders.rendered_rows(config, plan, store, known=(), render=away_at_first, label="evaluate")
    assert asked == [6, 2]
    assert rows["error_type"].isna().all()


@pytest.mark.parametrize(
    "adapter, guidance", [("as it was", 2.0), ("trained again", Config().design.guidance)]
)
def test_guidance_is_that_of_the_adapter_it_was_chosen_for(tmp_path: Path, adapter: str, guidance: float):
    run = Run(Config.model_validate({"run": {"root": str(tmp_path), "name": "made"}})).open()
    file = run.path("policy/grpo/adapter_model.safetensors")
    file.parent.mkdir(parents=True)
    file.write_text("as it was")
    run.path("evaluation").mkdir()
    write_json(run.path("evaluation/guidance.json"), {"chosen": 2.0, "adapter": adapter_hash(run.dir)})
    file.write_text(adapter)
    assert open_run(run.dir).config.design.guidance == guidance


def test_rows_of_other_scorers_are_not_taken_over(space: Space, tmp_path: Path):
    collection, evaluation = Store(tmp_path / "dataset"), Store(tmp_path / "evaluation")
    plan = planned(space)
    collection.append(with_results(plan, Path(collection.images_dir)))
    renders.adopt(collection, evaluation, plan, ["alignment", "beauty"])
    assert evaluation.rows().empty


def measured(table: dict[str, list[float]]) -> pd.DataFrame:
    """method -> a score per prompt; a score of 0 stands for a failed render."""
    return pd.DataFrame(
        [
            {
                "prompt": f"p{i}",
                "seed": 7 + i,
                "method": method,
                "score": score,
                "score_held_out_alignment": score / 2 if score else np.nan,
                "error_type": "ComfyExecutionError" if score == 0 else None,
                "seconds": np.nan if score == 0 else 0.5,
                "workflow_key": f"{method}{i % 2}",
                "valid": score > 0,
                **dict.fromkeys(NEAREST, 0.5),
                "design_seconds": 0.1 * (i + 1),
            }
            for method, values in table.items()
            for i, score in enumerate(values)
        ]
    )


def test_summary_has_the_contract_s_numbers():
    rows = measured({"sft": [0.5, 0.6, 0.0], "guided": [0.7, 0.5, 0.6]})
    reward = {"held_out_prompt": {"spearman_within_prompt": 0.5}}
    summary = summarise(rows, reward)
    assert (summary["prompts"], summary["seeds"], summary["reward"]) == (3, 1, reward)
    sft = summary["methods"]["sft"]
    assert sft["score"] == pytest.approx(1.1 / 3)
    assert sft["score_ci95"][0] <= sft["score"] <= sft["score_ci95"][1]
    assert sft["win_rate_vs"]["guided"][0] == pytest.approx(1 / 3)
    assert sft["lead_over"]["guided"][0] == pytest.approx((1.1 - 1.8) / 3)
    assert sft["held_out_scorer"]["score"] == pytest.approx(1.1 / 6)
    assert sft["held_out_scorer"]["win_rate_vs"] == sft["win_rate_vs"]
    assert sft["executed"] == sft["valid"] == pytest.approx(2 / 3)
    assert (sft["unique_workflows"], sft["design_seconds_p50"]) == (2, pytest.approx(0.2))
    assert sft["render_seconds_mean"] == 0.5  # of those that rendered
    assert set(sft) == {
        "score",
        "score_ci95",
        "win_rate_vs",
        "lead_over",
        "held_out_scorer",
        "valid",
        "executed",
        "unique_workflows",
        *NEAREST,
        "design_seconds_p50",
        "render_seconds_mean",
    }


def test_methods_stand_in_the_table_s_order_whatever_the_rows_order():
    rows = measured({"guided": [0.7], "most_used": [0.5]})
    assert list(summarise(rows, {})["methods"]) == ["most_used", "guided"]


def test_a_missing_stage_is_named_with_its_command(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FlowtailorError, match="flowtailor collect"):
        evaluate.run_stage(Config())


def test_designs_are_made_from_then_on_as_they_are_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for part in evaluate.PARTS:
        (tmp_path / "made" / part).mkdir(parents=True)

    def stop(*_: Any) -> None:
        raise FlowtailorError("far enough")

    config = Config.model_validate(
        {"run": {"root": str(tmp_path), "name": "made"}, "design": {"temperature": 0.3}}
    )
    monkeypatch.setattr(evaluate, "read_world", lambda _: (None, None))
    monkeypatch.setattr(evaluate, "gather", stop)
    with pytest.raises(FlowtailorError, match="far enough"):
        evaluate.run_stage(config)
    assert not (tmp_path / "made/config.resolved.json").exists()  # what cannot be evaluated changes nothing
    monkeypatch.setattr(evaluate, "gather", lambda *_: None)
    monkeypatch.setattr(evaluate, "sweep", stop)
    with pytest.raises(FlowtailorError, match="far enough"):
        evaluate.run_stage(config)
    assert open_run(tmp_path / "made").config.design.temperature == 0.3


def test_another_judge_makes_an_evaluation_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = Run(Config.model_validate({"run": {"root": str(tmp_path)}}))
    record(run, "evaluate", evaluate.stage_inputs(run), output="evaluation", seconds=1.0)
    assert is_recorded(run, "evaluate", evaluate.stage_inputs(run))
    (tmp_path / f"{JUDGE}.safetensors").write_bytes(b"other weights")
    monkeypatch.setattr(evaluate, "SHIPPED", tmp_path)
    assert not is_recorded(run, "evaluate", evaluate.stage_inputs(run))


def test_dry_run_says_how_many_renders_at_most(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    evaluate.run_stage(
        Config.model_validate({"evaluate": {"prompts": 10, "render_sweep": False}}), dry_run=True
    )
    assert f"at most {10 * len(METHODS)} renders" in capsys.readouterr().out
