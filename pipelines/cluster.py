"""The Ray that a command runs on: the cluster it was sent to, or one of its own on this machine.

A local Ray lives as long as the command. On a cluster the code comes with the job's working
directory; on this machine the workers are told where it lies, so that a checkout, an editable
install and a wheel behave alike.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowtailor.errors import FlowtailorError

from .config import Config
from .quiet import HOOK as QUIETEN

if TYPE_CHECKING:  # Ray, seconds of import
    from ray.train import RunConfig

# Each worker computes with one thread: Ray runs one process per core, and two-thread processes
# side by side on a busy machine wait for each other.
WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
# Read by Ray itself, in the driver and in what it starts, so they are set before it is imported.
RAY_ENVIRONMENT = {
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # the patched print puts bytecode into logs
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_LOG_LEVEL": "CRITICAL",  # it prints plans and the tracebacks that it raises as well
}
RETRIES = 3  # of a training whose worker died


def training_run(name: str, storage: Path) -> RunConfig:
    """How Ray Train keeps a training: under `storage/name`, resumed there by a process of the same name."""
    from ray.train import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig

    return RunConfig(
        name=name,
        storage_path=str(storage),
        failure_config=FailureConfig(max_failures=RETRIES),
        checkpoint_config=CheckpointConfig(num_to_keep=2),
        logging_config=LoggingConfig(log_level="WARNING"),
    )


def ensure_ray(config: Config) -> None:
    """Connect to Ray once per process; a second call does nothing.

    `ray.address` of the config or RAY_ADDRESS (set by `ray job submit`) name a cluster; without
    them a Ray is started here, without a dashboard, closed to others by a token. Raises FlowtailorError where
    the cluster cannot be joined, or would lose what the job writes.
    """
    for name, value in RAY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    address = cluster_address(config)
    import ray

    if ray.is_initialized():
        return
    _keep_outside_of_the_job(config.run.root)
    logging.getLogger("ray").setLevel(logging.WARNING)
    # It tells at each start that token authentication is on, which is what we want.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    workers: dict[str, Any] = {"env_vars": _worker_environment(local=address is None)}
    options: dict[str, Any] = {"logging_level": logging.WARNING, "runtime_env": workers}
    if address is None:
        options |= {"num_cpus": os.cpu_count(), "include_dashboard": False}
        workers["worker_process_setup_hook"] = QUIETEN
    try:
        # "local": None would join whatever cluster was last started on this machine.
        ray.init(address=address or "local", **merged(options, config.ray.init))
    except (ConnectionError, ValueError) as error:
        if address is None:
            raise
        source, reason = "ray.address" if config.ray.address else "RAY_ADDRESS", str(error).partition("\n")[0]
        raise FlowtailorError(
            f"{source} = {address}: no cluster could be joined ({reason}); name a running one, as HOST:6379"
        ) from error


def _keep_outside_of_the_job(root: str) -> None:
    """A job's own folder is a copy on each node, which Ray removes."""
    if str(_job_runtime_env().get("working_dir", "")).startswith("gcs://") and not Path(root).is_absolute():
        raise FlowtailorError(
            f"run.root = {root!r}: lies in the job's temporary folder; name one that every node sees, as in "
            "--set run.root=/mnt/shared/runs"
        )


def merged(ours: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Options with those that a person gave, which win; tables in them are merged likewise."""
    both = {**ours, **given}
    for name in ours.keys() & given.keys():
        if isinstance(ours[name], Mapping) and isinstance(given[name], Mapping):
            both[name] = merged(ours[name], given[name])
    return both


def cluster_address(config: Config) -> str | None:
    """The cluster to join; None where a Ray of our own is started."""
    return config.ray.address or os.environ.get("RAY_ADDRESS")


def share_of(units: float, actors: int) -> float:
    """What each of some actors may ask for where there are `units` cores or GPUs: at most a whole one.

    In hundredths and rounded down, so that all fit, each on one unit: three actors on two GPUs get half a
    GPU each, for two thirds would leave no place for the third.
    """
    whole = math.floor(units)
    each = 1 / math.ceil(actors / whole) if whole else units / actors
    return math.floor(100 * each) / 100


def _worker_environment(*, local: bool) -> dict[str, str]:
    """Environment of the workers, less what the submitted job sets itself: Ray refuses both."""
    environment = dict(WORKER_ENVIRONMENT)
    if local:
        root = Path(__file__).resolve().parent.parent
        if (root / "flowtailor").is_dir():  # a checkout; a wheel is on the path already
            existing = os.environ.get("PYTHONPATH")
            environment["PYTHONPATH"] = f"{root}{os.pathsep}{existing}" if existing else str(root)
    taken = _job_runtime_env().get("env_vars") or {}
    return {name: value for name, value in environment.items() if name not in taken}


def _job_runtime_env() -> dict[str, Any]:
    """The runtime environment of the submitted job that runs this process."""
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    return job.get("runtime_env") or {}
