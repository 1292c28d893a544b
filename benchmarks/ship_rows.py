"""Adds a run's rows to those that ship: scores and seconds, without the pictures.

    python benchmarks/ship_rows.py runs/studio         # writes datasets/data/studio.parquet
    python benchmarks/ship_rows.py runs/studio-study   # adds the study's

The rows of an unfinished collection are as good: who begins with them renders the rest. Seconds are those of
the run's machine; rows that shipped before and that the run has not are told in them too.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from flowtailor.datasets.shipped import SHIPPED, pace, read_rows, write_rows
from flowtailor.datasets.store import Store
from flowtailor.errors import FlowtailorError, told_in_one_line

FILE = SHIPPED / "studio.parquet"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="the folder of a run")
    run = parser.parse_args().run
    rows = Store(run / "dataset").rows()
    if rows.empty:
        raise FlowtailorError(f"{run}: has no rows; collect some with flowtailor collect")
    if FILE.exists():
        rows = joined(rows, read_rows(str(FILE)))
    write_rows(rows, FILE)
    print(f"{FILE}: {len(rows)} rows, {FILE.stat().st_size / 1e6:.1f} MB")


def joined(rows: pd.DataFrame, shipped: pd.DataFrame) -> pd.DataFrame:
    """All rows, the run's where both have one; the others' seconds scaled by what the shared ones took."""
    others = shipped.loc[~shipped["row_id"].isin(rows["row_id"])]
    ratio = pace(rows, shipped) if len(others) < len(shipped) else 1.0
    return pd.concat([rows, others.assign(seconds=others["seconds"] * ratio)], ignore_index=True)


if __name__ == "__main__":
    with told_in_one_line("ship"):
        main()
