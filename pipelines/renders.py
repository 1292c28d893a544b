"""Pictures for planned rows: taken from datasets that have them already, and rendered where none has.

What collect, evaluate, refine, the audits of GRPO and the studies have in common. Promises: nothing whose
picture a store has is rendered again; a design is not blamed for an engine that went away. Does not know how
pictures are made: `render` is passed in.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from flowtailor.errors import FlowtailorError

from ..datasets.rows import LOST, score_column
from ..datasets.store import Store
from .config import Config
from .stage import Run, forget

Render = Callable[[Config, pd.DataFrame, Store], None]


def rendered_rows(
    config: Config, planned: pd.DataFrame, store: Store, *, known: Sequence[Store], render: Render, label: str
) -> pd.DataFrame:
    """The planned rows with their results, which `store` holds from now on.

    Raises FlowtailorError where renders were lost, which is no fault of the designs.
    """
    for source in known:
        adopt(source, store, planned, list(config.scorers.weights))
    missing = store.missing(planned, config.scorers.weights)
    print(f"{label}: {len(set(planned['row_id']))} pictures, {len(missing)} to render", flush=True)
    if len(missing):
        render_missing(config, planned, missing, store, render)
    return with_results(planned, store.rows())


def render_missing(
    config: Config, planned: pd.DataFrame, missing: pd.DataFrame, store: Store, render: Render
) -> None:
    """Render what is missing of the planned rows; what is lost on the way gets a second chance.

    Raises FlowtailorError where that is lost too, which is no fault of the designs.
    """
    render(config, missing, store)
    if len(lost := lost_rows(store, planned)):
        print(f"{len(lost)} renders were lost, no fault of the designs; once more", flush=True)
        render(config, lost, store)
        refuse_lost(config, store, planned)


def with_results(planned: pd.DataFrame, rendered: pd.DataFrame) -> pd.DataFrame:
    """The planned rows, in their own words, with what a store's rows add to them."""
    results = [name for name in rendered.columns if name == "row_id" or name not in planned.columns]
    return planned.merge(rendered[results], on="row_id", how="left", validate="many_to_one")


def adopt(source: Store, target: Store, planned: pd.DataFrame, scorers: Sequence[str]) -> None:
    """Take over planned rows and their pictures, if every scorer has seen them and the pictures are there."""
    rows = source.rows()
    names = [score_column(name) for name in scorers]
    if not set(names) <= set(rows.columns):
        return
    wanted = rows["row_id"].isin(target.missing(planned)["row_id"])
    rows = rows.loc[wanted & rows[[*names, "image"]].notna().all(axis=1)]
    here, there = Path(source.images_dir).parent, Path(target.images_dir).parent
    rows = rows.loc[[(here / image).is_file() for image in rows["image"]]]
    for image in rows["image"]:
        (there / image).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(here / image, there / image)
    target.append(rows)


def lost_rows(store: Store, planned: pd.DataFrame) -> pd.DataFrame:
    """The planned rows that say nothing of their designs, each id once: not there, or `LOST`."""
    rows = store.rows()
    settled = rows.loc[~rows["error_type"].isin(list(LOST)), "row_id"]
    once = planned.drop_duplicates("row_id")
    return once.loc[~once["row_id"].isin(settled)].reset_index(drop=True)


def refuse_lost(config: Config, store: Store, planned: pd.DataFrame) -> None:
    """Raise FlowtailorError where renders were lost: no fault of the designs.

    Where the engine is another one than the run's rows were made on, the collection is no longer up to date.
    """
    lost = lost_rows(store, planned)
    if lost.empty:
        return
    rows = store.rows()
    failed = rows.loc[rows["row_id"].isin(lost["row_id"])]
    if (failed["error_type"] == "EngineChanged").any():
        forget(Run(config), "collect")
    raise FlowtailorError(
        f"{len(lost)} of {planned['row_id'].nunique()} renders were lost, no fault of the designs"
        f"{f' ({failed.error_message.iloc[0]})' if len(failed) else ''}; the same command tries them again"
    )
