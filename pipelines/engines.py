"""Renders and scores rows: on all engines of the cluster, or on one of this process.

Ray Data streams blocks of rows through engines (`Renderer`) and scorers to this process, which appends each
finished block to the store. A failed render is a row with an error.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pandas as pd
from tqdm import tqdm

from flowtailor.errors import FlowtailorError

from ..datasets.store import Store
from .cluster import cluster_address, ensure_ray, share_of
from .config import Config

RETRIES = 2  # of a block, on a cluster


def render(config: Config, missing: pd.DataFrame, store: Store, *, label: str = "collect") -> None:
    """Render and score rows with Ray Data; each finished block is appended to the store at once."""
    ensure_ray(config)
    import ray
    from ray.data import ActorPoolStrategy, DataContext
    from ray.util.annotations import RayDeprecationWarning

    from ..actors.renderer import Renderer
    from ..actors.scorers import Scorers

    DataContext.get_current().enable_progress_bars = False
    rows = config.collect.rows_per_block
    renderer, scorer = _actors(config, ray.cluster_resources())
    with warnings.catch_warnings():
        # Capping restarts is deprecated, but Ray has no other way yet; its version is pinned.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        # Blocks finish one by one, and a crash loses at most one per engine.
        rendered = ray.data.from_blocks(list(_blocks(missing, rows))).map_batches(
            Renderer,
            fn_constructor_kwargs={
                "engine": config.engine,
                "images_dir": store.images_dir,
                "first_server": partial(_next, ray.remote(_Turns).options(num_cpus=0).remote()),
            },
            compute=ActorPoolStrategy(size=config.engine.count),
            **renderer,
        )
        scored = rendered.map_batches(
            Scorers,
            fn_constructor_kwargs={"names": tuple(config.scorers.weights), "images_dir": store.images_dir},
            compute=ActorPoolStrategy(size=1),
            **scorer,
        )
    failed = 0
    with tqdm(total=len(missing), desc=label, unit="image", file=sys.stderr) as bar:
        for block in scored.iter_batches(batch_size=None, batch_format="pandas", prefetch_batches=0):
            frame = _dated(pd.DataFrame(block))
            store.append(frame)
            failed += int(frame["error_type"].notna().sum())
            bar.set_postfix(failed=failed, refresh=False)
            bar.update(len(frame))


class _Turns:
    """An actor that counts: renderers share a constructor, and each takes another server to begin with."""

    def __init__(self) -> None:
        self._given = -1

    def next(self) -> int:
        self._given += 1
        return self._given


def _next(turns: Any) -> int:
    import ray

    return ray.get(turns.next.remote())


def render_here(config: Config, missing: pd.DataFrame, store: Store) -> None:
    """Render and score rows in this process, on an engine that is started for them."""
    from ..actors.renderer import Renderer
    from ..actors.scorers import Scorers

    renderer = Renderer(config.engine, store.images_dir)
    try:
        rendered = renderer(missing)
    finally:
        renderer.close()
    scored = Scorers(tuple(config.scorers.weights), store.images_dir)(rendered)
    store.append(_dated(scored))


def _dated(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(created_at=datetime.now(UTC).isoformat(timespec="seconds"))


def _actors(config: Config, cluster: Mapping[str, float]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of `map_batches` for renderers and for the scorers.

    Each actor has a core, or an equal share where there are fewer cores, because Ray Data waits for
    ever for actors that do not fit. Engines that draw on GPUs share them equally likewise: what a small
    model leaves idle, another engine's pictures fill.

    On a cluster a lost actor is started again, but a block that takes its actor down each time must
    not loop. On this machine the command ends instead and is repeated by hand: engines that die are
    replaced by their renderer, so it is the machine that is in trouble.
    """
    engine = config.engine
    if engine.kind == "studio" and engine.gpu and cluster_address(config) and not cluster.get("GPU"):
        raise FlowtailorError(
            "engine.gpu = true: the cluster has no GPU yet; wait until `ray status` shows it, or set false"
        )
    draws_on_gpu = engine.kind == "checkout" or (engine.kind == "studio" and engine.gpu)
    common = {
        "batch_size": config.collect.rows_per_block,  # a whole block
        "batch_format": "pandas",
        "num_cpus": share_of(cluster.get("CPU", 1), engine.count + 1),
        **({"max_task_retries": RETRIES} if cluster_address(config) else {"max_restarts": 0}),
    }
    return common | {"num_gpus": share_of(cluster.get("GPU", 0), engine.count) if draws_on_gpu else 0}, common


def _blocks(frame: pd.DataFrame, rows: int) -> Iterator[pd.DataFrame]:
    for start in range(0, len(frame), rows):
        yield frame.iloc[start : start + rows].reset_index(drop=True)
