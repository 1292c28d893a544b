"""What each part of the recipe is worth: the policy trained again without it, designs really rendered.

    python benchmarks/ablation_study.py runs/studio
    python benchmarks/ablation_study.py runs/studio kappa_0 --prompts 20

Needs an evaluated run. A variant trains in RUN/ablations/NAME on the run's rows with its reward ensemble,
designs for the run's test prompts with the same seeds and the same strength of guidance, and is compared
with the run's own policies. What is trained or rendered is not done again; RUN/ablations/ablations.json
holds the numbers, and the table goes to standard output.
"""

from __future__ import annotations

import json
import shutil
from functools import partial
from typing import Any

import pandas as pd
import script

from flowtailor.datasets.rows import weighted_score
from flowtailor.datasets.store import Store
from flowtailor.errors import FlowtailorError, told_in_one_line
from flowtailor.markdown import markdown_table
from flowtailor.pipelines import evaluate, grpo, sft
from flowtailor.pipelines.catalog import WORLD, read_world
from flowtailor.pipelines.engines import render
from flowtailor.pipelines.methods import choose
from flowtailor.pipelines.provenance import fingerprint
from flowtailor.pipelines.renders import rendered_rows
from flowtailor.pipelines.stage import Run, write_json
from flowtailor.pipelines.statistics import Interval, bootstrap_mean, win_rate
from flowtailor.pipelines.trained import open_run

VARIANTS = {
    "no_mask_in_the_loss": {"grpo": {"mask_loss": False}},
    "kappa_0": {"reward": {"kappa": 0.0}},
    "no_budgets": {"sft": {"budgeted": 0.0}, "grpo": {"budgeted": 0.0}},
    "sft_on_the_best_rows": {"sft": {"teacher": "rows"}},
}
POLICIES = ("sft", "grpo", "guided")
FOLDERS = ("dataset", "reward", "policy/sft", "policy/score_conditioned", "stages")


def main() -> None:
    parser = script.parser(__doc__)
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("variants", metavar="VARIANT", nargs="*", help=f"of {', '.join(VARIANTS)}")
    parser.add_argument("--prompts", type=int, help="fewer than the run's evaluation had")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.variants) - set(VARIANTS)):
        raise FlowtailorError(f"no variant {unknown[0]!r}; there are {', '.join(VARIANTS)}")
    run = open_run(arguments.run)
    rows = own_rows(run)
    for name in arguments.variants or VARIANTS:
        one = variant(run, name)
        sft.train_part(one.config, one, "policy/sft")
        grpo.run_stage(one.config)
        rows.append(designed(run, one, name, arguments.prompts))
    compared = compare(pd.concat(rows))
    write_json(run.path("ablations/ablations.json"), compared)
    print(markdown(compared))


def variant(run: Run, name: str) -> Run:
    """A run folder of its own, with a copy of what the variant shares with the run."""
    own = Run(run.config.changed(run={"root": str(run.path("ablations")), "name": name}))
    copied = {part: fingerprint(run.path(part)) for part in FOLDERS if part != "stages"}
    note = own.path("copied.json")
    if not note.is_file() or json.loads(note.read_text()) != copied:  # none, half of it, or of another run
        shutil.rmtree(own.dir, ignore_errors=True)
        for part in FOLDERS:
            shutil.copytree(run.path(part), own.path(part))
        write_json(note, copied)
    for part in WORLD:
        shutil.copyfile(run.path(part), own.path(part))
    return Run(own.config.changed(**VARIANTS[name]))


def own_rows(run: Run) -> list[pd.DataFrame]:
    """The run's evaluation of its own policies."""
    rows = pd.read_parquet(run.path("evaluation/rows.parquet"))
    return [rows.loc[rows["method"].isin(POLICIES)].assign(variant="all of it")]


def designed(run: Run, one: Run, name: str, prompts: int | None) -> pd.DataFrame:
    """Scored rows of the variant's designs for the run's test prompts."""
    _, space = read_world(one)
    materials = evaluate.gather(one, space)
    asked = evaluate.held_out(run.config)[:prompts]
    choices = {method: choose(method, asked, materials) for method in POLICIES}
    planned = evaluate.plan(one.config, asked, choices, space, run.engine())
    known = [run.dataset, Store(run.path("evaluation"))]
    drawn = partial(render, label=name)
    rows = rendered_rows(
        one.config, planned, Store(one.path("evaluation")), known=known, render=drawn, label=name
    )
    return rows.assign(score=weighted_score(rows, run.config.scorers.weights), variant=name)


def compare(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """For each variant and policy: the mean score, and how often the run's own policy beats it."""
    told = []
    for (name, policy), mine in rows.groupby(["variant", "method"], sort=False):
        own = rows.loc[(rows["variant"] == "all of it") & (rows["method"] == policy)]
        pair = pd.concat([own.assign(method="own"), mine.assign(method="variant")])
        told.append(
            {
                "variant": name,
                "policy": policy,
                "score": list(bootstrap_mean(mine.groupby("prompt")["score"].mean().to_numpy())),
                "seconds": float(mine["seconds"].mean()),
                "unique_workflows": int(mine["workflow_key"].nunique()),
                "own_wins": None if name == "all of it" else list(win_rate(pair, "own", "variant")),
            }
        )
    return told


def markdown(compared: list[dict[str, Any]]) -> str:
    """The table for a document."""
    head = ["variant", "policy", "score (95%)", "seconds", "workflows", "the whole recipe wins (95%)"]
    lines = []
    for one in compared:
        scored = Interval(*one["score"]).told("{:.3f}")
        used = [f"{one['seconds']:.2f}", str(one["unique_workflows"])]
        wins = Interval(*one["own_wins"]).told("{:.0%}") if one["own_wins"] else "-"
        lines.append([one["variant"].replace("_", " "), one["policy"], scored, *used, wins])
    return markdown_table(head, lines, "llr")


if __name__ == "__main__":
    with told_in_one_line("ablations"):
        main()
