"""The studio study: a full product is planned, rows in any order give the same report, gaps are refused."""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import studio_study
import study_montage
from PIL import Image
from study_report import Study, kinds

from flowtailor.datasets.flows import load_seed_flows
from flowtailor.errors import FlowtailorError
from flowtailor.pipelines.catalog import World
from flowtailor.workflows.catalog import Catalog
from flowtailor.workflows.codec import decode
from flowtailor.workflows.space import Space

WEIGHTS = {"alignment": 0.7, "sharpness": 0.3}
FLOWS = ("few_steps", "latent_upscale", "lora", "plain")


@pytest.fixture
def rows() -> pd.DataFrame:
    """Twelve prompts, four seed workflows, two seeds: a second pass is right for eight of the prompts."""
    noise = np.random.default_rng(0)
    flows = load_seed_flows()
    records = []
    for p, name, s in itertools.product(range(12), FLOWS, range(2)):
        liked = (name == "latent_upscale") == (p < 8)
        records.append(
            {
                "prompt": f"prompt {p:02}",
                "workflow_key": name,
                "workflow": flows[name].dumps(),
                "seed": (7919 * (2 * p + s)) % 100003,
                "score_alignment": 0.4 + 0.4 * liked + noise.normal(scale=0.01),
                "score_sharpness": 0.5 + noise.normal(scale=0.01),
                "seconds": 1.5 if name == "latent_upscale" else 0.5,
                "engine": "comfyui-0.3.75+studio-abc",
                "error_type": None,
                "image": "images/a.png",
                "created_at": f"2026-01-01T00:00:{p:02}+00:00",
            }
        )
    return pd.DataFrame(records)


@pytest.mark.parametrize("repeated", [0.0, 0.5])
def test_the_plan_is_the_full_product_whatever_the_configuration_repeats(
    tmp_path: Path, space: Space, catalog_0375: Catalog, repeated: float
):
    file = tmp_path / "c.toml"
    file.write_text(f"[collect]\nrepeated = {repeated}\n")
    arguments = argparse.Namespace(prompts=3, flows=5, seeds=2, out=tmp_path / "s", config=str(file))
    config = studio_study.study_config(arguments)
    assert (Path(config.run.root), config.run.name) == (tmp_path, "s")
    planned = studio_study.plan(config, World("engine", catalog_0375, space))
    assert len(planned) == planned["row_id"].nunique() == 3 * 5 * 2
    assert set(planned["prompt_split"]) == {"train"}
    assert (planned.groupby(["prompt", "workflow_key"])["seed"].nunique() == 2).all()


def test_the_workflows_of_the_study_are_different_and_in_the_space(space: Space):
    flows = [words.split() for words in studio_study.WORKFLOWS.read_text().splitlines()]
    assert len(flows) == studio_study.FULL["flows"] == len({decode(words, space).key for words in flows})


def test_rows_become_arrays_whatever_their_order(rows: pd.DataFrame, space: Space):
    shuffled = rows.sample(frac=1, random_state=1)
    study = Study.of(shuffled, WEIGHTS, space, engines=2)
    assert study.scores["weighted score"].shape == (12, 4, 2)
    one = rows[(rows["prompt"] == "prompt 03") & (rows["workflow_key"] == FLOWS[1])].sort_values("seed")
    assert study.scores["alignment"][3, 1].tolist() == one["score_alignment"].tolist()
    assert study.seconds_W.tolist() == [0.5, 1.5, 0.5, 0.5]
    assert [set(kinds(flow)) - {"checkpoint general"} for flow in study.flows] == [
        set(),
        {"upscaling", "second pass"},
        {"LoRA"},
        set(),
    ]
    assert (study.drawn, study.drawn_per_s) == (96, pytest.approx(12 * 4 * 2 / 11))


def test_the_report_says_what_was_put_in(rows: pd.DataFrame, space: Space, tmp_path: Path):
    rows.loc[rows["prompt"] > "prompt 05", "image"] = None  # taken over, without pictures
    study = Study.of(rows, WEIGHTS, space, engines=2)
    studio_study.write(study, Image.new("RGB", (8, 8)), tmp_path / "study.md", tmp_path / "study.png")
    text = (tmp_path / "study.md").read_text()
    assert "12 prompts x 4 workflows x 2 seeds = 96 pictures of" in text
    assert ", 48 of them drawn for it at 9.60/s on 2 engines; 0 failed" in text
    assert "(study.png)" in text
    assert "(study_prompts.webp)" in text
    assert (tmp_path / "study.png").stat().st_size > 10_000
    [second_pass] = [line for line in text.splitlines() if line.startswith("| second pass | 1 | ")]
    assert "| 67 (" in second_pass  # eight prompts in twelve
    assert second_pass.endswith("| +1.00 |")
    [hires] = [line for line in text.splitlines() if line.startswith("| Latent Upscale By bislerp 1.5")]
    assert "| 67% | 33% | +1.00 |" in hires  # four in twelve lose 0.28
    front = text[text.index("| seconds | score | workflow |") :].splitlines()
    assert [line.partition(" | ")[0] for line in front[:4]] == ["| seconds", "| ---", "| 0.50", "| 1.50"]


def test_the_montage_shows_the_best_and_the_worst_workflow(rows: pd.DataFrame):
    rows = rows.assign(row_id=rows["prompt"] + rows["workflow_key"])
    score = np.where(rows["workflow_key"] == "lora", 0.9, 0.5) - 0.2 * (rows["workflow_key"] == "plain")
    found = study_montage.extremes(rows, score.tolist())
    assert found["prompt 05"] == ("prompt 05lora", "prompt 05plain")
    white, red = Image.new("RGB", (64, 64), "white"), Image.new("RGB", (128, 128), "red")
    sheet = np.asarray(study_montage.montage(dict.fromkeys(found, (white, red, white))))
    share = (sheet == (255, 0, 0)).all(axis=-1).sum() / sheet[..., 0].size
    assert share == pytest.approx(12 * study_montage.SIDE**2 / sheet[..., 0].size)


def test_a_failed_render_scores_nothing(rows: pd.DataFrame, space: Space):
    rows.loc[0, ["score_alignment", "score_sharpness", "seconds"]] = None
    rows.loc[0, "error_type"] = "ComfyExecutionError"
    study = Study.of(rows, WEIGHTS, space, engines=1)
    assert study.failed == 1
    assert (study.scores["weighted score"] == 0).sum() == 1
    assert study.seconds_W[0] == 0.5


def test_a_gap_is_refused(rows: pd.DataFrame, space: Space):
    with pytest.raises(FlowtailorError, match="not every prompt"):
        Study.of(rows.drop(index=5), WEIGHTS, space, engines=2)


def test_a_study_without_intervals_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("sys.argv", ["studio_study.py", "--seeds", "1"])
    with pytest.raises(SystemExit):
        studio_study.parsed()
    assert "--seeds must be at least 2" in capsys.readouterr().err
