"""Freed memory stays at hand, for trainings on a CPU, which ask for as much again at once."""

from __future__ import annotations

import ctypes

_MIB = 2**20
# Options of glibc's mallopt by their numbers in malloc.h, with values in bytes.
_TRIM_THRESHOLD = (-1, 2**31 - 1)
_TOP_PAD = (-2, 64 * _MIB)
_MMAP_THRESHOLD = (-3, 32 * _MIB)  # the most that it takes


def keep_freed_memory() -> None:
    """Tell glibc not to hand large blocks back to the system; does nothing where there is no glibc.

    The tensors of a step are as large as those of the step before. Handed back and asked for again, they
    cost a page fault for every 4 KiB, on a virtual machine a fifth of the time of a step.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    for option, value in (_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD):
        mallopt(option, value)
