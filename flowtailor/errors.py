"""The one kind of error that is shown to people without a traceback."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class FlowtailorError(Exception):
    """A user's mistake or a broken world, told in one line: the value, the rule, the remedy.

    The command line prints it and exits with 2. Anything else that escapes is a programming
    error and keeps its traceback.
    """


@contextmanager
def told_in_one_line(program: str) -> Iterator[None]:
    """For scripts: end the program as the command line ends where the block raises a FlowtailorError."""
    try:
        yield
    except FlowtailorError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        sys.exit(2)


def told_in(text: str) -> str | None:
    """What the last FlowtailorError in a traceback says; some errors of Ray keep their cause as text only."""
    lines = re.findall(r"^flowtailor\.[\w.]+: (.+)$", text, re.MULTILINE)
    return lines[-1] if lines else None
