"""Rows that were rendered elsewhere, for a collection to begin with.

A row takes seconds to render and less than 100 bytes to ship, so rows may come without their pictures.
Promises: only rows of the planned engine and catalog are taken over, planned or more to learn from, and none
that this dataset has. Their workflows are told in the words of this run's space, which may not be those that
they had where they were made. Their seconds are those of another machine: a few are rendered again here, and
the others' seconds are scaled by what that took. Where a scorer is younger than a row, the row comes without
its score, and is rendered where it was planned.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from flowtailor.errors import FlowtailorError

from ..datasets.rows import PLANNED, score_column, weighted_score
from ..datasets.shipped import pace, read_rows
from ..datasets.store import Store
from ..workflows.codec import canonical_words
from ..workflows.graph import Workflow
from ..workflows.space import OutOfSpace, Space
from .config import Config
from .renders import Render

WORLD = ("engine", "catalog_hash")
DRAWN_AGAIN = 16  # rows, to learn the pace of this machine


def lent_rows(config: Config, planned: pd.DataFrame, store: Store, space: Space) -> pd.DataFrame:
    """The rows of `collect.head_start` that belong to the planned ones' world, that the space holds and that
    the store has not.

    Raises FlowtailorError where no row has met one of the scorers.
    """
    if not config.collect.head_start:
        return planned.iloc[:0]
    rows = read_rows(config.collect.head_start)
    for scorer in config.scorers.weights:
        if score_column(scorer) not in rows.columns:
            raise FlowtailorError(
                f"collect.head_start = {config.collect.head_start}: its rows have no score of {scorer}; "
                'set collect.head_start to "", or take that scorer out of scorers.weights'
            )
    world = planned[list(WORLD)].iloc[0]
    same = (rows[list(WORLD)] == world).all(axis=1)
    if not same.any():
        print(
            f"head start: none of the {len(rows)} rows of {config.collect.head_start} is of this engine and "
            f"catalog ({', '.join(world)})",
            flush=True,
        )
    lent = in_words_of(space, _new_to(store, rows.loc[same], config.scorers.weights))
    if len(lent):
        print(f"head start: {len(lent)} rows come from {config.collect.head_start}, no pictures", flush=True)
    return lent


def in_words_of(space: Space, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows whose workflows the space holds, with its words for them."""

    def words(workflow: str) -> str | None:
        try:
            return " ".join(canonical_words(Workflow.loads(workflow), space))
        except OutOfSpace:
            return None

    flows = rows.drop_duplicates("workflow_key").set_index("workflow_key")["workflow"]
    tokens = rows["workflow_key"].map({key: words(workflow) for key, workflow in flows.items()})
    return rows.assign(tokens=tokens).loc[tokens.notna()].reset_index(drop=True)


def _new_to(store: Store, rows: pd.DataFrame, scorers: Iterable[str]) -> pd.DataFrame:
    """The rows that the store has not, or took over when a scorer was younger whose score they have now."""
    taken = store.settled().loc[lambda held: held["image"].isna()].set_index("row_id")
    newer = pd.Series(False, rows.index)
    for name in map(score_column, scorers):
        held = rows["row_id"].map(taken[name]) if name in taken else pd.Series(np.nan, rows.index)
        newer |= rows[name].notna() & held.isna()
    known, taken_over = rows["row_id"].isin(store.known_ids()), rows["row_id"].isin(taken.index)
    return rows.loc[~known | (taken_over & newer)]


def beside(missing: pd.DataFrame, lent: pd.DataFrame, weights: Mapping[str, float]) -> pd.DataFrame:
    """Those of the missing rows that are still to be rendered: no lent one brings every score."""
    whole = lent if lent.empty else lent.loc[~np.isnan(weighted_score(lent, weights))]
    return missing.loc[~missing["row_id"].isin(whole["row_id"])]


def take_over(config: Config, rows: pd.DataFrame, store: Store, render: Render) -> None:
    """Append lent rows to the store, in this machine's seconds.

    Raises FlowtailorError where none of them was ever rendered here.
    """
    if rows.empty or not config.collect.head_start:
        return
    again = to_draw_again(rows)
    if len(again):
        render(config, again[PLANNED], store)
    here = store.rows()
    # Those of earlier calls count too: the one row that is left may be one that times out each time.
    ratio = pace(here.loc[here["image"].notna()], read_rows(config.collect.head_start))
    if not np.isfinite(ratio):
        raise FlowtailorError(
            f"collect.head_start: none of {len(again)} rows could be rendered again, so their seconds cannot "
            'be told in those of this machine; see the engine\'s log, or set it to ""'
        )
    rest = rows.loc[~rows["row_id"].isin(again["row_id"])]
    store.append(rest.assign(seconds=rest["seconds"] * ratio, image=None, image_sha256=None))
    print(f"head start: this machine takes {ratio:.2f} times their seconds", flush=True)


def to_draw_again(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows that took from little to long, evenly: a machine may draw faster and yet load models slower."""
    drawn = rows.loc[rows["error_type"].isna()].sort_values(["seconds", "row_id"])
    places = np.linspace(0.05, 0.95, DRAWN_AGAIN) * (len(drawn) - 1)
    return drawn.iloc[np.unique(places.round().astype(int))] if len(drawn) else drawn
