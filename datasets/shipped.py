"""Scored rows as one Parquet file without pictures: small enough to ship, enough to learn from.

`studio.parquet` holds those that ship with flowtailor, for the shipped configurations. Promises: what
was written is read again, but for the pictures. Does not know whether the models and scorers of today would
say the same: tests/test_shipped.py draws some of the rows again.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from flowtailor.errors import FlowtailorError
from flowtailor.files import written_whole

from .rows import COLUMNS, settled, to_table

SHIPPED = Path(__file__).parent / "data"


def rows_file(name: str) -> Path:
    """A Parquet file, or the one that ships under a bare name. Raises FlowtailorError where there is none."""
    file = next((path for path in (Path(name), SHIPPED / f"{name}.parquet") if path.is_file()), None)
    if file is None:
        ships = ", ".join(sorted(path.stem for path in SHIPPED.glob("*.parquet")))
        raise FlowtailorError(f"{name}: no such file of rows; give a Parquet file, or one of: {ships}")
    return file


def read_rows(name: str) -> pd.DataFrame:
    """The rows of a `rows_file`. Raises FlowtailorError where it holds something else, or is not there."""
    file = rows_file(name)
    try:
        table = pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        raise FlowtailorError(f"{file}: no Parquet file ({str(error).splitlines()[0]})") from None
    if missing := set(COLUMNS.names) - set(table.column_names):
        raise FlowtailorError(f"{file}: no rows of a dataset; it lacks the column {min(missing)}")
    return table.to_pandas()


def pace(here: pd.DataFrame, there: pd.DataFrame) -> float:
    """How many seconds of `here` make one of `there`: the median over rows of both, NaN without any."""
    shared = here.merge(there, on="row_id", suffixes=("", "_there"))
    return float((shared["seconds"] / shared["seconds_there"]).median())


def write_rows(rows: pd.DataFrame, file: Path) -> None:
    """Write the rows without their pictures, and without those that failed for the moment only."""
    told = settled(rows)
    table = to_table(told.assign(image=None, image_sha256=None))
    with written_whole(file) as new:
        pq.write_table(table, new, compression="zstd", compression_level=15)
