"""`flowtailor report`: what a run found, as one page that needs no network.

Reads the evaluation, the GRPO log, the reward metrics and the stages' records of a run folder and
writes `report/index.html` with its pictures beside it as small files. Promises to state numbers as
they were measured, good or poor; it measures nothing itself. A part whose source is missing (no
GRPO yet) is left out of the page.
"""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from ..datasets.store import Store
from ..models import metrics
from ..workflows.graph import Workflow
from ..workflows.summary import summary as summarise
from . import plots
from .config import Config
from .methods import LEARNED, METHODS
from .rounds import lineage
from .stage import Run, is_done, read_json_lines, stage_output
from .statistics import Interval
from .trained import need

Row = dict[str, Any]

LONGEST_SIDE = 256  # pixels of a picture in the report
HEADLINE = "guided"
RIVALS = ("most_used", "best_fixed")
GRPO_CURVES = {
    "reward": "reward",
    "entropy": "entropy (nats per token)",
    "kl": "KL to SFT",
    "doubt": "the ensemble's doubt",
    "completions/mean_length": "tokens per design",
    "unique_workflows": "distinct designs of a step (share)",
}


def run_stage(config: Config, *, dry_run: bool = False) -> None:
    """Write `report/` of the config's run; FlowtailorError where there is no evaluation yet."""
    run = Run(config)
    if dry_run:
        print(f"report: would write {run.path('report/index.html')} from {run.path('evaluation')}")
        return
    need(run.dir, "evaluation/summary.json")
    sources = ["evaluation", "reward/metrics.json", "policy/grpo/log.jsonl", "dataset/rows"]
    inputs = {source: run.path(source) for source in [*sources, *round_files(run.dir)]} | {
        "template": Path(__file__).with_suffix(".html")
    }
    if is_done(run, "report", inputs):
        return
    with stage_output(run, "report", inputs, by_config=False) as folder:
        write_report(run.dir, folder)
    print(f"report: {run.path('report/index.html')}")


def write_report(run_dir: Path, folder: Path) -> Path:
    """Render the page of `run_dir` into the existing `folder`; returns the page's path."""
    rows: list[Row] = pq.read_table(run_dir / "evaluation/rows.parquet").to_pylist()
    page = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("report.html")
    target = folder / "index.html"
    target.write_text(page.render(view(run_dir, rows, copy_pictures(rows, run_dir / "evaluation", folder))))
    return target


def view(run_dir: Path, rows: list[Row], pictures: dict[str, str]) -> dict[str, Any]:
    """Everything the template shows, from the files of a run; `pictures`: row id -> file in the report."""
    summary = _json(run_dir / "evaluation/summary.json")
    scores = {
        name: Interval(method["score"], *method["score_ci95"]) for name, method in summary["methods"].items()
    }
    guidance = _json(run_dir / "evaluation/guidance.json")
    budgets = _json(run_dir / "evaluation/budgets.json")
    log = read_json_lines(run_dir / "policy/grpo/log.jsonl")
    return {
        "run": run_dir.name,
        "summary": summary,
        "methods": summary["methods"],
        "engine": ", ".join(sorted({row["engine"] for row in rows})),
        "about": METHODS,
        "learned": LEARNED,
        "headline": HEADLINE,
        "rivals": RIVALS,
        "score_plot": plots.intervals(scores, set(LEARNED), "mean score of held-out prompts, 95% interval"),
        "grid": picture_grid(rows, pictures, list(summary["methods"])),
        "curves": plots.curves(grpo_curves(log)) if log else None,
        "grpo_steps": len(log),
        "audit_plot": _audit_plot(log, run_dir),
        "refined": [_json(run_dir / file) for file in round_files(run_dir)],
        "calibration": calibration(rows),
        "guidance": guidance,
        "sweep_plot": _sweep_plot(guidance) if guidance["points"] else None,
        "budgets": budgets,
        "budget_plot": _budget_plot(budgets) if budgets.get("points") else None,
        "facts": run_facts(run_dir),
        "reward_metrics": _numeric_names(summary["reward"]),
    }


def copy_pictures(rows: list[Row], source: Path, folder: Path) -> dict[str, str]:
    """Copy each picture once as a small WebP without the workflow that ComfyUI writes into it.

    Those that were removed since are left out: their scores stay true.
    """
    (folder / "images").mkdir()
    pictures: dict[str, str] = {}
    for row in rendered(rows):
        name = f"images/{row['row_id']}.webp"
        if not (source / row["image"]).is_file():
            continue
        with Image.open(source / row["image"]) as image:
            small = image.convert("RGB")
            small.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
            small.save(folder / name, quality=90)
        pictures[row["row_id"]] = name
    return pictures


def rendered(rows: list[Row]) -> list[Row]:
    """The rows with a picture, each picture once, whichever methods chose it."""
    return list({row["row_id"]: row for row in rows if row["error_type"] is None}.values())


def picture_grid(rows: list[Row], pictures: dict[str, str], methods: list[str]) -> list[dict[str, Any]]:
    """One line per prompt (its first seed): a cell per method with picture, score, seconds, summary."""
    lines: list[dict[str, Any]] = []
    for prompt, group in groupby(sorted(rows, key=lambda row: row["prompt"]), key=lambda row: row["prompt"]):
        shown = list(group)
        first_seed = min(row["seed"] for row in shown)
        cells = {row["method"]: _cell(row, pictures) for row in shown if row["seed"] == first_seed}
        best = max(cell["score"] for cell in cells.values())
        for cell in cells.values():
            cell["best"] = cell["score"] >= best - 1e-9
        lines.append({"prompt": prompt, "cells": [cells.get(method) for method in methods]})
    return lines


def _cell(row: Row, pictures: dict[str, str]) -> dict[str, Any]:
    return {
        "picture": pictures.get(row["row_id"]),
        "score": row["score"],
        "predicted": row["predicted_score"],
        "std": row["predicted_std"],
        "seconds": row["seconds"],
        "error": row["error_type"],
        "summary": summarise(Workflow.loads(row["workflow"])),
    }


def grpo_curves(log: list[dict[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """Title -> (step, value) of the logged metrics; a metric that was not logged gives no points."""
    return {
        title: [(entry["step"], entry[key]) for entry in log if key in entry]
        for key, title in GRPO_CURVES.items()
    }


def round_files(run_dir: Path) -> list[str]:
    """What the rounds of refinement behind a run's adapter brought: files of the run, the first one first."""
    return [f"refine/round-{number}/summary.json" for number in range(1, lineage(run_dir) + 1)]


def _audit_plot(log: list[dict[str, Any]], run_dir: Path) -> str | None:
    """Predicted and rendered score of GRPO's audits, if there were any."""
    found = [entry for entry in log if "audit_gap" in entry]
    if not found:
        return None
    return plots.audits(
        [entry["audit_step"] for entry in found],
        [entry["audit_predicted"] for entry in found],
        [Interval(*entry["audit_rendered"]) for entry in found],
        _json(run_dir / "config.resolved.json")["config"]["grpo"]["audit_max_gap"],
    )


def calibration(rows: list[Row]) -> dict[str, Any] | None:
    """How well the ensemble foresaw the rendered scores of the evaluation, and the plot of it; None where
    nothing could be rendered."""
    drawn = rendered(rows)
    if not drawn:
        return None
    names = ("score", "predicted_score", "predicted_std")
    measured, mean, std = (np.array([row[name] for row in drawn]) for name in names)
    learned = [row["method"] in LEARNED for row in drawn]
    return {
        "pictures": len(drawn),
        "coverage_1": metrics.coverage(measured, mean, std),
        "coverage_2": metrics.coverage(measured, mean, std, 2.0),
        "spearman": metrics.spearman(measured, mean),
        "bias": float((mean - measured).mean()),
        "plot": plots.calibration(measured.tolist(), mean.tolist(), std.tolist(), learned),
    }


def run_facts(run_dir: Path) -> dict[str, Any]:
    """Rows, failures, seconds per stage and versions of a run."""
    rows = Store(run_dir / "dataset").rows()
    stages = [_json(file) for file in sorted((run_dir / "stages").glob("*.json"))]
    resolved = _json(run_dir / "config.resolved.json")
    return {
        "rows": len(rows),
        "failures": {str(error): int(n) for error, n in rows["error_type"].value_counts().items()},
        "prompts": rows["prompt"].nunique(),
        "workflows": rows["workflow_key"].nunique(),
        "render_seconds": float(rows["seconds"].sum()),
        "stages": [(s["stage"], s["seconds"]) for s in sorted(stages, key=lambda s: s["finished_at"])],
        "versions": resolved["versions"],
        "revision": resolved.get("git_revision"),
        "weights": resolved["config"]["scorers"]["weights"],
    }


def _numeric_names(splits: dict[str, dict[str, Any]]) -> list[str]:
    """Names of the plain numbers that any split reports, in the order met."""
    names = {k: None for values in splits.values() for k, v in values.items() if isinstance(v, int | float)}
    return list(names)


def _sweep_plot(guidance: dict[str, Any]) -> str:
    points = guidance["points"]
    return plots.sweep(
        [point["guidance"] for point in points],
        [Interval(*point["predicted_score"]) for point in points],
        [Interval(*point["rendered_score"]) if point["rendered_score"] else None for point in points],
        [point["unique_share"] for point in points],
    )


def _budget_plot(budgets: dict[str, Any]) -> str:
    labelled = [(f"{point['budget_s']:g} s", point) for point in budgets["points"]]
    if budgets["unlimited"]:
        labelled.append(("no budget", budgets["unlimited"]))
    drawn = [
        (label, point["seconds"][0], Interval(*point["score"]))
        for label, point in labelled
        if point["seconds"]
    ]
    return plots.quality_time([(one["seconds"], one["score"]) for one in budgets["fixed"]], drawn)


def _json(path: Path) -> Any:
    return json.loads(path.read_text()) if path.is_file() else {}
