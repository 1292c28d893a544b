"""Are the parts of a design worth what is foreseen? Designs and their neighbours, really rendered.

    python benchmarks/why_study.py runs/studio --designs 20 --seeds 3

Takes the guided design of each of some held-out prompts, renders it and every neighbour without one
of its parts with the same seeds, and compares the differences with those that the ensemble foresees.
Rows and pictures go to RUN/why and are not rendered again; `why.json` there holds each part, and the
table goes to standard output. Needs a run with a policy; a failed render scores 0 and has no seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import script

from flowtailor.datasets.prompts import Prompt, choose_prompts, load_prompts
from flowtailor.datasets.rows import weighted_score
from flowtailor.datasets.store import Store
from flowtailor.errors import told_in_one_line
from flowtailor.markdown import markdown_table
from flowtailor.models.metrics import coverage, spearman, spearman_within
from flowtailor.pipelines.catalog import read_world
from flowtailor.pipelines.engines import render
from flowtailor.pipelines.judging import Wish, draw
from flowtailor.pipelines.plan import designed_rows
from flowtailor.pipelines.renders import rendered_rows
from flowtailor.pipelines.stage import Run, write_json
from flowtailor.pipelines.statistics import Interval
from flowtailor.pipelines.trained import load_designer, load_ensemble, open_run
from flowtailor.pipelines.why import Contribution, contributions
from flowtailor.workflows.space import Space

RESAMPLES = 2000  # of designs

Told = tuple[Prompt, tuple[str, ...], list[Contribution]]  # a prompt, its design, what the parts add


def main() -> None:
    parser = script.parser(__doc__)
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--designs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=1, help="pictures of each workflow")
    arguments = parser.parse_args()
    run = open_run(arguments.run)
    _, space = read_world(run)
    designs = designed(run, space, arguments.designs)
    rows = rendered(run, space, designs, arguments.seeds)
    parts = compared(designs, rows)
    told = {"score": agreement(parts), "seconds": agreement(of_seconds(parts))}
    write_json(
        run.path("why/why.json"), {"seeds": arguments.seeds, **told, "parts": parts.to_dict("records")}
    )
    print(markdown(told, arguments.seeds))


def designed(run: Run, space: Space, count: int) -> list[Told]:
    """The first guided design of each of `count` test prompts, with what its parts are foreseen to add."""
    config = run.config
    prompts = choose_prompts(load_prompts(config.prompts.file), {"test": count})
    wishes = [Wish.of(prompt.text, config.design, seed=config.run.seed) for prompt in prompts]
    ensemble = load_ensemble(run)
    drawn = draw(wishes, load_designer(run, space), ensemble, config)
    tokens = [best.tokens for best, *_ in drawn]
    pairs = [(prompt.text, words) for prompt, words in zip(prompts, tokens, strict=True)]
    parts = contributions(pairs, ensemble, space, config.scorers.weights)
    return list(zip(prompts, tokens, parts, strict=True))


def rendered(run: Run, space: Space, designs: Sequence[Told], seeds: int) -> pd.DataFrame:
    """Rows of all designs and neighbours with a score, none taken from elsewhere and in random order: an
    engine that has just started or drawn something else takes longer, by more than a part does."""
    config = run.config
    pairs = [
        (prompt, words)
        for prompt, tokens, parts in designs
        for words in [tokens, *(part.without for part in parts)]
    ]
    engine = run.engine()
    planned = designed_rows(pairs, space, engine=engine, seeds=seeds, seed=config.run.seed)
    rows = rendered_rows(
        config,
        planned.sample(frac=1, random_state=config.run.seed, ignore_index=True),
        Store(run.path("why")),
        known=[],
        render=partial(render, label="why"),
        label=f"why: {len(designs)} designs",
    )
    return rows.assign(score=weighted_score(rows, config.scorers.weights))


def compared(designs: Sequence[Told], rows: pd.DataFrame) -> pd.DataFrame:
    """A row per part: foreseen and rendered differences of score and seconds: of means, and of medians."""
    found = dict(iter(rows.groupby(["prompt", "tokens"])))
    records: list[dict[str, Any]] = []
    for prompt, tokens, parts in designs:
        whole = found[prompt.text, " ".join(tokens)]
        for part in parts:
            neighbour = found[prompt.text, " ".join(part.without)]
            records.append(
                {
                    "design": prompt.text,
                    "component": part.component,
                    "change": part.change,
                    "foreseen": part.score,
                    "foreseen_std": part.score_std,
                    "rendered": float(whole["score"].mean() - neighbour["score"].mean()),
                    "foreseen_seconds": part.seconds,
                    "foreseen_std_seconds": part.seconds_std,
                    "rendered_seconds": float(whole["seconds"].median() - neighbour["seconds"].median()),
                }
            )
    return pd.DataFrame.from_records(records)


def of_seconds(parts: pd.DataFrame) -> pd.DataFrame:
    """The parts with the differences of seconds in the place of those of the score."""
    names = {f"{name}_seconds": name for name in ("foreseen", "foreseen_std", "rendered")}
    return parts[["design", *names]].rename(columns=names).dropna()


def agreement(table: pd.DataFrame, *, seed: int = 0) -> dict[str, Any]:
    """How foreseen differences compare to rendered ones.

    table: a row per part with design (any id), foreseen, foreseen_std, rendered. The interval of the
    rank correlation resamples designs, since the parts of one share its picture. `same_sign` counts
    the parts that the ensemble is sure of (beyond one deviation).
    """
    designs = [group.index.to_numpy() for _, group in table.reset_index(drop=True).groupby("design")]
    foreseen_m, rendered_m, std_m = (
        table[name].to_numpy(dtype=float) for name in ("foreseen", "rendered", "foreseen_std")
    )
    rng = np.random.default_rng(seed)
    resamples = (
        np.concatenate([designs[i] for i in rng.integers(0, len(designs), len(designs))])
        for _ in range(RESAMPLES)
    )
    again = [spearman(foreseen_m[rows], rendered_m[rows]) for rows in resamples]
    sure_m = np.abs(foreseen_m) > std_m
    return {
        "designs": len(designs),
        "parts": len(table),
        "spearman": [spearman(foreseen_m, rendered_m), *map(float, np.nanquantile(again, [0.025, 0.975]))],
        "spearman_within_design": spearman_within(table["design"].to_numpy(), foreseen_m, rendered_m),
        "same_sign": float((foreseen_m * rendered_m > 0)[sure_m].mean()) if sure_m.any() else None,
        "mean_absolute_error": float(np.abs(foreseen_m - rendered_m).mean()),
        "coverage_1": coverage(rendered_m, foreseen_m, std_m),
    }


def markdown(told: dict[str, dict[str, Any]], seeds: int) -> str:
    """The table for a document; "same sign" is of the parts that the ensemble is sure of."""
    score = told["score"]
    facts = f"{score['designs']} designs with {score['parts']} parts, {seeds} seeds each; 95% over designs."
    head = ["difference", "rank correlation", "within a design", "same sign", "within ± 1 bar"]
    lines = []
    for name, values in told.items():
        sign = "-" if values["same_sign"] is None else f"{values['same_sign']:.0%}"
        ranked = [Interval(*values["spearman"]).told("{:.2f}"), f"{values['spearman_within_design']:.2f}"]
        lines.append([name, *ranked, sign, f"{values['coverage_1']:.0%}"])
    return f"{facts}\n\n{markdown_table(head, lines, 'lr')}"


if __name__ == "__main__":
    with told_in_one_line("why"):
        main()
