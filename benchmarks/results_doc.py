"""Writes docs/RESULTS.md, and its plots and pictures in docs/images/results, from a finished run.

    python benchmarks/results_doc.py runs/studio

Every number comes from the files of the run; nothing is computed that its report does not show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import script
from PIL import Image, ImageDraw

from flowtailor.errors import told_in_one_line
from flowtailor.markdown import filled, markdown_table
from flowtailor.pipelines.comparison import NEAREST
from flowtailor.pipelines.methods import METHODS
from flowtailor.pipelines.report import view
from flowtailor.pipelines.statistics import Interval
from flowtailor.pipelines.trained import need

DOCS = Path(__file__).parents[1] / "docs"
SHOWN = ("most_used", "best_fixed", "retrieval", "sft", "guided")  # columns of the sheet of pictures
ROWS, CELL, MARGIN = 10, 144, 18  # prompts on the sheet; px
SPLITS = ("training", "held_out_prompt", "held_out_workflow", "both")
BUDGETS = (
    "## Budgets",
    "Of several guided designs for each prompt, the one that the ensemble likes best among those that it "
    "foresees to keep the budget; `none` is `guided_best_of_n`.",
)


def main() -> None:
    parser = script.parser(__doc__)
    parser.add_argument("run", metavar="RUN", type=Path)
    run = parser.parse_args().run
    need(run, "evaluation/summary.json")
    images = DOCS / "images" / "results"
    images.mkdir(parents=True, exist_ok=True)
    rows = pq.read_table(run / "evaluation/rows.parquet").to_pylist()
    seen = view(run, rows, {})
    plots = {"scores": "score_plot", "grpo": "curves", "audits": "audit_plot"}
    plots |= {"guidance": "sweep_plot", "budgets": "budget_plot"}
    drawn = {name: seen[key] for name, key in plots.items() if seen[key]}
    for name, svg in drawn.items():
        (images / f"{name}.svg").write_text(svg)
    sheet(rows, run / "evaluation").save(images / "pictures.webp", quality=90)
    (DOCS / "RESULTS.md").write_text(document(seen, list(drawn)))
    print(f"written: {DOCS / 'RESULTS.md'}, {len(drawn) + 1} pictures in {images}")


def document(seen: Mapping[str, Any], plots: Sequence[str]) -> str:
    """The page; `plots` are those that the run has."""
    summary = seen["summary"]
    parts = [
        "# Results",
        f"`flowtailor run --config {seen['run']}`: {summary['prompts']} prompts that training never saw, "
        f"{summary['seeds']} pictures each, every design rendered on {seen['engine']}. Intervals are 95% "
        "bootstrap intervals over prompts; a design that fails to render scores 0. Written by "
        "`benchmarks/results_doc.py`.",
        "## Ways to choose a workflow",
        _image("scores", plots),
        methods_table(summary["methods"]),
        "`leads by` is the score of `guided` less the method's, on the same prompts and seeds. "
        "`by the judge` is the mean of `held_out_alignment`, by which nothing was rewarded "
        "([SCORERS.md](SCORERS.md)). `alike` is how much a design "
        "has in common with the nearest of the training rows' workflows, 1 being the same; `graph` and "
        "`values` say it for node classes and links alone, and for the values set on them.",
        "![pictures](images/results/pictures.webp)",
        "One seed each.",
        "## The reward ensemble",
        reward_table(summary["reward"]),
        *older_told(summary["reward"]),
        "Rank correlations are within prompts; the ceiling is what a perfect predictor could reach. Regret "
        "is the score that is lost by taking the row that is foreseen best instead of the best one.",
        "## Learning",
        _image("grpo", plots),
        _image("audits", plots),
        "## Guidance",
        _image("guidance", plots),
        guidance_table(seen["guidance"]),
        guidance_told(seen["guidance"]),
        *(BUDGETS if seen["budgets"].get("points") else ()),
        _image("budgets", plots),
        budgets_table(seen["budgets"]),
        "## Refinement" if seen["refined"] else "",
        *[refined_table(one) for one in seen["refined"]],
    ]
    return "\n\n".join(filled(part) for part in parts if part) + "\n"


def methods_table(methods: Mapping[str, Any]) -> str:
    head = [
        "method",
        "score",
        "guided wins",
        "leads by",
        "by the judge",
        "leads by (judge)",
        "valid",
        "ran",
        "workflows",
    ]
    head += ["alike", "graph", "values", "design s", "render s"]
    guided = methods["guided"]
    lines = []
    for name in METHODS:
        one = methods[name]
        judge = one["held_out_scorer"]
        lines.append(
            [
                f"`{name}`",
                _interval([one["score"], *one["score_ci95"]]),
                "-" if name == "guided" else _share(guided["win_rate_vs"][name]),
                _interval(guided["lead_over"].get(name)),
                _interval([judge["score"], *judge["score_ci95"]]),
                _interval(guided["held_out_scorer"]["lead_over"].get(name)),
                f"{one['valid']:.0%}",
                f"{one['executed']:.0%}",
                str(one["unique_workflows"]),
                *(f"{one[name]:.2f}" for name in NEAREST),
                f"{one['design_seconds_p50']:.2f}",
                "-" if one["render_seconds_mean"] is None else f"{one['render_seconds_mean']:.2f}",
            ]
        )
    return markdown_table(head, lines, "lr")


def reward_table(reward: Mapping[str, Any]) -> str:
    columns = {
        "ensemble": "spearman_within_prompt",
        "ceiling": "noise_ceiling",
        "boosted trees": "boosted_trees_spearman_within_prompt",
        "ridge": "ridge_spearman_within_prompt",
        "workflow mean": "workflow_mean_spearman_within_prompt",
        "pairs in order": "pair_accuracy",
        "regret": "regret",
        "regret of workflow mean": "workflow_mean_regret",
        "68% bars cover": "coverage_68",
        "seconds off by (median)": "seconds_median_relative_error",
    }
    lines = [
        [
            split.replace("_", " "),
            str(reward[split]["rows"]),
            *(_number(reward[split].get(key)) for key in columns.values()),
        ]
        for split in SPLITS
        if reward.get(split, {}).get("rows")
    ]
    return markdown_table(["split", "rows", *columns], lines, "lr")


def older_told(reward: Mapping[str, Any]) -> list[str]:
    """The same of all rows, by the scorers that none of them is older than; nothing where all have all."""
    older = {split: numbers["all_rows"] for split, numbers in reward.items() if "all_rows" in numbers}
    if not older:
        return []
    weights = next(iter(older.values()))["weights"]
    by = " and ".join(f"`{name}` ({weight:g})" for name, weight in weights.items())
    return [f"Rows that are older than a scorer lack its score. All of them, by {by}:", reward_table(older)]


def guidance_table(guidance: Mapping[str, Any]) -> str:
    """How designs for validation prompts score, and how various they are, over the strength of guidance."""
    designs = f"different of {guidance['prompts'] * guidance['designs_per_prompt']}"
    lines = [
        [
            f"{point['guidance']:g}",
            _interval(point["rendered_score"]),
            _interval(point["predicted_score"]),
            str(point["unique_workflows"]),
            f"{point['nearest_training_similarity']:.2f}",
        ]
        for point in guidance["points"]
    ]
    return markdown_table(["w", "rendered", "foreseen", designs, "alike"], lines, "lr") if lines else ""


def guidance_told(guidance: Mapping[str, Any]) -> str:
    rendered = ", of which the first for each was rendered" if guidance["rendered"] else ""
    return (
        f"Designs for {guidance['prompts']} validation prompts{rendered}; foreseen is the score of all. "
        f"Chosen by them: w = {guidance['chosen']:g}."
    )


def budgets_table(budgets: Mapping[str, Any]) -> str:
    points = [(f"{point['budget_s']:g} s", point) for point in budgets.get("points", [])]
    if not points:
        return ""
    points.append(("none", budgets["unlimited"]))
    lines = [
        [
            name,
            "-" if name == "none" else _share(point["kept"]),
            _interval(point["score"]),
            "-" if point["seconds"] is None else f"{point['seconds'][0]:.2f}",
            str(point["unique_workflows"]),
        ]
        for name, point in points
    ]
    return markdown_table(["budget", "kept", "score", "render s", "workflows"], lines, "lr")


def refined_table(one: Mapping[str, Any]) -> str:
    """Before and after a round, on designs for validation prompts."""
    measures = {
        "rendered score": "score",
        "rank correlation": "spearman_within_prompt",
        "predicted less rendered": "bias",
        "68% bars cover": "coverage_68",
    }
    lines = [
        [side, *(_interval(one[side].get(key)) for key in measures.values())]
        for side in ("before", "refit", "after")
    ]
    return markdown_table([f"round {one['round']}", *measures], lines, "lr")


def sheet(rows: Sequence[Mapping[str, Any]], folder: Path) -> Image.Image:
    """Pictures of some prompts, evenly chosen from all in their order, a column for each method."""
    first: dict[tuple[str, str], Mapping[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        first.setdefault((row["prompt"], row["method"]), row)
    prompts = sorted({row["prompt"] for row in rows})
    prompts = prompts[:: max(1, len(prompts) // ROWS)][:ROWS]
    canvas = Image.new("RGB", (CELL * len(SHOWN), MARGIN + (CELL + MARGIN) * len(prompts)), "white")
    write = ImageDraw.Draw(canvas)
    for column, method in enumerate(SHOWN):
        write.text((column * CELL + 4, 3), method, fill="grey")
    for line, prompt in enumerate(prompts):
        top = MARGIN + line * (CELL + MARGIN)
        write.text((4, top + 3), prompt, fill="black")
        for column, method in enumerate(SHOWN):
            row = first[prompt, method]
            if row["error_type"] is None:
                with Image.open(folder / row["image"]) as picture:
                    picture = picture.convert("RGB").resize((CELL - 4, CELL - 4), Image.Resampling.LANCZOS)
                canvas.paste(picture, (column * CELL + 2, top + MARGIN))
    return canvas


def _image(name: str, plots: Sequence[str]) -> str:
    return f"![{name}](images/results/{name}.svg)" if name in plots else ""


def _share(interval: Sequence[float]) -> str:
    return Interval(*interval).told("{:.0%}")


def _interval(value: Sequence[float] | None) -> str:
    return "-" if value is None else Interval(*value).told("{:.3f}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    with told_in_one_line("results"):
        main()
