"""The run folder and its stages: written whole or not at all, skipped when nothing changed.

A stage works in a temporary folder that is renamed to its place when it has finished, and then
leaves a record with the hash of its inputs in `stages/`. A stage whose record matches its inputs
and whose output is still there is skipped with one line. Folders that grow over several attempts
(the dataset) are not renamed; they use `record` alone. Where a process was killed between the two
renames that put one output in the place of another, the former one is brought back.

It does not know what the stages do, and it does not lock: two commands that write the same stage
of the same run at once will each write it whole, and the later one stays.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowtailor.errors import FlowtailorError
from flowtailor.files import written_whole
from flowtailor.machine import is_running

from ..datasets.prompts import labelled, load_prompts
from ..datasets.rows import score_columns
from ..datasets.store import Store
from .config import Config
from .provenance import fingerprint, provenance

if TYPE_CHECKING:
    import pandas as pd

ENGINE = "engine.json"  # in a run's folder: the name of the engine that it was asked of
# What a row tells beside its scores; its id stands for engine, workflow, prompt and seed.
TOLD = ("row_id", "category", "prompt_split", "workflow_split", "tokens", "seconds", "error_type")


class Run:
    """The folder `ROOT/NAME` of a run, made on first use."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.dir = Path(config.run.root) / config.run.name

    def path(self, relative: str) -> Path:
        """A path inside the run folder; nothing is created."""
        return self.dir / relative

    def within(self, folder: str) -> Run:
        """A run of the same configuration in a folder of this one."""
        place = self.path(folder)
        return Run(self.config.changed(run={"root": str(place.parent), "name": place.name}))

    @functools.cached_property
    def dataset(self) -> Store:
        """The rows and pictures that were collected."""
        return Store(self.path("dataset"))

    def engine(self) -> str:
        """The engine whose pictures the run is about: the one that was asked last what it has. A few rows
        of another one, whose collection was given up, have no say; where nothing but rows is there, the
        latest tells."""
        file = self.path(ENGINE)
        return json.loads(file.read_text())["engine"] if file.is_file() else self.dataset.latest_engine()

    def comparable_rows(self) -> pd.DataFrame:
        """Rows of the dataset that may be learned from together: those of the run's engine whose render has
        ended, with the splits and categories that the prompt file tells now, and its styles."""
        return labelled(self._of_the_engine(), load_prompts(self.config.prompts.file))

    def _of_the_engine(self) -> pd.DataFrame:
        rows = self.dataset.settled()
        return rows.loc[rows["engine"] == self.engine()].reset_index(drop=True) if len(rows) else rows

    def rows_hash(self) -> str:
        """Stands for the rows that stages learn from, in whatever files they lie.

        A render that failed for the moment is none of them: one that times out at each call must not make all
        that was learned out of date.
        """
        from pandas.util import hash_pandas_object

        rows = self._of_the_engine().sort_values("row_id")
        told = rows[[*TOLD, *sorted(score_columns(rows.columns))]]
        digest = hashlib.sha256(json.dumps(list(told.columns)).encode())
        digest.update(hash_pandas_object(told, index=False).to_numpy().tobytes())
        return digest.hexdigest()

    def open(self) -> Run:
        """Make the folder and write down the resolved configuration with versions and revision.

        Raises FlowtailorError where the folder cannot be made.
        """
        try:
            self.dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FlowtailorError(
                f"{self.dir}: cannot make the run folder ({error.strerror}); choose another run.root"
            ) from error
        resolved = {"config": self.config.model_dump(mode="json"), **provenance()}
        write_json(self.path("config.resolved.json"), resolved)
        return self


def is_done(run: Run, name: str, inputs: Mapping[str, Any], *, output: str | None = None) -> bool:
    """True, with one line said, when the stage ran with these inputs and its output is there."""
    place = run.path(output or name)
    bring_back(place)
    if not is_recorded(run, name, inputs) or not place.exists():
        return False
    print(f"{name}: up to date ({place})", flush=True)
    return True


def is_recorded(run: Run, name: str, inputs: Mapping[str, Any]) -> bool:
    """True when the stage ran with these inputs, whatever became of its output."""
    return read_record(run, name).get("inputs_hash") == fingerprint(inputs)


def read_record(run: Run, name: str) -> dict[str, Any]:
    """What the stage left when it had finished; nothing if it has not, or if that cannot be read."""
    try:
        return json.loads(_record_file(run, name).read_text())
    except (OSError, ValueError):
        return {}


@contextmanager
def stage_output(
    run: Run, name: str, inputs: Mapping[str, Any], *, output: str | None = None, by_config: bool = True
) -> Iterator[Path]:
    """Yield an empty folder; when the block ends well it becomes `run.dir/(output or name)`.

    When the block fails, the folder is removed and the former output stays as it was. `by_config`: the
    configuration has a say in it, and is noted as what the run is made with.
    """
    if by_config:
        run.open()
    inputs_hash = fingerprint(inputs)  # before the work: inputs may be files that change meanwhile
    place = run.path(output or name)
    place.parent.mkdir(parents=True, exist_ok=True)
    bring_back(place)
    _sweep(place)
    partial = place.with_name(f"{_partials_of(place)}{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    started = time.monotonic()
    try:
        yield partial
        _replace(partial, place)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _write_record(run, name, inputs_hash, place, time.monotonic() - started)


def bring_back(place: Path) -> None:
    """Where the output of a stage is missing, put the one there that `_replace` had only set aside."""
    old = _aside(place)
    if old.exists() and not place.exists():
        old.rename(place)


def record(run: Run, name: str, inputs: Mapping[str, Any], *, output: str, seconds: float) -> None:
    """Leave the record of a stage that wrote `output` in place by itself."""
    _write_record(run, name, fingerprint(inputs), run.path(output), seconds)


def forget(run: Run, name: str) -> None:
    """Drop the record of a stage, which will look again at what there is to do."""
    _record_file(run, name).unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON through a temporary name, so that a reader never sees half a file."""
    with written_whole(path) as new:
        new.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a log, one a line; none where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def _record_file(run: Run, name: str) -> Path:
    return run.path(f"stages/{name.replace('/', '-')}.json")


def _write_record(run: Run, name: str, inputs_hash: str, place: Path, seconds: float) -> None:
    finished = provenance()
    content = {
        "stage": name,
        "output": str(place.relative_to(run.dir)),
        "inputs_hash": inputs_hash,
        "seconds": round(seconds, 2),
        "finished_at": finished.pop("written_at"),
        **finished,
    }
    write_json(_record_file(run, name), content)


def _replace(new: Path, place: Path) -> None:
    """Put a folder in the place of another. A crash between the renames leaves the old one aside, from
    where `bring_back` takes it."""
    old = _aside(place)
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        place.rename(old)
    new.rename(place)
    shutil.rmtree(old, ignore_errors=True)


def _aside(place: Path) -> Path:
    return place.with_name(f".{place.name}.old")


def _partials_of(place: Path) -> str:
    """How the names of unfinished outputs begin, but for the process id: other machines have theirs."""
    return f".{place.name}.partial-{platform.node()}-"


def _sweep(place: Path) -> None:
    """Remove what processes of this machine left half done when they were killed."""
    start = _partials_of(place)
    for left in [path for path in place.parent.iterdir() if path.name.startswith(start)]:
        pid = left.name.removeprefix(start)
        if pid.isdecimal() and not is_running(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
