"""Images a second of `collect` against a bare loop over the client, on one and the same engine.

The same prompts and workflows both times, with other seeds so that the engine's cache is no help.
`collect` also scores and stores each picture. Its rate is given twice: from the first finished block
to the last, as in a long job, and from the call on, with Ray's actors starting.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import pandas as pd

from flowtailor.actors.comfy import ComfyClient, EngineConfig, engine
from flowtailor.datasets.store import Store
from flowtailor.pipelines.catalog import survey
from flowtailor.pipelines.cluster import ensure_ray
from flowtailor.pipelines.collect import plan, render
from flowtailor.pipelines.config import Config
from flowtailor.workflows.graph import Workflow


class TimedStore(Store):
    """Notes when each block arrives."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.arrived: list[tuple[float, int]] = []

    def append(self, frame: pd.DataFrame) -> None:
        super().append(frame)
        self.arrived.append((time.monotonic(), len(frame)))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, default=48)
    count = arguments.parse_args().rows
    with engine(EngineConfig()) as client, tempfile.TemporaryDirectory() as folder:
        config = Config(engine=EngineConfig(kind="urls", urls=(client.base_url,)))
        rows = plan(config, survey(config, client)).head(count)
        ensure_ray(config)
        bare_loop(client, rows.head(8))  # the models are loaded before the clock starts
        bare = len(rows) / bare_loop(client, rows.assign(seed=rows["seed"] + 1))
        store = TimedStore(Path(folder))
        started = time.monotonic()
        render(config, rows, store)
        whole = len(rows) / (time.monotonic() - started)
        failed = int(store.rows()["error_type"].notna().sum())
    (first, size), (last, _) = store.arrived[0], store.arrived[-1]
    steady = (len(rows) - size) / (last - first)
    print(f"{count} pictures on one studio engine, {failed} failed.\n")
    print("| path | images/s | against the bare loop |\n| --- | ---: | ---: |")
    for name, rate in (
        ("bare client loop", bare),
        ("collect, running", steady),
        ("collect, with start", whole),
    ):
        print(f"| {name} | {rate:.2f} | {rate / bare:.2f} |")


def bare_loop(client: ComfyClient, rows: pd.DataFrame) -> float:
    """Seconds to render the rows one after the other."""
    started = time.monotonic()
    for row in rows.itertuples():
        client.render(Workflow.loads(str(row.workflow)).bind(str(row.prompt), int(str(row.seed))).to_api())
    return time.monotonic() - started


if __name__ == "__main__":
    main()
