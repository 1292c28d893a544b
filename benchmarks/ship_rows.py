"""Makes a run's rows those that ship: scores and seconds, without the pictures.

    python benchmarks/ship_rows.py runs/studio       # writes datasets/data/studio.parquet

The rows of an unfinished collection are as good: who begins with them renders the rest.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from flowtailor.datasets.shipped import write_rows
from flowtailor.datasets.store import Store
from flowtailor.errors import FlowtailorError, told_in_one_line

DATA = Path(__file__).resolve().parent.parent / "datasets" / "data"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="the folder of a run")
    run = parser.parse_args().run
    rows = Store(run / "dataset").rows()
    if rows.empty:
        raise FlowtailorError(f"{run}: has no rows; collect some with flowtailor collect")
    file = DATA / f"{run.name}.parquet"
    write_rows(rows, file)
    print(f"{file}: {len(rows)} rows, {file.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    with told_in_one_line("ship"):
        main()
