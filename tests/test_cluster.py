"""The files that start clusters say what Ray and KubeRay accept."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent


def load(path: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / path).read_text()))


def test_cluster_file_passes_rays_schema() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    (config,) = load("cluster.yaml")
    prepared = prepare_config(config)  # as `ray up` does: the provider's defaults filled in
    validate_config(prepared)
    assert prepared["available_node_types"]["gpu"]["resources"]["GPU"] == 1
    assert prepared["head_node_type"] in prepared["available_node_types"]


def test_a_misspelt_key_would_not_pass() -> None:
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import validate_config

    (config,) = load("cluster.yaml")
    with pytest.raises(ValidationError, match="max_worker"):
        validate_config(config | {"max_worker": 3})


def kuberay_cluster(path: str, kind: str) -> dict[str, Any]:
    """The RayCluster spec inside a KubeRay file, after a look at its envelope."""
    (resource,) = load(path)
    assert resource["apiVersion"] == "ray.io/v1"
    assert resource["kind"] == kind
    place = {"RayCluster": "spec", "RayJob": "rayClusterSpec", "RayService": "rayClusterConfig"}[kind]
    return resource["spec"] if place == "spec" else resource["spec"][place]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("deploy/raycluster.yaml", "RayCluster"),
        ("deploy/rayjob.yaml", "RayJob"),
        ("deploy/rayservice.yaml", "RayService"),
    ],
)
def test_kuberay_files_run_the_pinned_ray_and_share_the_runs(path: str, kind: str) -> None:
    import ray

    cluster = kuberay_cluster(path, kind)
    assert cluster["rayVersion"] == ray.__version__
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_the_job_names_a_verb_that_exists() -> None:
    from flowtailor.pipelines.cli import _parser

    (job,) = load("deploy/rayjob.yaml")
    words = shlex.split(job["spec"]["entrypoint"])
    assert words[:3] == ["python", "-m", "flowtailor"]
    assert _parser().parse_args(words[3:]).verb == "run"


def serve_config(path: str) -> dict[str, Any]:
    """The Serve config in a file, KubeRay's or a plain one, as Ray reads it: defaults filled in."""
    from ray.serve.schema import ServeDeploySchema

    (content,) = load(path)
    if "spec" in content:
        content = yaml.safe_load(content["spec"]["serveConfigV2"])
    return ServeDeploySchema.model_validate(content).model_dump()


def test_the_serve_files_differ_only_in_who_is_served_and_where_the_run_lies() -> None:
    from flowtailor.serving.app import ServeArgs

    configs = [serve_config(path) for path in ("serving/serve.yaml", "deploy/rayservice.yaml")]
    for config in configs:
        del config["proxy_location"], config["http_options"]["host"], config["http_options"]["port"]
        (application,) = config["applications"]
        assert application["import_path"] == "flowtailor.serving.app:build"
        args = ServeArgs.model_validate(application["args"])
        application["args"] = args.model_dump(exclude={"run"})
    assert configs[0] == configs[1]
