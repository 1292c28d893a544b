"""Rows: identity, splits, schema."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from flowtailor.datasets.rows import (
    COLUMNS,
    learnable,
    row_id,
    share,
    to_table,
    usable,
    weighted_score,
    workflow_split,
)
from flowtailor.errors import FlowtailorError


def test_row_id_depends_on_everything_that_determines_the_picture():
    base = ("comfyui-0.3.75", "abc", "a red apple", 1)
    changed = [("comfyui-0.30.0", *base[1:]), (base[0], "abd", *base[2:]), (*base[:2], "an apple", 1)]
    ids = {row_id(*parts) for parts in [base, *changed, (*base[:3], 2)]}
    assert len(ids) == 5
    assert row_id(*base) == row_id(*base)


def test_parts_of_a_row_id_cannot_run_into_each_other():
    assert row_id("e", "k1", "2 apples", 0) != row_id("e", "k", "12 apples", 0)


def test_share_is_uniform_and_stable():
    values = [share(f"prompt {i}", "salt") for i in range(2000)]
    assert 0.48 < sum(values) / len(values) < 0.52
    assert share("a red apple", "prompt") == pytest.approx(0.099254, abs=1e-6)


def test_workflow_split_holds_out_a_fifth():
    splits = [workflow_split(f"{i:016x}") for i in range(2000)]
    assert 0.17 < splits.count("test") / len(splits) < 0.23


def test_table_has_the_schema_the_scores_and_nulls():
    frame = pd.DataFrame(
        {"row_id": ["a", "b"], "seed": [1, 2**62], "score_alignment": [0.5, None], "scratch": [1, 2]}
    )
    table = to_table(frame)
    assert table.schema.names == [*COLUMNS.names, "score_alignment"]
    assert table["seed"].to_pylist() == [1, 2**62]
    assert table["score_alignment"].to_pylist() == [0.5, None]
    assert table["error_type"].null_count == 2


def test_weighted_score_normalises_weights_and_gives_failures_zero():
    rows = pd.DataFrame(
        {
            "score_alignment": [1.0, 0.5, np.nan, 0.5],
            "score_sharpness": [0.0, 0.5, np.nan, np.nan],  # it has not seen the last one
            "error_type": [None, None, "ComfyTimeout", None],
        }
    )
    expected = pytest.approx([0.75, 0.5, 0.0, np.nan], nan_ok=True)
    assert weighted_score(rows, {"alignment": 3.0, "sharpness": 1.0}) == expected


def test_a_row_that_one_scorer_has_not_seen_is_learnable_but_not_usable():
    rows = pd.DataFrame(
        {
            "row_id": ["whole", "part", "nothing", "failed", "instant"],
            "score_alignment": [0.5, 0.5, np.nan, np.nan, 0.5],
            "score_sharpness": [0.5, np.nan, np.nan, np.nan, 0.5],
            "error_type": [None, None, None, "ComfyTimeout", None],
            "seconds": [1.0, 1.0, 1.0, np.nan, 0.0],
        }
    )
    scorers = ["alignment", "sharpness"]
    assert list(learnable(rows, scorers)["row_id"]) == ["whole", "part"]
    assert list(usable(rows, scorers)["row_id"]) == ["whole"]
    with pytest.raises(FlowtailorError, match="no score_fidelity"):
        usable(rows, [*scorers, "fidelity"])


def test_table_refuses_a_value_that_does_not_fit():
    with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError)):
        to_table(pd.DataFrame({"row_id": ["a"], "seed": ["one"]}))
