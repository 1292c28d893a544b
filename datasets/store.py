"""The dataset on disk: Parquet part files of rows beside a folder of pictures.

Every `append` is one new part file that appears whole, so that a killed process loses only what
it had not appended. Reading joins the parts, keeps one row per id, and moves a part that cannot
be read aside instead of failing. Rows may lie under a path or under any URL that pyarrow knows
(`s3://`, `gs://`, `file://`).

One process appends at a time by convention; two would only add each other's rows twice, and
reading removes that.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from .rows import COLUMNS, score_columns, settled, to_table, unscored

logger = logging.getLogger("flowtailor.store")


class Store:
    """Rows and pictures of one dataset; nothing is created before the first `append`."""

    def __init__(self, url_or_path: str | Path) -> None:
        place = str(url_or_path)
        if "://" not in place:
            place = str(Path(place).resolve())  # since workers may stand in other folders
        self._fs, base = filesystem_of(place)
        self._rows = f"{base}/rows"
        self.images_dir = f"{place.rstrip('/')}/images"
        self._known_parts: list[str] | None = None  # those whose rows are in the frame
        self._frame = pd.DataFrame()

    def append(self, frame: pd.DataFrame) -> None:
        """Add rows as one part file; an empty frame adds nothing."""
        if len(frame):
            self._write(to_table(frame))

    def rows(self) -> pd.DataFrame:
        """All rows, one per id: the one that succeeded before one that failed, then the latest.

        Read again only when parts have come or gone, since a part never changes. A part that cannot be
        read is moved to `rows/corrupt/` and named in a warning; its rows count as not collected.
        """
        parts = self._parts()
        if parts != self._known_parts:
            try:
                whole = self._whole(parts)
            except FileNotFoundError:  # another process has compacted meanwhile
                parts = self._parts()
                whole = self._whole(parts)
            self._known_parts, self._frame = parts, _one_per_id(whole.to_pandas())
        return self._frame.copy(deep=False)  # pandas copies what the caller writes to

    def latest_engine(self) -> str:
        """The engine that made the latest row: new rows are comparable with those of the same one."""
        rows = self.settled()
        return str(rows.sort_values("created_at")["engine"].iloc[-1])

    def known_ids(self) -> set[str]:
        """Ids that need no render: those that were rendered, and those that would fail again."""
        return set(self.settled()["row_id"])

    def settled(self) -> pd.DataFrame:
        """The rows without failures of the moment."""
        return settled(self.rows())

    def missing(self, planned: pd.DataFrame, scorers: Iterable[str] = ()) -> pd.DataFrame:
        """The planned rows that are still to be rendered, in their order, each id once.

        A picture that one of `scorers` has not seen counts too: where the file is there, it is scored alone.
        """
        fresh = planned.drop_duplicates("row_id")
        rows = self.rows()
        known = self.known_ids() - set(rows.loc[unscored(rows, scorers), "row_id"])
        return fresh[~fresh["row_id"].isin(known)].reset_index(drop=True)

    def compact(self) -> None:
        """Join all parts into one. A crash on the way leaves rows twice, which reading removes."""
        parts = self._parts()
        if len(parts) > 1:
            whole = self._write(to_table(self.rows()))
            if isinstance(self._fs, pafs.LocalFileSystem):
                _force_to_disk(whole)  # before the only other copy goes
            for path in parts:
                if self._fs.get_file_info(path).type == pafs.FileType.File:
                    self._fs.delete_file(path)

    def _parts(self) -> list[str]:
        selector = pafs.FileSelector(self._rows, allow_not_found=True)
        infos = self._fs.get_file_info(selector)
        return sorted(
            info.path for info in infos if info.type == pafs.FileType.File and info.path.endswith(".parquet")
        )

    def _whole(self, parts: list[str]) -> pa.Table:
        """The rows of all parts."""
        tables = [table for path in parts if (table := self._read(path)) is not None]
        return pa.concat_tables(tables or [COLUMNS.empty_table()], promote_options="default")

    def _read(self, path: str) -> pa.Table | None:
        with self._fs.open_input_file(path) as file:
            content = file.read_buffer()  # what fails here is the disk or the network, not the file
        try:
            return pq.read_table(pa.BufferReader(content))
        except (pa.ArrowInvalid, OSError) as error:
            aside = f"{self._rows}/corrupt/{path.rsplit('/', 1)[-1]}"
            self._fs.create_dir(f"{self._rows}/corrupt", recursive=True)
            self._fs.move(path, aside)
            reason = str(error).splitlines()[0][:120]
            logger.warning("%s cannot be read (%s); moved to %s", path, reason, aside)
            return None

    def _write(self, table: pa.Table) -> str:
        """Write a part; returns its path."""
        self._fs.create_dir(self._rows, recursive=True)
        name = f"part-{uuid.uuid4().hex}"
        path = f"{self._rows}/{name}.parquet"
        temporary = f"{self._rows}/.{name}.tmp"  # object stores and file systems both: no half parts
        try:
            pq.write_table(table, temporary, filesystem=self._fs)
            self._fs.move(temporary, path)
        except BaseException:
            if self._fs.get_file_info(temporary).type == pafs.FileType.File:
                self._fs.delete_file(temporary)
            raise
        return path


def _force_to_disk(path: str) -> None:
    """Let no power cut take a local file's content, or its name in the folder."""
    for place in (path, Path(path).parent):
        descriptor = os.open(place, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def filesystem_of(place: str) -> tuple[pafs.FileSystem, str]:
    """The file system of a path, or of a URL that pyarrow or fsspec knows, and the path in it."""
    if "://" not in place:
        return pafs.LocalFileSystem(), str(Path(place).resolve())
    try:
        return pafs.FileSystem.from_uri(place)
    except pa.ArrowInvalid:  # a scheme that only fsspec knows
        import fsspec

        filesystem, base = fsspec.core.url_to_fs(place)
        return pafs.PyFileSystem(pafs.FSSpecHandler(filesystem)), base


def _one_per_id(frame: pd.DataFrame) -> pd.DataFrame:
    """The row of each id that counts, with the scores that only earlier rows of its picture have: of scorers
    that had no weight when it was scored again."""
    order = frame.assign(failed=frame["error_type"].notna()).sort_values(
        ["failed", "created_at"], ascending=[True, False], kind="stable"
    )
    kept = order.drop_duplicates("row_id").drop(columns="failed").set_index("row_id", drop=False)
    rendered = order[~order["failed"]]
    if rendered["row_id"].duplicated().any():
        scores = score_columns(frame.columns)
        kept = kept.fillna(rendered.groupby("row_id")[scores].first())
    return kept.sort_index(kind="stable").reset_index(drop=True)
