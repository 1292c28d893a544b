"""Does a run take in a checkpoint that it never saw? One is held back, added later, and tried by `refine`.

    python benchmarks/new_model.py                    # sprite.ckpt, which draws pixel art
    python benchmarks/new_model.py ink.ckpt --style line --out runs/new-ink

Trains on engines that lack the checkpoint, with the rows that ship and do without it; then installs it and
makes one round of `flowtailor refine --new-models`. The policy designs before and after for test prompts that
ask for the checkpoint's style and for as many others, and all designs are rendered. What is done is not done
again; OUT/new_model.json holds the numbers, and the table goes to standard output.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import script

from flowtailor.datasets.prompts import Prompt, load_prompts
from flowtailor.datasets.rows import row_id, weighted_score
from flowtailor.datasets.shipped import read_rows, write_rows
from flowtailor.datasets.store import Store
from flowtailor.errors import told_in_one_line
from flowtailor.markdown import markdown_table
from flowtailor.pipelines import collect, fit_reward, grpo, refine, sft
from flowtailor.pipelines.catalog import look, read_world
from flowtailor.pipelines.config import Config
from flowtailor.pipelines.config_file import load_config
from flowtailor.pipelines.engines import render
from flowtailor.pipelines.plan import designed_rows
from flowtailor.pipelines.renders import rendered_rows
from flowtailor.pipelines.stage import Run, write_json
from flowtailor.pipelines.statistics import Interval, bootstrap_mean
from flowtailor.pipelines.trained import load_designer
from flowtailor.studio.engine import EngineProcess, new_run_dir, studio_launch
from flowtailor.studio.install import install

PROFILE = Path(__file__).with_name("new_model.toml")
ENGINES = 2
SEEDS = 2


def main() -> None:
    parser = script.parser(__doc__)
    parser.add_argument("checkpoint", nargs="?", default="sprite.ckpt", help="default: sprite.ckpt")
    parser.add_argument("--style", default="pixel", help="of the prompts that it should be better for")
    parser.add_argument("--prompts", type=int, default=40, help="of each kind; default: 40")
    parser.add_argument("--out", type=Path, default=Path("runs/new-model"), metavar="DIR")
    arguments = parser.parse_args()
    models = arguments.out.absolute() / "models"
    with served(models, arguments.checkpoint) as urls:
        run = Run(configured(arguments.out, urls))
        prompts = asked(arguments.style, arguments.prompts)
        new = models / "checkpoints" / arguments.checkpoint
        if not new.exists():
            learn_without(run, arguments.checkpoint)
            designed(run, prompts, "before")
            new.symlink_to(install().models / "checkpoints" / arguments.checkpoint)
        refine.take_in(run.config)
        parts = [designed(run, prompts, "before"), designed(run, prompts, "after")]
        rows = rendered(run, pd.concat(parts, ignore_index=True))
    told = compared(rows, arguments.checkpoint, arguments.style)
    write_json(arguments.out / "new_model.json", told)
    print(markdown(told, arguments.checkpoint))


@contextmanager
def served(models: Path, without: str) -> Iterator[list[str]]:
    """The addresses of engines whose models are links in `models`, at first to all but one checkpoint."""
    studio = install()
    if not models.exists():
        (models / "checkpoints").mkdir(parents=True)
        for folder in studio.models.iterdir():
            if folder.name != "checkpoints":
                (models / folder.name).symlink_to(folder)
        for file in (studio.models / "checkpoints").iterdir():
            if file.name != without:
                (models / "checkpoints" / file.name).symlink_to(file)
    with ExitStack() as running:
        urls = []
        for _ in range(ENGINES):
            place = new_run_dir()
            launch = studio_launch(dataclasses.replace(studio, models=models), place, threads=1)
            process = EngineProcess.start(launch, place, 90.0)
            running.callback(process.stop)
            urls.append(process.url)
        yield urls


def configured(out: Path, urls: Sequence[str]) -> Config:
    values = {
        "run.root": str(out.parent),
        "run.name": out.name,
        "engine.kind": "urls",
        "engine.urls": list(urls),
        "engine.count": len(urls),
        "collect.head_start": str(out / "rows.parquet"),
    }
    return load_config(str(PROFILE), [f"{key}={json.dumps(value)}" for key, value in values.items()])


def learn_without(run: Run, checkpoint: str) -> None:
    """A policy that does not know the checkpoint, from the rows that do without it."""
    world = look(run.config)
    rows = read_rows("studio")
    rows = rows.loc[~rows["workflow"].str.contains(checkpoint, regex=False)]
    rows = rows.assign(engine=world.engine, catalog_hash=world.catalog.hash)
    told = zip(rows["workflow_key"], rows["prompt"], rows["seed"], strict=True)
    rows["row_id"] = [row_id(world.engine, key, prompt, seed) for key, prompt, seed in told]
    write_rows(rows, run.path("rows.parquet"))
    for stage in (collect, fit_reward, sft, grpo):
        stage.run_stage(run.config)


def asked(style: str, count: int) -> list[Prompt]:
    """Test prompts: as many that ask for the style as others."""
    test = [prompt for prompt in load_prompts() if prompt.split == "test"]
    wants = [prompt for prompt in test if prompt.style == style]
    others = [prompt for prompt in test if prompt.style != style]
    return wants[:count] + others[:: max(1, len(others) // count)][:count]


def designed(run: Run, prompts: Sequence[Prompt], when: str) -> pd.DataFrame:
    """Rows to render: a guided design for each prompt, as the policy made them `before` or `after`."""
    file = run.path(f"designs-{when}.parquet")
    if not file.exists():
        _, space = read_world(run)
        wishes = run.config.design
        drawn = load_designer(run, space).design(
            [prompt.text for prompt in prompts],
            guidance=wishes.guidance,
            temperature=wishes.temperature,
            seed=run.config.run.seed,
        )
        designs = [(prompt, one.tokens) for prompt, (one,) in zip(prompts, drawn, strict=True)]
        engine = run.engine()
        rows = designed_rows(designs, space, engine=engine, seeds=SEEDS, seed=run.config.run.seed)
        rows.assign(when=when).to_parquet(file, index=False)
    return pd.read_parquet(file)


def rendered(run: Run, planned: pd.DataFrame) -> pd.DataFrame:
    """The rows with their scores and the styles that their prompts ask for."""
    rows = rendered_rows(
        run.config,
        planned,
        Store(run.path("designs")),
        known=[run.dataset],
        render=partial(render, label="new model"),
        label="new model",
    )
    styles = {prompt.text: prompt.style for prompt in load_prompts()}
    score_r = weighted_score(rows, run.config.scorers.weights)
    return rows.assign(score=score_r, style=rows["prompt"].map(styles))


def compared(rows: pd.DataFrame, checkpoint: str, style: str) -> list[dict[str, Any]]:
    """For the prompts of the style, and for the others: how many designs use it, what they score, what it
    changed, with intervals over prompts."""
    rows = rows.assign(uses=rows["workflow"].str.contains(checkpoint, regex=False).astype(float))
    told = []
    for wanted in (True, False):
        group = rows.loc[(rows["style"] == style) == wanted]
        of_prompt = group.groupby(["when", "prompt"])[["uses", "score"]].mean()
        before, after = of_prompt.loc["before"], of_prompt.loc["after"]
        told.append(
            {
                "prompts": style if wanted else "others",
                "count": len(before),
                "uses": [float(part["uses"].mean()) for part in (before, after)],
                "score": [float(part["score"].mean()) for part in (before, after)],
                "gain": list(bootstrap_mean((after["score"] - before["score"]).to_numpy())),
            }
        )
    return told


def markdown(told: list[dict[str, Any]], checkpoint: str) -> str:
    """The table for a document."""
    head = ["prompts", "", f"use {checkpoint} before", "after", "score before", "after", "gain (95%)"]
    lines = []
    for one in told:
        shares, scores = [f"{x:.0%}" for x in one["uses"]], [f"{x:.3f}" for x in one["score"]]
        gain = Interval(*one["gain"]).told("{:.3f}")
        lines.append([one["prompts"], str(one["count"]), *shares, *scores, gain])
    return markdown_table(head, lines, "lr")


if __name__ == "__main__":
    with told_in_one_line("new model"):
        main()
