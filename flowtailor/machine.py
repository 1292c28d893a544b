"""What is on this machine: which processes live, and which addresses lead to it alone."""

from __future__ import annotations

import os


def is_running(pid: int) -> bool:
    """Whether a process of this machine lives."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True
