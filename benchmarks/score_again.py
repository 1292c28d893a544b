"""Draws rows that ship once more where a scorer has not seen their picture, and has them scored.

    python benchmarks/score_again.py runs/again                            # those of held-out prompts first
    python benchmarks/score_again.py runs/again --count 1000
    python benchmarks/ship_rows.py runs/again                              # adds the scores to what ships

A scorer that is younger than a row, or has changed since (`ship_rows.py --changed`), left no score in it, and
its picture does not ship. The same command goes on where it was stopped.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import script

from flowtailor.datasets.prompts import labelled, load_prompts
from flowtailor.datasets.rows import PLANNED, unscored
from flowtailor.datasets.shipped import read_rows
from flowtailor.errors import told_in_one_line
from flowtailor.pipelines.catalog import World, look, write_world
from flowtailor.pipelines.config import Config
from flowtailor.pipelines.config_file import load_config
from flowtailor.pipelines.engines import render
from flowtailor.pipelines.stage import Run


def main() -> None:
    parser = script.parser(__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder for the rows and pictures")
    parser.add_argument("--count", type=int, metavar="N", help="rows in all (default: all that lack a score)")
    arguments = parser.parse_args()
    place = {"run.root": str(arguments.run.parent), "run.name": arguments.run.name}
    config = load_config("studio", [f"{key}={json.dumps(value)}" for key, value in place.items()])
    run, world = Run(config), look(config)
    wanted = plans(labelled(read_rows("studio"), load_prompts()), config, world).head(arguments.count)
    write_world(run, world)
    missing = run.dataset.missing(wanted, config.scorers.weights)
    print(f"again: {len(wanted)} rows, {len(wanted) - len(missing)} there", flush=True)
    if len(missing):
        render(config, missing, run.dataset, label="again")
        run.dataset.compact()


def plans(rows: pd.DataFrame, config: Config, world: World) -> pd.DataFrame:
    """Plans of the world's pictures that some scorer has not seen: held-out prompts before others, and of
    each prompt one workflow before any prompt's second, for what is drawn may end anywhere."""
    here = (rows["engine"] == world.engine) & (rows["catalog_hash"] == world.catalog.hash)
    found = rows.loc[here & unscored(rows, config.scorers.weights)]
    found = found.sort_values("row_id")  # at random, and the same each time
    learned = found["prompt_split"] == "train"
    turn = found.groupby("prompt").cumcount()
    return found.assign(learned=learned, turn=turn).sort_values(["learned", "turn"], kind="stable")[PLANNED]


if __name__ == "__main__":
    with told_in_one_line("again"):
        main()
