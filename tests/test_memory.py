"""Freed memory stays with the process."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
from flowtailor.memory import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
size = 2**23
b"x" * (2 * size)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    b"x" * size  # 8 MiB, freed at once
    b"x" * (2 * size)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator of glibc is what is told")
def test_what_is_as_large_as_the_one_before_costs_no_page_faults():
    def faults(how: str) -> int:
        return int(subprocess.check_output([sys.executable, "-c", FAULTS, how]))

    assert faults("kept") < 2000 < faults("given back")
