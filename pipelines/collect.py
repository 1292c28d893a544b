"""`flowtailor collect`: render and score every planned row that the dataset does not hold yet.

Whatever kills the command, finished blocks stay, and finished pictures of an unfinished block are not
rendered again (`engines.py`). A failed render is a row with an error; only failures of the moment (timeout,
full memory) are tried again by the next call. Where engines were lost for good the command ends in an error,
so that nothing is learned from what happens to be there. Rows that were rendered elsewhere may be taken over
(`head_start.py`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import pandas as pd

from flowtailor.errors import FlowtailorError

from ..actors.client import ComfyClient, Rendered
from ..actors.comfy import EngineConfig, as_here, engine
from ..actors.comfy_errors import ComfyUnavailable
from ..actors.renderer import drawn_anew
from ..datasets.card import STUDIO_LICENCES, dataset_card
from ..datasets.flows import load_seed_flows
from ..datasets.prompts import choose_prompts, load_prompts, prompt_file
from ..datasets.rows import usable, weighted_score
from ..datasets.shipped import rows_file
from ..datasets.store import Store
from ..models.metrics import noise_ceiling
from ..workflows.graph import Workflow
from .catalog import World, compatible, space_file, survey, write_world
from .config import Config
from .engines import render
from .head_start import beside, lent_rows, take_over
from .plan import balanced, candidates, planned_rows
from .provenance import provenance
from .renders import render_missing
from .stage import Run, is_done, record

MEASURED = 5  # renders behind an estimate
ROW_BYTES = 300  # of Parquet, measured


def run_stage(config: Config, *, dry_run: bool = False) -> None:
    """Bring the run's dataset up to its plan; with `dry_run` say what that would take."""
    run = Run(config)
    inputs = stage_inputs(config)
    if is_done(run, "collect", inputs, output="dataset"):
        return
    started = time.monotonic()
    store = run.dataset
    with engine(config.engine) as client:
        world = compatible(config, survey(config, client))
        planned = plan(config, world)
        missing = store.missing(planned, config.scorers.weights)
        there = len(planned) - len(missing)
        lent = lent_rows(config, planned, store, world.space)
        missing = beside(missing, lent, config.scorers.weights)
        _say(f"collect: {len(planned)} rows planned, {there} there, {len(missing)} to render")
        if dry_run:
            as_asked = as_here(config.engine) == config.engine
            on_cpu = "" if as_asked else "; there is no GPU here, so that was on the CPU"
            _say(estimate(client, missing, config.engine) + on_cpu)
            return
    write_world(run, world)
    take_over(config, lent, store, partial(render, label="pace"))
    if len(missing):
        render_missing(config, planned, missing, store, render)
        store.compact()
    if finish(run, store, planned, world):
        record(run, "collect", inputs, output="dataset", seconds=time.monotonic() - started)


def stage_inputs(config: Config) -> dict[str, Any]:
    """What the dataset depends on."""
    return {
        "collect": config.collect.model_dump(exclude={"rows_per_block"}),
        "head_start": config.collect.head_start and rows_file(config.collect.head_start),
        "engine": config.engine.model_dump(mode="json", include={"kind", "urls", "path", "args"}),
        "prompts": [config.prompts.counts(), prompt_file(config.prompts.file)],
        "scorers": sorted(config.scorers.weights),
        "seed": config.run.seed,
        "space": space_file(config),
        "flows": {name: flow.dumps() for name, flow in load_seed_flows(config.space.flows).items()},
        "max_tokens": config.space.max_tokens,
    }


def plan(config: Config, world: World) -> pd.DataFrame:
    """All rows that the configuration asks for (see `pipelines/plan.py`)."""
    prompts = choose_prompts(load_prompts(config.prompts.file), config.prompts.counts())
    flows = candidates(
        list(load_seed_flows(config.space.flows).values()),
        world.space,
        count=config.collect.flows,
        max_tokens=config.space.max_tokens,
        seed=config.run.seed,
    )
    pairs = balanced(prompts, flows, per_prompt=config.collect.flows_per_prompt, seed=config.run.seed)
    return planned_rows(
        pairs,
        engine=world.engine,
        catalog_hash=world.catalog.hash,
        seeds=config.collect.seeds,
        seed=config.run.seed,
        repeated=config.collect.repeated,
    )


def estimate(client: ComfyClient, missing: pd.DataFrame, engines: EngineConfig) -> str:
    """What rendering would take, measured on a few of the missing rows after one that warms up."""
    if missing.empty:
        return "nothing to render"
    spread = [len(missing) * i // MEASURED for i in range(MEASURED)]
    drawn = [_sample(client, missing.iloc[i], engines.render_timeout_s) for i in [spread[-1], *spread]]
    measured = [rendered for rendered in drawn[1:] if rendered]
    if not measured:
        return f"would render {len(missing)} pictures; none of {MEASURED} samples could be drawn"
    failed = f", {MEASURED - len(measured)} failed" if len(measured) < MEASURED else ""
    mean_s = sum(rendered.seconds for rendered in measured) / len(measured)
    file_bytes = sum(len(rendered.png) for rendered in measured) / len(measured)
    return (
        f"would render {len(missing)} pictures on {engines.count} engines: "
        f"about {len(missing) * mean_s / engines.count / 60:.1f} minutes "
        f"({mean_s:.2f} s a picture, measured on {len(measured)}{failed}) "
        f"and {len(missing) * (file_bytes + ROW_BYTES) / 1e6:.1f} MB of disk"
    )


def _sample(client: ComfyClient, row: pd.Series, timeout_s: float) -> Rendered | None:
    """One row's picture, which no engine has in its cache; None where it cannot be drawn, which
    `collect` would keep as a row."""
    try:
        flow = drawn_anew(Workflow.loads(row["workflow"]))
        return client.render(flow.bind(row["prompt"], int(row["seed"])).to_api(), timeout_s)
    except ComfyUnavailable:
        raise
    except FlowtailorError:
        return None


def finish(run: Run, store: Store, planned: pd.DataFrame, world: World) -> bool:
    """Write the dataset card, say what is there; True when no planned row is missing."""
    rows = store.rows()
    mine = rows[rows["row_id"].isin(planned["row_id"])]
    versions = provenance()["versions"]
    plan, studio = run.config.collect, run.config.engine.kind == "studio"
    facts = {
        "Pairs": f"each prompt with {plan.flows_per_prompt} of {plan.flows} workflows, those first that its "
        f"category has met least, and {plan.seeds} seeds ({plan.repeated:.0%} of the prompts one more); "
        f"besides those {len(rows) - len(mine)} rows of a head start or of later rounds",
        "Licences": STUDIO_LICENCES if studio else "those of the models that drew them",
        "Space": f"{world.space.source}, {len(world.space.vocabulary)} words",
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    card = dataset_card(
        rows,
        name=run.config.run.name,
        license="mit" if studio else "other",
        facts=facts | _noise(rows, run.config.scorers.weights),
    )
    run.path("dataset/README.md").write_text(card)
    errors = mine["error_type"].value_counts()
    told = ", ".join(f"{count} {name}" for name, count in errors.items()) or "none failed"
    rate = run.config.engine.count / mine["seconds"].mean() if mine["seconds"].notna().any() else math.nan
    _say(f"collect: {len(mine)} of {len(planned)} rows; {told}; the engines render {rate:.2f} images/s")
    retry = len(store.missing(planned, run.config.scorers.weights))
    if retry:
        _say(f"collect: {retry} rows failed for the moment; the same command tries them again")
    return retry == 0


def _noise(rows: pd.DataFrame, weights: Mapping[str, float]) -> dict[str, str]:
    """How well the score can be foreseen at all, where prompts were drawn with several seeds."""
    drawn = usable(rows, weights)
    score = weighted_score(drawn, weights)
    ceiling = noise_ceiling(drawn["prompt"].to_numpy(), drawn["workflow_key"].to_numpy(), score)
    told = "unknown, no prompt was drawn with two seeds" if math.isnan(ceiling) else f"{ceiling:.3f}"
    return {"Best possible rank correlation within a prompt": told}


def _say(line: str) -> None:
    print(line, flush=True)
