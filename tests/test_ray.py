"""The Ray that commands run on: what workers are told."""

import json
import os
from pathlib import Path

import pytest

from flowtailor.errors import FlowtailorError
from flowtailor.pipelines.cluster import WORKER_ENVIRONMENT, ensure_ray
from flowtailor.pipelines.config_file import load_config


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict:
    """What `ray.init` is called with, instead of a Ray."""
    import ray

    options: dict = {}
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **given: options.update(given))
    for name in ("RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR", "PYTHONPATH"):
        monkeypatch.delenv(name, raising=False)
    return options


def test_a_ray_of_our_own_uses_this_machine_and_finds_the_code(seen: dict):
    ensure_ray(load_config(None))
    assert seen["address"] == "local"
    assert seen["num_cpus"] == os.cpu_count()
    assert seen["include_dashboard"] is False
    variables = seen["runtime_env"]["env_vars"]
    assert WORKER_ENVIRONMENT.items() <= variables.items()
    assert Path(variables["PYTHONPATH"], "flowtailor").is_dir()


def test_a_cluster_is_joined_with_its_own_resources_and_code(seen: dict, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    ensure_ray(load_config(None))
    assert seen["address"] == "10.0.0.1:6379"
    assert "num_cpus" not in seen
    assert "PYTHONPATH" not in seen["runtime_env"]["env_vars"]


def test_variables_that_the_job_sets_are_left_to_it(seen: dict, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    job = {"runtime_env": {"env_vars": {"OMP_NUM_THREADS": "4"}}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(job))
    ensure_ray(load_config(None))
    assert "OMP_NUM_THREADS" not in seen["runtime_env"]["env_vars"]


def test_a_job_keeps_its_runs_outside_of_its_temporary_folder(seen: dict, monkeypatch: pytest.MonkeyPatch):
    job = {"runtime_env": {"working_dir": "gcs://_ray_pkg_1.zip"}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(job))
    with pytest.raises(FlowtailorError, match=r"run.root = 'runs': lies in the job's temporary folder"):
        ensure_ray(load_config(None))
    ensure_ray(load_config(None, ["run.root=/mnt/shared/runs"]))


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("Could not find any running Ray instance."),
        ValueError("Invalid Ray address.\nIt is HTTP."),
    ],
)
def test_an_address_without_a_cluster_is_named(error: Exception, monkeypatch: pytest.MonkeyPatch):
    import ray

    def init(**given: object) -> None:
        raise error

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setenv("RAY_ADDRESS", "http://10.0.0.1:8265")
    with pytest.raises(FlowtailorError, match=r"^RAY_ADDRESS = http://10.0.0.1:8265: .*; name a running one"):
        ensure_ray(load_config(None))


def test_a_variable_of_the_configuration_stands_beside_ours(seen: dict):
    ensure_ray(load_config(None, ['ray.init.runtime_env.env_vars.MY_TOKEN="secret"']))
    variables = seen["runtime_env"]["env_vars"]
    assert variables["MY_TOKEN"] == "secret"
    assert WORKER_ENVIRONMENT.items() <= variables.items()


def test_the_configuration_has_the_last_word(seen: dict):
    ensure_ray(load_config(None, ["ray.init.num_cpus=1", 'ray.address="auto"']))
    assert seen["address"] == "auto"
    assert seen["num_cpus"] == 1
