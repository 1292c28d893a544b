"""Does the workflow matter in the studio? Renders prompts x workflows x seeds, all with all, and reports.

    python benchmarks/studio_study.py                                     # 80 x 60 x 2: 9,600 pictures
    python benchmarks/studio_study.py --prompts 4 --flows 6 --out runs/try-study

Prompts are the first that a profile of this size would collect for; workflows are those of
`study_workflows.txt`: thirty-two of a collection that draw something, and for each checkpoint but the
generalist four that the reward ensemble likes best for its categories or its style. The same command goes
on where it was stopped, and a larger study with the same --out keeps what a smaller one has rendered; rows
that ship are taken over. Writes OUT/study.md and OUT/study.png; a study of at least the default size writes
docs/STUDIO_STUDY.md and its picture too.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import script
from PIL import Image
from study_montage import extremes, montage
from study_report import Study, plot, report

from flowtailor.datasets.pictures import Pictures, load_pictures
from flowtailor.datasets.prompts import choose_prompts, load_prompts
from flowtailor.datasets.rows import PLANNED, weighted_score
from flowtailor.datasets.scenes import draw
from flowtailor.datasets.shipped import read_rows
from flowtailor.datasets.store import Store
from flowtailor.datasets.studio_prompts import read_scenes
from flowtailor.errors import FlowtailorError, told_in_one_line
from flowtailor.pipelines.catalog import World, look, write_world
from flowtailor.pipelines.cli import DEFAULT_CONFIG
from flowtailor.pipelines.config import Config
from flowtailor.pipelines.config_file import load_config
from flowtailor.pipelines.engines import render
from flowtailor.pipelines.head_start import lent_rows, take_over
from flowtailor.pipelines.plan import Candidate, planned_rows
from flowtailor.pipelines.renders import rendered_rows
from flowtailor.pipelines.stage import Run

FULL = {"prompts": 80, "flows": 60, "seeds": 2}
LEAST = {"prompts": 3, "flows": 2, "seeds": 2}  # for an interval over prompts, and for two choices
WORKFLOWS = Path(__file__).with_name("study_workflows.txt")
DOCS = Path(__file__).resolve().parent.parent / "docs"


def main() -> None:
    arguments = parsed()
    config = study_config(arguments)
    world = look(config)
    rows = collected(config, world)
    study = Study.of(rows, config.scorers.weights, world.space, engines=config.engine.count)
    sheet = pictured(Run(config), rows, load_pictures(arguments.pictures))
    write(study, sheet, arguments.out / "study.md", arguments.out / "study.png")
    if all(getattr(arguments, name) >= size for name, size in FULL.items()):
        write(study, sheet, DOCS / "STUDIO_STUDY.md", DOCS / "images" / "studio_study.png")


def parsed() -> argparse.Namespace:
    parser = script.parser(__doc__)
    for name, size in FULL.items():
        parser.add_argument(f"--{name}", type=int, default=size, metavar="N", help=f"default: {size}")
    parser.add_argument("--out", type=Path, default=Path("runs/studio-study"), metavar="DIR")
    script.add_pictures(parser)
    parser.add_argument("--config", default=DEFAULT_CONFIG, help="whose engine, space and scorers to use")
    arguments = parser.parse_args()
    for name, least in LEAST.items():
        if getattr(arguments, name) < least:
            parser.error(f"--{name} must be at least {least}")
    return arguments


def study_config(arguments: argparse.Namespace) -> Config:
    """The configuration of a study: where it lies, and how many prompts, workflows and seeds it has."""
    values = {
        "run.root": str(arguments.out.parent),
        "run.name": arguments.out.name,
        "prompts.train": arguments.prompts,
        "prompts.validation": 0,
        "prompts.test": 0,
        "collect.flows": arguments.flows,
        "collect.seeds": arguments.seeds,
        "collect.head_start": "studio",
    }
    return load_config(arguments.config, [f"{key}={json.dumps(value)}" for key, value in values.items()])


def plan(config: Config, world: World) -> pd.DataFrame:
    """The full product of prompts, workflows and seeds; each prompt begins with another workflow, lest one is
    drawn when the machine is slow and another when it is fast."""
    prompts = choose_prompts(load_prompts(config.prompts.file), {"train": config.prompts.train})
    flows = [Candidate.of(words.split(), world.space) for words in WORKFLOWS.read_text().splitlines()]
    flows = flows[: config.collect.flows]
    return planned_rows(
        (
            (prompt, flows[(p + w) % len(flows)])
            for p, prompt in enumerate(prompts)
            for w in range(len(flows))
        ),
        engine=world.engine,
        catalog_hash=world.catalog.hash,
        seeds=config.collect.seeds,
        seed=config.run.seed,
    )


def collected(config: Config, world: World) -> pd.DataFrame:
    """The planned rows, after rendering those that are missing. Raises where some are to be tried again."""
    run = Run(config)
    store = run.dataset
    planned = plan(config, world)
    write_world(run, world)
    take_over(config, lent_rows(config, planned, store, world.space), store, partial(render, label="pace"))
    missing = store.missing(planned, config.scorers.weights)
    print(f"study: {len(planned)} pictures, {len(planned) - len(missing)} there", flush=True)
    if len(missing):
        render(config, missing, store, label="study")
        store.compact()
    rows = store.rows()
    rows = at_one_pace(rows[rows["row_id"].isin(planned["row_id"])])
    again = len(store.missing(planned, config.scorers.weights))
    if again:
        raise FlowtailorError(f"{again} renders failed for the moment; the same command tries them again")
    return rows


def at_one_pace(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with the seconds that ship, where all of them do: those of a workflow that was drawn while the
    machine did something else too are told at its usual pace there (`ship_rows.py`)."""
    shipped = read_rows("studio").set_index("row_id")["seconds"]
    told = rows["row_id"].map(shipped)
    return rows if told.isna().any() else rows.assign(seconds=told)


def pictured(run: Run, rows: pd.DataFrame, pictures: Pictures) -> Image.Image:
    """The montage of best, worst and real pictures; those that rows came without are drawn again."""
    shown = extremes(rows, weighted_score(rows, run.config.scorers.weights).tolist())
    wanted = [row_id for pair in shown.values() for row_id in pair]
    planned = rows.loc[rows["row_id"].isin(wanted)].filter(items=PLANNED)
    folder, drawing = Store(run.path("shown")), partial(render, label="montage")
    drawn = rendered_rows(run.config, planned, folder, known=[run.dataset], render=drawing, label="montage")
    images = {row.row_id: Path(folder.images_dir).parent / str(row.image) for row in drawn.itertuples()}
    scenes, rng = read_scenes(pictures), np.random.default_rng(0)

    def three(prompt: str, best: str, worst: str) -> tuple[Image.Image, Image.Image, Image.Image]:
        original = Image.fromarray(draw(pictures, scenes[prompt], 128, rng))
        return Image.open(images[best]), Image.open(images[worst]), original

    return montage({prompt: three(prompt, *pair) for prompt, pair in shown.items()})


def write(study: Study, sheet: Image.Image, page: Path, picture: Path) -> None:
    """Write the report and the pictures that it shows."""
    picture.parent.mkdir(parents=True, exist_ok=True)
    plot(study, picture)
    montage = picture.with_name(f"{picture.stem}_prompts.webp")
    sheet.save(montage, quality=85)
    page.write_text(report(study, *(path.relative_to(page.parent).as_posix() for path in (picture, montage))))
    print(page.read_text() if page.name == "study.md" else f"written: {page}")


if __name__ == "__main__":
    with told_in_one_line("study"):
        main()
