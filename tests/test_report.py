"""The report of a small hand-made run: complete, self-contained, true to its numbers."""

from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import results_doc
from PIL import Image

from flowtailor.datasets.store import Store
from flowtailor.errors import FlowtailorError
from flowtailor.pipelines import plots, report
from flowtailor.pipelines.config import Config
from flowtailor.pipelines.methods import METHODS
from flowtailor.pipelines.statistics import Interval

PLAIN = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "general.ckpt"}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "{prompt}", "clip": ["1", 1]}},
    "3": {"class_type": "EmptyLatentImage", "inputs": {"width": 128, "height": 128, "batch_size": 1}},
    "4": {
        "class_type": "KSampler",
        "inputs": {"model": ["1", 0], "sampler_name": "euler", "scheduler": "normal", "steps": 8, "cfg": 2.0},
    },
    "5": {"class_type": "SaveImage", "inputs": {"images": ["4", 0]}},
}
PROMPTS = ("a red apple", "a <b>sly</b> fox & a crow")  # a prompt is text, never markup


def evaluation_rows() -> list[dict[str, Any]]:
    """Two prompts, all methods; the workflow of random_valid fails on the second prompt."""
    rows = []
    for number, prompt in enumerate(PROMPTS):
        for index, method in enumerate(METHODS):
            failed = method == "random_valid" and number == 1
            score = 0.0 if failed else 0.5 + 0.04 * index + 0.1 * number
            rows.append(
                {
                    "row_id": f"{number}{index}" * 8,
                    "prompt": prompt,
                    "method": method,
                    "seed": 0,
                    "workflow_key": f"w{index}",
                    "workflow": json.dumps(PLAIN),
                    "engine": "comfyui-0.3.75",
                    "seconds": None if failed else 0.4,
                    "width": None if failed else 128,
                    "height": None if failed else 128,
                    "image": None if failed else f"images/{number}{index}.png",
                    "error_type": "ComfyExecutionError" if failed else None,
                    "score": score,
                    "predicted_score": score + 0.02,
                    "predicted_std": 0.05,
                }
            )
    return rows


def summary() -> dict[str, Any]:
    methods = {
        name: {
            "score": 0.55 + 0.04 * index,
            "score_ci95": [0.5 + 0.04 * index, 0.6 + 0.04 * index],
            "win_rate_vs": {other: [0.5, 0.25, 0.75] for other in METHODS if other != name},
            "lead_over": {other: [0.04, -0.01, 0.09] for other in METHODS if other != name},
            "held_out_scorer": {"score": 0.4, "score_ci95": [0.3, 0.5], "win_rate_vs": {}, "lead_over": {}},
            "valid": 1.0,
            "executed": 0.5 if name == "random_valid" else 1.0,
            "unique_workflows": 2,
            "nearest_training_similarity": 0.8,
            "nearest_training_structure": 0.9,
            "nearest_training_parameters": 0.7,
            "design_seconds_p50": 0.5,
            "render_seconds_mean": 0.4,
        }
        for index, name in enumerate(METHODS)
    }
    reward = {"held_out_prompt": {"spearman_within_prompt": 0.61, "coverage_1": None, "baselines": {}}}
    return {"methods": methods, "reward": reward, "prompts": 2, "seeds": 1}


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run folder that holds what the report reads."""
    run = tmp_path / "runs" / "tiny"
    for folder in ("evaluation/images", "policy/grpo", "stages"):
        (run / folder).mkdir(parents=True)
    rows = evaluation_rows()
    for row in rows:
        if row["image"]:
            Image.new("RGB", (512, 256), "tomato").save(run / "evaluation" / row["image"])
    pd.DataFrame(rows).to_parquet(run / "evaluation/rows.parquet")
    points = [
        {
            "guidance": w,
            "predicted_score": [0.6, 0.5, 0.7],
            "predicted_reward": 0.55,
            "predicted_std": 0.05,
            "rendered_score": None,
            "unique_workflows": 4,
            "unique_share": 0.5,
            "nearest_training_similarity": 0.9,
            "logprob": -8.0,
        }
        for w in (0.0, 1.0)
    ]
    guidance = {"chosen": 1.0, "designs_per_prompt": 4, "prompts": 2, "rendered": False, "points": points}
    resolved = {
        "config": Config().model_dump(mode="json"),
        "versions": {"ray": "2.60.0"},
        "git_revision": None,
    }
    stage = {"stage": "collect", "seconds": 12.3, "finished_at": "2026-01-01T00:00:00+00:00"}
    for name, content in {
        "evaluation/summary.json": summary(),
        "evaluation/guidance.json": guidance,
        "config.resolved.json": resolved,
        "stages/collect.json": stage,
    }.items():
        (run / name).write_text(json.dumps(content))
    log = [{"step": step, "reward": 0.4 + step / 100, "entropy": 1.0} for step in range(5)]
    (run / "policy/grpo/log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    Store(run / "dataset").append(pd.DataFrame(rows))
    return run


class Page(HTMLParser):
    """Collects what a page shows and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self.sources: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "data")]
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_page_shows_every_method_prompt_and_failure(run_dir: Path, tmp_path: Path):
    (tmp_path / "out").mkdir()
    page = Page(report.write_report(run_dir, tmp_path / "out").read_text())
    text = " ".join(" ".join(page.text).split())
    for expected in (
        *METHODS,
        *PROMPTS,
        "ComfyExecutionError",
        f"{2 * len(METHODS)} rows",
        "euler/normal, 8 steps, cfg 2",
    ):
        assert expected in text
    assert "0.790 0.740–0.840" in text  # guided, with its interval
    assert "1 × ComfyExecutionError" in text


def test_page_needs_nothing_but_its_folder(run_dir: Path, tmp_path: Path):
    folder = tmp_path / "out"
    folder.mkdir()
    text = report.write_report(run_dir, folder).read_text()
    page = Page(text)
    loaded = [source for source in page.sources if not source.startswith("#")]
    assert len(loaded) == 2 * len(METHODS) - 1  # one of the cells failed
    assert all((folder / source).is_file() for source in loaded)
    assert not re.search(r"url\((?!#)|@import|<script", text)
    with Image.open(folder / loaded[0]) as image:
        assert max(image.size) == report.LONGEST_SIDE
    assert len(page.ids) == len(set(page.ids))


def test_a_picture_that_was_removed_is_told_and_the_rest_shown(run_dir: Path, tmp_path: Path):
    (tmp_path / "out").mkdir()
    next((run_dir / "evaluation/images").rglob("*.png")).unlink()
    text = report.write_report(run_dir, tmp_path / "out").read_text()
    assert text.count("the picture is gone") == 1


def test_stage_is_skipped_until_something_changes(run_dir: Path, monkeypatch, capsys):
    monkeypatch.chdir(run_dir.parent.parent)
    config = Config.model_validate({"run": {"name": run_dir.name}})
    report.run_stage(config)
    assert (run_dir / "report/index.html").is_file()
    report.run_stage(config)
    assert "up to date" in capsys.readouterr().out
    changed = summary() | {"seeds": 2}
    (run_dir / "evaluation/summary.json").write_text(json.dumps(changed))
    report.run_stage(config)
    assert "up to date" not in capsys.readouterr().out


def test_without_an_evaluation_the_error_names_the_command(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FlowtailorError, match="flowtailor evaluate"):
        report.run_stage(Config())


def test_a_run_without_grpo_has_no_curves(run_dir: Path, tmp_path: Path):
    (run_dir / "policy/grpo/log.jsonl").unlink()
    (tmp_path / "out").mkdir()
    assert "GRPO)" not in report.write_report(run_dir, tmp_path / "out").read_text()


def test_a_run_with_budgets_shows_what_a_second_buys(run_dir: Path, tmp_path: Path):
    point = {
        "budget_s": 0.5,
        "prompts": 2,
        "pictures": 2,
        "kept": [1.0, 0.34, 1.0],
        "score": [0.6, 0.5, 0.7],
        "seconds": [0.41, 0.4, 0.42],
        "foreseen_seconds": 0.43,
        "unique_workflows": 2,
    }
    fixed = [{"summary": "plain", "score": 0.5, "seconds": 0.4, "renders": 9}]
    content = {"guidance": 1.5, "points": [point], "unlimited": point, "fixed": fixed}
    (run_dir / "evaluation/budgets.json").write_text(json.dumps(content))
    (tmp_path / "out").mkdir()
    page = report.write_report(run_dir, tmp_path / "out").read_text()
    text = " ".join(" ".join(Page(page).text).split())
    assert "What a second buys" in text
    assert "0.5 s 100% 34%–100% 0.600 0.500–0.700 0.41 0.43 2" in text
    assert "no budget" in text


def test_plots_take_their_colours_from_the_page():
    score = Interval(0.5, 0.4, 0.6)
    drawn = [
        plots.intervals({"sft": score, "guided": score}, {"guided"}, "score"),
        plots.curves({"reward": [(1, 0.1), (2, 0.2)], "kl": []}),
        plots.calibration([0.1, 0.9], [0.2, 0.8], [0.1, 0.1], [True, False]),
        plots.sweep([0, 1], [score, score], [score, None], [1.0, 0.5]),
        plots.quality_time([(0.5, 0.4)], [("1 s", 0.9, score), ("0.5 s", 0.4, score)]),
    ]
    for svg in drawn:
        assert svg.startswith("<svg")
        assert "currentColor" in svg
        assert "var(--accent)" in svg
        assert not re.search(r"#[0-9a-f]{6};", svg)
    assert "kl" not in drawn[1]


def test_audits_and_rounds_of_refinement_are_shown_where_there_are_any(run_dir: Path, tmp_path: Path):
    numbers = {name: [0.6, 0.5, 0.7] for name in ("score", "pair_accuracy", "coverage_68", "bias")}
    side = {**numbers, "spearman_within_prompt": None}
    summary = {"round": 1, "picked": {"unsure": 3, "frequent": 2}, "judged": 12, "grpo_steps": 20}
    summary |= dict.fromkeys(("before", "refit", "after", "change"), side)
    for name in ("policy/grpo/refined.json", "refine/round-1/summary.json"):
        (run_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (run_dir / name).write_text(json.dumps(summary))
    found = {"audit_predicted": 0.7, "audit_rendered": [0.6, 0.5, 0.7], "audit_gap": 0.1}
    log = [{"step": step, "reward": 0.5, "audit_step": step, **found} for step in (1, 20)]
    (run_dir / "policy/grpo/log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    (tmp_path / "out").mkdir()
    page = report.write_report(run_dir, tmp_path / "out").read_text()
    text = " ".join(" ".join(Page(page).text).split())
    for expected in (
        "nothing was rendered but the audits",
        "alarm",
        "5 pictures to learn from, 12 to judge by",
    ):
        assert expected in text


def test_the_results_page_is_written_from_the_same_files(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results_doc, "DOCS", tmp_path / "docs")
    monkeypatch.setattr(sys, "argv", ["results_doc.py", str(run_dir)])
    results_doc.main()
    page = (tmp_path / "docs/RESULTS.md").read_text()
    assert all(f"| `{name}` |" in page for name in METHODS)
    for image in re.findall(r"\]\((images/[^)]+)\)", page):
        assert (tmp_path / "docs" / image).is_file()
