"""The store: appends appear whole, one row per id, broken parts are moved aside."""

import os
from pathlib import Path

import pandas as pd
import pytest

from flowtailor.datasets.store import Store


def rows(*ids: str, error: str | None = None, at: str = "2026-01-01T00:00:00Z") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "row_id": list(ids),
            "prompt": "a red apple",
            "seed": 1,
            "seconds": 0.5,
            "error_type": error,
            "created_at": at,
        }
    )


@pytest.fixture(params=["path", "url"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(tmp_path / "data" if request.param == "path" else f"file://{tmp_path}/data")


def test_an_empty_store_has_no_rows(store: Store):
    assert store.rows().empty
    assert "row_id" in store.rows().columns
    assert store.known_ids() == set()


def test_rows_of_all_parts_come_back_once(store: Store):
    store.append(rows("a", "b"))
    store.append(rows("b", "c"))
    store.append(rows())
    assert list(store.rows()["row_id"]) == ["a", "b", "c"]


def test_rows_are_read_again_only_when_parts_have_come_or_gone(store: Store, monkeypatch: pytest.MonkeyPatch):
    store.append(rows("a"))
    mine = store.rows()
    mine["seconds"] = 9.0  # what a caller does to its frame is its own business
    monkeypatch.setattr("pyarrow.parquet.read_table", lambda *_: pytest.fail("read again"))
    assert list(store.rows()["seconds"]) == [0.5]
    monkeypatch.undo()
    store.append(rows("b"))
    assert list(store.rows()["row_id"]) == ["a", "b"]


def test_scores_that_only_some_parts_have_are_null_elsewhere(store: Store):
    store.append(rows("a"))
    store.append(rows("b").assign(score_alignment=0.75))
    scores = store.rows().set_index("row_id")["score_alignment"]
    assert scores.to_dict() == {"a": pytest.approx(float("nan"), nan_ok=True), "b": 0.75}


def test_a_success_stays_before_a_later_failure(store: Store):
    store.append(rows("a"))
    store.append(rows("a", error="ComfyTimeout", at="2026-01-02T00:00:00Z"))
    assert list(store.rows()["error_type"].dropna()) == []


def test_the_latest_engine_is_that_of_the_latest_row(store: Store):
    store.append(rows("a", at="2026-02-02").assign(engine="comfyui-0.3.75"))
    store.append(rows("b", at="2026-01-01").assign(engine="comfyui-0.3.64"))
    assert store.latest_engine() == "comfyui-0.3.75"


def test_missing_skips_what_is_there_and_what_would_fail_again(store: Store):
    store.append(rows("done"))
    store.append(rows("broken", error="ComfyExecutionError"))
    store.append(rows("slow", error="ComfyTimeout"))
    planned = pd.DataFrame({"row_id": ["new", "done", "broken", "slow", "new"]})
    assert list(store.missing(planned)["row_id"]) == ["new", "slow"]


def test_missing_is_what_a_scorer_has_not_seen(store: Store):
    store.append(rows("done"))
    store.append(rows("broken", error="ComfyExecutionError"))
    planned = pd.DataFrame({"row_id": ["done", "broken"]})
    assert list(store.missing(planned, ["beauty"])["row_id"]) == ["done"]
    store.append(rows("done", at="2026-01-02T00:00:00Z").assign(score_beauty=0.5))
    assert store.missing(planned, ["beauty"]).empty


def test_a_score_stays_when_the_picture_is_scored_by_others(store: Store):
    store.append(rows("a", "b").assign(score_sharpness=0.5, score_alignment=0.7))
    store.append(rows("a", at="2026-01-02T00:00:00Z").assign(score_sharpness=0.6, score_taste=0.1))
    store.append(rows("a", error="EngineDied", at="2026-01-03T00:00:00Z"))
    kept = store.rows()
    assert kept["score_sharpness"].tolist() == [0.6, 0.5]
    assert kept["score_alignment"].tolist() == [0.7, 0.7]
    assert kept["score_taste"].fillna(-1).tolist() == [0.1, -1]


def test_a_corrupt_part_is_moved_aside_and_named(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    store.append(rows("a"))
    store.append(rows("b"))
    damaged = sorted((tmp_path / "data" / "rows").glob("*.parquet"))[0]
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])
    assert len(store.rows()) == 1
    assert damaged.name in caplog.text
    assert (tmp_path / "data" / "rows" / "corrupt" / damaged.name).is_file()
    caplog.clear()
    assert len(store.rows()) == 1
    assert not caplog.text


def test_a_network_that_fails_condemns_no_part(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What pyarrow says of it has no error number."""
    store.append(rows("a"))

    class Away:
        def __getattr__(self, name: str):
            return getattr(store_fs, name)

        def open_input_file(self, path: str):
            raise OSError("AWS Error NETWORK_CONNECTION")

    store_fs, store._fs = store._fs, Away()  # type: ignore[assignment]
    with pytest.raises(OSError, match="NETWORK"):
        store.rows()
    store._fs = store_fs
    assert len(store.rows()) == 1


def test_an_unfinished_part_is_not_read(store: Store, tmp_path: Path):
    store.append(rows("a"))
    (tmp_path / "data" / "rows" / ".part-x.tmp").write_bytes(b"half")
    assert len(store.rows()) == 1


def test_compacting_keeps_every_row_in_one_part(store: Store, tmp_path: Path):
    for name in "abcd":
        store.append(rows(name))
    store.compact()
    assert len(list((tmp_path / "data" / "rows").glob("*.parquet"))) == 1
    assert list(store.rows()["row_id"]) == ["a", "b", "c", "d"]


def test_nothing_is_deleted_before_its_rows_are_on_the_disk_again(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in "abcd":
        store.append(rows(name))
    folder, forced = tmp_path / "data" / "rows", []

    def fsync(descriptor: int) -> None:
        assert len(list(folder.glob("*.parquet"))) == 5
        forced.append(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "fsync", fsync)
    store.compact()
    [whole] = folder.glob("*.parquet")
    assert forced == [whole.stat().st_ino, folder.stat().st_ino]


def test_rows_are_found_where_another_process_compacts_while_they_are_read(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store.append(rows("a"))
    store.append(rows("b"))
    listed = store._parts

    def overtaken() -> list[str]:
        parts = listed()
        Store(tmp_path / "data").compact()
        return parts

    monkeypatch.setattr(store, "_parts", overtaken)
    assert list(store.rows()["row_id"]) == ["a", "b"]


def test_a_folder_that_looks_like_a_partition_adds_no_column(tmp_path: Path):
    store = Store(tmp_path / "steps=3")
    store.append(rows("a"))
    assert "steps" not in store.rows().columns
