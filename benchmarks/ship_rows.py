"""Adds runs' rows to those that ship: scores and seconds, without the pictures.

    python benchmarks/ship_rows.py runs/studio                # writes datasets/data/studio.parquet
    python benchmarks/ship_rows.py runs/studio runs/studio-study --changed sharpness

The rows of an unfinished collection are as good: who begins with them renders the rest. Seconds are those of
the first run's machine; rows that it has not are told in them too, those of each hour apart: hours are of
several machines, and what else these had to do differs. What a changed scorer said of rows that no run has
is forgotten; the other scorers' word still counts.
"""

from __future__ import annotations

import argparse
from functools import reduce
from pathlib import Path

import numpy as np
import pandas as pd

from flowtailor.datasets.rows import RETRYABLE_ERRORS
from flowtailor.datasets.shipped import SHIPPED, read_rows, write_rows
from flowtailor.datasets.store import Store
from flowtailor.errors import FlowtailorError, told_in_one_line

FILE = SHIPPED / "studio.parquet"
ROUNDS = 30  # of medians; the hours' paces then stand still


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="the folder of a run")
    parser.add_argument("--changed", nargs="+", default=[], metavar="SCORER", help="that are new since")
    arguments = parser.parse_args()
    parts = [drawn(run) for run in arguments.runs]
    if FILE.exists():
        forgotten = {f"score_{name}": np.nan for name in arguments.changed}
        parts.append(read_rows(str(FILE)).assign(**forgotten))
    rows = reduce(joined, parts)
    write_rows(rows, FILE)
    print(f"{FILE}: {len(rows)} rows, {FILE.stat().st_size / 1e6:.1f} MB")


def drawn(run: Path) -> pd.DataFrame:
    """The rows that a run drew itself: those of a head start ship already."""
    rows = Store(run / "dataset").rows()
    failed = rows["error_type"].notna() & ~rows["error_type"].isin(list(RETRYABLE_ERRORS))
    rows = rows.loc[rows["image"].notna() | failed]
    if rows.empty:
        raise FlowtailorError(f"{run}: has drawn no rows; collect some with flowtailor collect")
    return rows


def joined(rows: pd.DataFrame, shipped: pd.DataFrame) -> pd.DataFrame:
    """All rows, the run's where both have one; the others' seconds in those of the run's machine."""
    others = shipped.loc[~shipped["row_id"].isin(rows["row_id"])]
    both = pd.concat([rows, others], ignore_index=True)
    hours = pd.concat([pd.Series("run", rows.index), others["created_at"].str[:13]], ignore_index=True)
    return both.assign(seconds=both["seconds"] / hours.map(paces(both, hours)))


def paces(rows: pd.DataFrame, hours: pd.Series) -> pd.Series:
    """How many of an hour's seconds make one of the run's, for each of `hours`.

    What workflow and hour have to do with the logarithm of a row's seconds, by turns of medians (Tukey's
    polish). Does not know the pace of an hour that shares no workflow with the run, nor by way of others.
    """
    log_r = rows["seconds"].map(np.log)
    of_hour = pd.Series(0.0, hours.unique())
    for _ in range(ROUNDS):
        of_workflow_r = (log_r - hours.map(of_hour)).groupby(rows["tokens"]).transform("median")
        of_hour = (log_r - of_workflow_r).groupby(hours).median().fillna(0.0)
    return (of_hour - of_hour["run"]).map(np.exp)


if __name__ == "__main__":
    with told_in_one_line("ship"):
        main()
