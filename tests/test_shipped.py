"""Rows without pictures: what is written is read again, and what is no such file is refused."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from flowtailor.datasets.rows import COLUMNS
from flowtailor.datasets.shipped import read_rows, write_rows
from flowtailor.errors import FlowtailorError


def test_rows_are_written_without_pictures_and_failures_of_the_moment(tmp_path: Path):
    rows = pd.DataFrame(
        {
            "row_id": ["drawn", "failed", "lost"],
            "seconds": [0.5, None, None],
            "image": ["images/a.png", None, None],
            "score_alignment": [0.7, None, None],
            "error_type": [None, "ComfyExecutionError", "ComfyTimeout"],
        }
    )
    write_rows(rows, tmp_path / "rows.parquet")
    read = read_rows(str(tmp_path / "rows.parquet")).set_index("row_id")
    assert list(read.index) == ["drawn", "failed"]
    assert read.loc["drawn", ["seconds", "score_alignment"]].tolist() == [0.5, 0.7]
    assert read["image"].isna().all()


def test_what_holds_no_rows_is_refused(tmp_path: Path):
    with pytest.raises(FlowtailorError, match="no such file of rows"):
        read_rows("nowhere")
    text = tmp_path / "text.parquet"
    text.write_text("no Parquet")
    with pytest.raises(FlowtailorError, match="no Parquet file"):
        read_rows(str(text))
    other = tmp_path / "other.parquet"
    pd.DataFrame({name: [] for name in COLUMNS.names if name != "seed"}).to_parquet(other)
    with pytest.raises(FlowtailorError, match="lacks the column seed"):
        read_rows(str(other))
