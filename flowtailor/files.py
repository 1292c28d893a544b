"""Where downloads lie, files that are there whole or not at all, and locks between processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def downloads() -> Path:
    """The folder where flowtailor keeps what it downloads."""
    return Path(os.environ.get("FLOWTAILOR_HOME") or Path.home() / ".cache" / "flowtailor")


@contextmanager
def one_at_a_time(lock: Path) -> Iterator[None]:
    """Lets one process in; the kernel frees the lock of a process that dies."""
    import fcntl  # POSIX only, and needed only when something is to be installed

    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A place to write to, with the same suffix, which becomes `path` when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield new
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
