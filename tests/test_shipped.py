"""Rows without pictures: what is written is read again, no other file is, and what ships is true."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from score_again import plans
from ship_rows import joined

from flowtailor.actors.client import ComfyClient
from flowtailor.actors.comfy import EngineConfig
from flowtailor.actors.renderer import Renderer
from flowtailor.actors.scorers import Scorers
from flowtailor.datasets.rows import COLUMNS, score_column, usable
from flowtailor.datasets.shipped import SHIPPED, read_rows, write_rows
from flowtailor.datasets.store import Store
from flowtailor.errors import FlowtailorError
from flowtailor.pipelines.catalog import World
from flowtailor.pipelines.config import Config
from flowtailor.pipelines.config_file import load_config
from flowtailor.pipelines.head_start import in_words_of, lent_rows, take_over
from flowtailor.workflows.catalog import Catalog
from flowtailor.workflows.codec import decode
from flowtailor.workflows.space import STUDIO_SPACE, Space

SCORES = [score_column(name) for name in Config().scorers.weights]


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
    assert read[["seconds", "score_alignment"]].to_numpy()[0].tolist() == [0.5, 0.7]
    assert read["image"].isna().all()


def test_what_holds_no_rows_is_refused(tmp_path: Path):
    with pytest.raises(FlowtailorError, match="no such file of rows"):
        read_rows("nowhere")
    text = tmp_path / "text.parquet"
    text.write_text("no Parquet")
    with pytest.raises(FlowtailorError, match="no Parquet file"):
        read_rows(str(text))
    whole = bytearray((SHIPPED / "studio.parquet").read_bytes())
    whole[100_000:100_200] = bytes(200)
    damaged = tmp_path / "damaged.parquet"
    damaged.write_bytes(whole)
    with pytest.raises(FlowtailorError, match="no Parquet file"):
        read_rows(str(damaged))
    other = tmp_path / "other.parquet"
    pd.DataFrame({name: [] for name in COLUMNS.names if name != "seed"}).to_parquet(other)
    with pytest.raises(FlowtailorError, match="lacks the column seed"):
        read_rows(str(other))


def test_rows_of_several_machines_ship_together_in_seconds_of_the_run():
    """Two seconds of the first hour and four of the second are one of the run, whoever drew what."""

    def drawn(hour: str, seconds: dict[str, float]) -> pd.DataFrame:
        ids = [f"{hour} {flow}" for flow in seconds]
        return pd.DataFrame({"row_id": ids, "tokens": [*seconds], "seconds": [*seconds.values()]}).assign(
            created_at=f"2026-01-01T{hour}:30:00"
        )

    run = drawn("09", {"a": 1.0, "b": 0.5, "c": 0.2})
    earlier = [drawn("01", {"a": 2.0, "b": 1.0, "d": 3.0}), drawn("02", {"c": 0.8, "d": 6.0, "e": 4.0})]
    again = run.head(1).assign(seconds=7.0)  # shipped before: the run's own counts
    told = joined(run, pd.concat([again, *earlier])).groupby("tokens")["seconds"].agg(["min", "max"])
    expected = pd.DataFrame({"min": [1.0, 0.5, 0.2, 1.5, 1.0]}, index=pd.Index([*"abcde"], name="tokens"))
    pd.testing.assert_frame_equal(told, expected.assign(max=expected["min"]))


def test_what_a_scorer_has_not_seen_is_drawn_again_held_out_prompts_first(
    catalog_0375: Catalog, space: Space
):
    splits = [("train", "train"), ("train", "test"), ("validation", "train"), ("test", "test")]
    rows = pd.DataFrame(
        {
            "row_id": [f"{place}{name}" for place in range(4) for name in "ab"],
            "prompt": [f"prompt {place}" for place in range(4) for _ in "ab"],
            "prompt_split": [prompt for prompt, _ in splits for _ in "ab"],
            "workflow_split": [workflow for _, workflow in splits for _ in "ab"],
            "engine": "engine",
            "catalog_hash": catalog_0375.hash,
            "error_type": None,
        }
    ).reindex(columns=[*COLUMNS.names, *SCORES])
    seen = rows.assign(row_id="seen", score_sharpness=1.0, score_alignment=1.0, score_fidelity=1.0).head(1)
    failed = rows.assign(row_id="failed", error_type="ComfyExecutionError").head(1)
    elsewhere = rows.assign(row_id="elsewhere", engine="another").head(1)
    world = World("engine", catalog_0375, space)
    found = plans(pd.concat([rows, seen, failed, elsewhere]), Config(), world)
    assert found["row_id"].tolist() == ["2a", "3a", "2b", "3b", "0a", "1a", "0b", "1b"]


def test_a_machine_that_was_slow_for_a_while_and_an_engine_that_read_a_checkpoint_do_not_show():
    """Six workflows of 1, 2, 3, 4, 5, 6 s, drawn in turn; the second sixty rows took twice as long."""
    usual = np.tile(np.arange(1.0, 7.0), 30)
    took = usual * np.repeat([1.0, 2.0, 1.0], 60)
    took[150] += 3.0  # a workflow of 1 s
    run = pd.DataFrame({"row_id": np.arange(180).astype(str), "tokens": usual.astype(str), "seconds": took})
    run["created_at"] = [f"2026-01-01T09:{i // 60:02}:{i % 60:02}" for i in range(180)]
    assert list(joined(run, run.head(0))["seconds"]) == pytest.approx(list(usual))


def test_what_a_workflow_takes_that_was_drawn_by_itself_is_told_by_the_few_rows_among_others():
    """The second workflow's sixty rows were drawn while the machine was twice as slow, two others later."""
    usual = np.repeat([1.0, 2.0, 1.0, 2.0], [60, 60, 58, 2])
    took = usual * np.repeat([1.0, 2.0, 1.0], [60, 60, 60])
    run = pd.DataFrame({"row_id": np.arange(180).astype(str), "tokens": usual.astype(str), "seconds": took})
    run["created_at"] = [f"2026-01-01T09:{i // 60:02}:{i % 60:02}" for i in range(180)]
    assert list(joined(run, run.head(0))["seconds"]) == pytest.approx(list(usual))


@pytest.mark.engine
def test_the_studio_draws_the_shipped_rows_as_they_were(comfy: ComfyClient, tmp_path: Path):
    """With the models and the scorers that ship; other machines round otherwise.

    Samplers that draw noise as they go draw other noise on a GPU, where many of the rows come from.
    """
    rows = usable(read_rows("studio"), Config().scorers.weights)
    random = rows["tokens"].str.contains("ancestral|sde|lcm|ddpm")
    rows = rows.loc[~random].sort_values("seconds")
    rows = rows.iloc[:: len(rows) // 6].head(6)
    images = str(tmp_path / "images")
    renderer = Renderer(EngineConfig(kind="urls", urls=(comfy.base_url,)), images)
    drawn = renderer(rows.drop(columns="engine"))  # a server cannot tell which weights it has
    scored = Scorers(tuple(Config().scorers.weights), images)(drawn)
    assert scored["error_type"].isna().all()
    for scorer in Config().scorers.weights:
        now, then = scored[f"score_{scorer}"], rows[f"score_{scorer}"]
        assert list(now) == pytest.approx(list(then), abs=0.05), scorer


def test_rows_are_told_in_the_words_of_the_space_that_they_come_to(space: Space, tmp_path: Path):
    """A default is left out, whatever it is; a workflow that the space does not hold stays away."""
    rows = read_rows("studio").drop_duplicates("workflow_key").head(60).reset_index(drop=True)
    assert in_words_of(space, rows)["tokens"].tolist() == rows["tokens"].tolist()
    edited = tmp_path / "space.toml"
    text, times = re.subn(r"(?m)^steps = \[8, ", "steps = [", STUDIO_SPACE.read_text())
    assert times
    edited.write_text(text)
    other = Space.load(edited, space.catalog)
    told = in_words_of(other, rows)
    assert 0 < len(told) < len(rows)  # those of 8 steps are left out
    made = rows.set_index("row_id").loc[told["row_id"], "tokens"]
    for before, after in zip(made, told["tokens"], strict=True):
        assert decode(after.split(), other) == decode(before.split(), space)


def test_rows_of_another_engine_are_left_where_they_are_and_it_says_so(
    tmp_path: Path, space: Space, capsys: pytest.CaptureFixture[str]
):
    config = load_config(None, ["collect.head_start='studio'"])
    planned = read_rows("studio").iloc[:3].assign(engine="comfyui-0.1")
    assert lent_rows(config, planned, Store(tmp_path / "dataset"), space).empty
    assert "none of the" in (told := capsys.readouterr().out)
    assert "is of this engine and catalog (comfyui-0.1, " in told


def test_rows_that_were_taken_over_are_lent_again_where_a_scorer_has_seen_them_since(
    tmp_path: Path, space: Space
):
    lent = usable(read_rows("studio"), Config().scorers.weights).iloc[:3]
    write_rows(lent, tmp_path / "lent.parquet")
    config = load_config(None, [f"collect.head_start={str(tmp_path / 'lent.parquet')!r}"])
    store = Store(tmp_path / "dataset")
    store.append(lent.assign(score_sharpness=[np.nan, np.nan, 0.5]).iloc[1:])
    assert list(lent_rows(config, lent, store, space)["row_id"]) == list(lent["row_id"].iloc[:2])
    store.append(lent)
    assert lent_rows(config, lent, store, space).empty


def test_a_row_that_times_out_each_time_does_not_stop_a_collection(tmp_path: Path, space: Space):
    """What earlier calls drew says how fast the machine is."""
    lent = read_rows("studio").iloc[:3]
    write_rows(lent, tmp_path / "lent.parquet")
    config = load_config(None, [f"collect.head_start={str(tmp_path / 'lent.parquet')!r}"])
    store, late = Store(tmp_path / "dataset"), lent["row_id"].iloc[2]

    def render(_: Config, rows: pd.DataFrame, store: Store) -> None:
        seconds = lent.set_index("row_id").loc[rows["row_id"], "seconds"].to_numpy() * 2
        drawn = rows.assign(seconds=seconds, image="images/a.png", error_type=None)
        timed_out = {"seconds": None, "image": None, "error_type": "ComfyTimeout"}
        drawn.loc[rows["row_id"] == late, list(timed_out)] = list(timed_out.values())
        store.append(drawn)

    for left in (3, 1):
        rows = lent_rows(config, lent, store, space)
        assert len(rows) == left
        take_over(config, rows, store, render)
    assert store.known_ids() == set(lent["row_id"].iloc[:2])
