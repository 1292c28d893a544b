"""`flowtailor evaluate`: render held-out prompts with every method's workflow and compare.

First the strength of guidance is chosen on validation prompts. Then each method designs for the same
test prompts, each design is rendered with the same seeds, and the pictures are scored by the scorers that
made the training rows. Rows have the ids of the dataset's, so nothing known is rendered again: a picture
that two methods share, that the collection holds, or that an interrupted evaluation had finished
(`evaluation/rows/` keeps pictures' rows as they come, each once; `evaluation/rows.parquet` is the table of
methods). A failed render scores 0.

Whether the scores agree with people, this file cannot know.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from flowtailor.errors import FlowtailorError
from flowtailor.files import written_whole

from ..datasets.flows import load_seed_flows
from ..datasets.prompts import Prompt, choose_prompts, load_prompts, prompt_file
from ..datasets.rows import weighted_score
from ..datasets.store import Store
from ..models.weights import SHIPPED
from ..workflows.catalog import Catalog
from ..workflows.similarity import Known
from ..workflows.space import Space
from .budget import budget_choices, budget_report, engine_pace
from .catalog import read_world
from .comparison import JUDGE, JUDGED, measure, summarise
from .config import Config
from .engines import render
from .examples import designable
from .known import read_known
from .methods import METHODS, Choice, Materials, choose, default_design
from .plan import designed_rows
from .renders import rendered_rows
from .stage import Run, is_done, record, write_json
from .sweep import guidance_report, sweep_designs
from .trained import adapter_hash, load_designer, load_ensemble, need, with_guidance

POLICIES = ("policy/sft", "policy/score_conditioned", "policy/grpo")
PARTS = ("catalog.json", "dataset/rows", "reward/ensemble.json", *POLICIES)


def run_stage(config: Config, *, dry_run: bool = False) -> None:
    """Write `evaluation/`; FlowtailorError where an earlier stage is missing."""
    run = Run(config)
    if dry_run:
        print(describe(config))
        return
    need(run.dir, *PARTS)
    inputs = stage_inputs(run)
    if is_done(run, "evaluate", inputs, output="evaluation/summary.json"):
        return
    started = time.monotonic()
    catalog, space = read_world(run)
    materials = gather(run, space)
    run.open()  # designs are made from here on as they were evaluated
    guidance = sweep(run, materials, catalog)
    materials = replace(materials, config=with_guidance(config, guidance["chosen"]))
    prompts = held_out(config)

    def seen(choices: Mapping[str, Sequence[Choice]]) -> pd.DataFrame:
        return measure(judged(run, _rendered(run, prompts, choices, space)), materials, catalog)

    rows = seen({method: _chosen(method, prompts, materials) for method in METHODS})
    pace = engine_pace(rows)
    within = budget_choices(materials, prompts, pace)
    write(run, rows, seen(within) if within else rows.iloc[:0], pace, guidance, materials)
    record(run, "evaluate", inputs, output="evaluation", seconds=time.monotonic() - started)
    print(f"evaluate: {run.path('evaluation/summary.json')}")


def judged(run: Run, rows: pd.DataFrame) -> pd.DataFrame:
    """Rendered rows with the score of the scorer that is held out.

    Raises FlowtailorError where a picture is gone, which is no fault of its design.
    """
    from ..actors.scorers import Scorers  # torch, which a finished evaluation does without

    images = Store(run.path("evaluation")).images_dir
    pictures = rows.drop_duplicates("row_id").reset_index(drop=True)  # methods share some
    seen = Scorers((JUDGE,), images, evaluation=True)(pictures)
    gone = pictures["error_type"].isna() & seen["error_type"].notna()
    if gone.any():
        raise FlowtailorError(
            f"{images}: {gone.sum()} pictures cannot be read ({seen['error_message'][gone].iloc[0]}); "
            f"bring them back, or delete {run.path('evaluation')} to draw them again"
        )
    return rows.merge(seen[["row_id", JUDGED]], on="row_id", validate="many_to_one")


def stage_inputs(run: Run) -> dict[str, Any]:
    """What an evaluation depends on."""
    config = run.config
    return {
        "evaluate": config.evaluate,
        "design": config.design,
        "scorers": config.scorers,
        "prompts": [config.prompts.counts(), prompt_file(config.prompts.file)],
        "judge": SHIPPED / f"{JUDGE}.safetensors",
        "seed": config.run.seed,
        "objective": [config.reward.kappa, config.reward.lambda_seconds],
        "rows": run.rows_hash(),
        "reward": run.path("reward"),
        "policies": [run.path(part) for part in POLICIES],
    }


def describe(config: Config) -> str:
    """What an evaluation would take, before anything is known of it."""
    evaluate = config.evaluate
    pictures = evaluate.prompts * evaluate.seeds
    budgets = len(evaluate.budget_quantiles)
    chosen = len(METHODS) + budgets
    swept = len(evaluate.guidance_sweep) * config.prompts.validation * evaluate.seeds * evaluate.render_sweep
    return (
        f"evaluate: {len(METHODS)} methods{f' and {budgets} budgets' if budgets else ''} "
        f"on {evaluate.prompts} held-out prompts: at most {chosen * pictures + swept} renders, "
        "fewer where methods agree or rows are known"
    )


def held_out(config: Config) -> list[Prompt]:
    """The test prompts to evaluate on, the same ones in each run of a configuration."""
    return choose_prompts(load_prompts(config.prompts.file), {"test": config.evaluate.prompts})


def sweep(run: Run, materials: Materials, catalog: Catalog) -> dict[str, Any]:
    """`guidance.json`: designs of validation prompts at each strength of guidance, and which is best."""
    config = run.config
    wanted = config.prompts.validation if config.evaluate.guidance_sweep else 0
    prompts = choose_prompts(load_prompts(config.prompts.file), {"validation": wanted}) if wanted else []
    swept = sweep_designs(materials, prompts) if prompts else []
    if swept and config.evaluate.render_sweep:
        chosen = {s.method: [Choice(tuple(d[0].tokens), 0.0) for d in s.designs] for s in swept}
        rows = measure(_rendered(run, prompts, chosen, materials.space), materials, catalog)
    else:
        rows = pd.DataFrame({"method": [], "prompt": [], "score": []})
    report = guidance_report(swept, rows, materials) | {"adapter": adapter_hash(run.dir)}
    print(
        f"evaluate: guidance {report['chosen']:g}, of {len(swept)} strengths on validation prompts",
        flush=True,
    )
    return report


def _rendered(
    run: Run, prompts: Sequence[Prompt], choices: Mapping[str, Sequence[Choice]], space: Space
) -> pd.DataFrame:
    return rendered_rows(
        run.config,
        plan(run.config, prompts, choices, space, run.engine()),
        Store(run.path("evaluation")),
        known=[run.dataset],
        render=partial(render, label="evaluate"),
        label="evaluate",
    )


def gather(run: Run, space: Space) -> Materials:
    """What methods may look at: rows of training prompts with their score, and what was trained.

    Where a row is older than a scorer, the ensemble's word stands in: baselines shall have as many rows to
    choose by as the policy had to learn from.
    """
    ensemble = load_ensemble(run)
    collected = designable(run.comparable_rows(), space)
    rows = ensemble.filled(collected.loc[collected["prompt_split"] == "train"])
    rows = rows.assign(score=weighted_score(rows, run.config.scorers.weights))
    default = default_design(load_seed_flows(run.config.space.flows), rows, space)
    designer = load_designer(run, space, score_conditioned=True)
    return Materials(
        run.config,
        rows,
        Known(read_known(run)),
        default,
        space,
        designer,
        ensemble,
        designer.policy.labels_of,
    )


def _chosen(method: str, prompts: Sequence[Prompt], materials: Materials) -> list[Choice]:
    choices = choose(method, prompts, materials)
    middle = np.median([choice.seconds for choice in choices])
    print(f"evaluate: {method} chose {len(choices)} workflows, {middle:.2f} s each", flush=True)
    return choices


def plan(
    config: Config,
    prompts: Sequence[Prompt],
    choices: Mapping[str, Sequence[Choice]],
    space: Space,
    engine: str,
) -> pd.DataFrame:
    """A row for each of `choices`, prompt and seed; the seeds belong to the prompt as in the collection,
    so that methods are compared on the same noise."""
    frames = []
    for method, picks in choices.items():
        designs = [(prompt, pick.tokens) for prompt, pick in zip(prompts, picks, strict=True)]
        frame = designed_rows(
            designs, space, engine=engine, seeds=config.evaluate.seeds, seed=config.run.seed
        )
        took = {prompt.text: pick.seconds for prompt, pick in zip(prompts, picks, strict=True)}
        frames.append(frame.assign(method=method, design_seconds=frame["prompt"].map(took)))
    return pd.concat(frames, ignore_index=True)


def write(
    run: Run,
    rows: pd.DataFrame,
    budgeted: pd.DataFrame,
    pace: float,
    guidance: dict[str, Any],
    materials: Materials,
) -> None:
    """The evaluation's files, `summary.json` last: its presence means that the others are there.

    rows: of METHODS. budgeted: of the budgets' designs, made for an engine of that pace.
    """
    metrics = json.loads(run.path("reward/metrics.json").read_text())
    run.path("evaluation/summary.json").unlink(missing_ok=True)
    with written_whole(run.path("evaluation/rows.parquet")) as new:
        rows.to_parquet(new, index=False)
    write_json(run.path("evaluation/guidance.json"), guidance)
    write_json(run.path("evaluation/budgets.json"), budget_report(rows, budgeted, pace, materials))
    write_json(run.path("evaluation/summary.json"), summarise(rows, metrics))
