"""`flowtailor run`: every stage in order, each skipped where it is up to date; refinement where rounds are
configured.

Interrupted, it goes on where it was: finished stages are skipped, the others keep what they had
finished.
"""

from __future__ import annotations

import importlib
import time

from flowtailor.errors import FlowtailorError

from .config import Config
from .newcomers import finish
from .stage import Run

STAGES = {
    "collect": "Collect: render and score workflows",
    "fit_reward": "Fit reward: learn to predict the scores",
    "sft": "SFT: learn to write workflows",
    "grpo": "GRPO: learn to write better ones",
    "refine": "Refine: render what the policy designs, and go on",
    "evaluate": "Evaluate: render held-out prompts with every method",
    "report": "Report",
}


def run_stage(config: Config, *, dry_run: bool = False) -> None:
    """Run all stages; ends by naming the report and what to do with the run."""
    run = Run(config)
    started = time.monotonic()
    if not dry_run:
        finish(config)
    stages = {name: title for name, title in STAGES.items() if name != "refine" or config.refine.rounds}
    for number, (name, title) in enumerate(stages.items(), start=1):
        print(f"\n[{number}/{len(stages)}] {title}  ({_clock(time.monotonic() - started)})", flush=True)
        try:
            importlib.import_module(f".{name}", __package__).run_stage(config, dry_run=dry_run)
        except FlowtailorError as error:
            if not dry_run or number == 1:
                raise
            print(f"{name}: what it would do depends on stages before it ({error})", flush=True)
    if not dry_run:
        run.open()  # with what no stage depends on, such as [serve] and [engine], as it is now
        print(closing(run, time.monotonic() - started), flush=True)


def closing(run: Run, seconds: float) -> str:
    """Where the report is, and the next commands."""
    return (
        f"\nDone in {_clock(seconds)}. The report: {run.path('report/index.html')}\n"
        "Next:\n"
        f'  flowtailor design "a red apple" --run {run.dir} -n 4 --render\n'
        f"  flowtailor serve --run {run.dir}"
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min"
