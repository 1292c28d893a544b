"""Images a second of `collect` against a bare loop over the client, on one and the same engine.

The same prompts and workflows both times, with other seeds so that the engine's cache is no help.
`collect` also scores and stores each picture. Its rate is given twice: over the later half of the job,
as in a long one, and from the call on, with Ray's actors starting.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import pandas as pd

from flowtailor.actors.client import ComfyClient
from flowtailor.actors.comfy import EngineConfig, engine
from flowtailor.datasets.store import Store
from flowtailor.markdown import markdown_table
from flowtailor.pipelines.catalog import survey
from flowtailor.pipelines.cluster import ensure_ray
from flowtailor.pipelines.collect import plan
from flowtailor.pipelines.config import Config
from flowtailor.pipelines.engines import render
from flowtailor.workflows.graph import Workflow


class TimedStore(Store):
    """Notes when each block arrives."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.arrived: list[tuple[float, int]] = []

    def append(self, frame: pd.DataFrame) -> None:
        super().append(frame)
        self.arrived.append((time.monotonic(), len(frame)))

    def running_rate(self) -> float:
        """Rows a second over the later half of the blocks: early ones waited for the scorer to start."""
        later = self.arrived[len(self.arrived) // 2 :]
        return sum(rows for _, rows in later[1:]) / (later[-1][0] - later[0][0])


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, default=96)
    count = arguments.parse_args().rows
    with engine(EngineConfig()) as client, tempfile.TemporaryDirectory() as folder:
        config = Config(engine=EngineConfig(kind="urls", urls=(client.base_url,)))
        rows = plan(config, survey(config, client)).head(count)
        ensure_ray(config)
        bare_loop(client, rows.head(8))  # the models are loaded before the clock starts
        # Half before and half after, so that other work on the machine touches both sides.
        others = rows.assign(seed=rows["seed"] + 1)
        bare_s = bare_loop(client, others.head(count // 2))
        store = TimedStore(Path(folder))
        started = time.monotonic()
        render(config, rows, store)
        whole = len(rows) / (time.monotonic() - started)
        bare_s += bare_loop(client, others.tail(len(rows) - count // 2))
        failed = int(store.rows()["error_type"].notna().sum())
    bare = len(rows) / bare_s
    rates = {"bare client loop": bare, "collect, running": store.running_rate(), "collect, with start": whole}
    print(f"{count} pictures on one studio engine, {failed} failed.\n")
    lines = [[name, f"{rate:.2f}", f"{rate / bare:.2f}"] for name, rate in rates.items()]
    print(markdown_table(["path", "images/s", "against the bare loop"], lines, "lr"))


def bare_loop(client: ComfyClient, rows: pd.DataFrame) -> float:
    """Seconds to render the rows one after the other."""
    started = time.monotonic()
    for row in rows.itertuples():
        client.render(Workflow.loads(str(row.workflow)).bind(str(row.prompt), int(str(row.seed))).to_api())
    return time.monotonic() - started


if __name__ == "__main__":
    main()
