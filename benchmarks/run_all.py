"""Run every benchmark beside this file and write its tables into docs/BENCHMARKS.md.

A benchmark is a script that prints Markdown; its docstring says what is compared. Ratios within one
run are what counts: absolute numbers belong to the machine named in the file.
"""

from __future__ import annotations

import ast
import os
import platform
import subprocess
import sys
from datetime import date
from pathlib import Path

HERE = Path(__file__).parent
REPORT = HERE.parent / "docs" / "BENCHMARKS.md"
INTRODUCTION = """# Benchmarks

Written by `make bench`; do not edit. Compare the ratios: both sides of each ran in one go, on
{machine}, on {day}.
"""


def main() -> None:
    machine = f"{os.cpu_count()} CPU cores ({platform.machine()}, Python {platform.python_version()})"
    sections = [INTRODUCTION.format(machine=machine, day=date.today().isoformat())]
    for script in sorted(HERE.glob("bench_*.py")):
        print(f"{script.stem} ...", flush=True)
        done = subprocess.run([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, check=True)
        print(done.stdout, flush=True)
        docstring = ast.get_docstring(ast.parse(script.read_text())) or script.stem
        title, _, details = docstring.partition("\n")
        sections.append(f"## {title.rstrip('.')}\n\n{details.strip()}\n\n{done.stdout.strip()}\n")
    REPORT.write_text("\n".join(sections))
    print(f"written: {REPORT.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
