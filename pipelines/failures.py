"""How a failure is told on the command line: what of it is the user's to mend, and in which words.

Promises: an error that crossed Ray's workers is told as the one it began with. It does not import Ray: its
errors are known by their names.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

from flowtailor.errors import FlowtailorError, told_in

LOST_WORKERS = ("ActorDiedError", "NodeDiedError", "OutOfMemoryError", "WorkerCrashedError")
NO_SPACE = "no space left on the disk; free some and repeat the command, what is finished stays"


def one_line(error: BaseException) -> str | None:
    """What to tell the user, or None for an error of the program that keeps its traceback."""
    for cause in _causes(error):
        if isinstance(cause, FlowtailorError):
            return str(cause)
        if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
            return NO_SPACE
        if type(cause).__module__.startswith("ray."):  # some of Ray's errors keep the cause as text only
            if (line := told_in(str(cause))) is not None:
                return line
            if "[Errno 28]" in str(cause):
                return NO_SPACE
            if type(cause).__name__ in LOST_WORKERS:
                reason = str(cause).strip().splitlines()[0]
                return f"a worker was lost ({reason}); repeat the command, what is finished stays"
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from; Ray keeps a worker's error in `cause`, or raises while it handles it.

    What else was raised while an error of ours was handled is a mistake of the program, and no cause.
    """
    seen: set[int] = set()
    queue: list[BaseException | None] = [error]
    while queue:
        current = queue.pop(0)
        if isinstance(current, BaseException) and id(current) not in seen:
            seen.add(id(current))
            queue += [getattr(current, "cause", None), current.__cause__]
            if type(current).__module__.startswith("ray."):
                queue.append(current.__context__)
            yield current
