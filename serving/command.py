"""`flowtailor serve`: the endpoint on this machine's Ray, until Ctrl-C.

A cluster is served with `serve deploy` and a config file instead (serving/serve.yaml).
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from pydantic import ValidationError

from flowtailor.errors import FlowtailorError, told_in
from flowtailor.machine import is_loopback, why_not_listen

from ..pipelines.cluster import ensure_ray
from ..pipelines.config import ReplicasConfig, ServeConfig
from .guard import TOKEN_VARIABLE, find_token
from .preflight import servable

APPLICATION = "flowtailor"


def serve(run_dir: str | Path, *, host: str | None = None, port: int | None = None) -> None:
    """Deploy the run's guided policy and block until a signal ends the process.

    `host` and `port` override the run's own `[serve]` section.
    Raises FlowtailorError before anything starts when the run is unfinished or of another version,
    the address is open to others without a token, or cannot be listened on; and when a replica, which
    loads the models, says so.
    """
    run = servable(run_dir)
    wanted = with_address(run.config.serve, host, port)
    token = find_token()
    check_address(wanted.host, wanted.port, token)

    ensure_ray(run.config)
    _deploy_and_wait(run.dir.resolve(), wanted, token)


def with_address(config: ServeConfig, host: str | None, port: int | None) -> ServeConfig:
    """The configuration with what is given of an address. Raises FlowtailorError where it breaks a rule."""
    given = {key: value for key, value in {"host": host, "port": port}.items() if value is not None}
    try:
        return ServeConfig.model_validate(config.model_dump() | given)
    except ValidationError as error:
        problem = error.errors()[0]
        key = problem["loc"][0]
        raise FlowtailorError(
            f"serve.{key} {problem['input']}: {problem['msg']}; choose another with --{key}"
        ) from None


def check_address(host: str, port: int, token: str | None) -> None:
    """Raises FlowtailorError when the address may not or cannot be bound."""
    if reason := why_not_listen(host, 0):  # whatever the port
        raise FlowtailorError(
            f"serve.host {host}: cannot listen there ({reason}); name an address of this machine with --host"
        )
    if not is_loopback(host) and not token:
        raise FlowtailorError(
            f"serve.host {host}: other machines could reach the endpoint, which needs a token; "
            f"set {TOKEN_VARIABLE}, or stay on 127.0.0.1"
        )
    if reason := why_not_listen(host, port):
        raise FlowtailorError(
            f"serve.port {port}: cannot listen on {host} ({reason}); choose another with --port"
        )


def url(host: str, port: int) -> str:
    """IPv6 addresses stand in brackets."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _deploy_and_wait(run_dir: Path, wanted: ServeConfig, token: str | None) -> None:
    from ray import serve as ray_serve
    from ray.serve.schema import LoggingConfig

    from .app import ServeArgs, build

    spread = wanted.model_dump(include=set(ReplicasConfig.model_fields))
    args = ServeArgs(run=str(run_dir), token=token, **spread)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    quiet = LoggingConfig(log_level="WARNING")
    try:
        ray_serve.start(
            proxy_location="HeadOnly",
            http_options={"host": wanted.host, "port": wanted.port},
            logging_config=quiet,
        )
        try:
            ray_serve.run(build(args), name=APPLICATION, route_prefix="/", logging_config=quiet)
        except RuntimeError as error:  # names the deployments that did not start, and not why
            if reason := told_in(_messages()):
                raise FlowtailorError(reason) from error
            raise
        address = url(wanted.host, wanted.port)
        print(f"serving {run_dir} at {address} (page /, schema /docs); Ctrl-C stops it", flush=True)
        threading.Event().wait()
    finally:
        ray_serve.delete(APPLICATION)  # alone: on a cluster, others may serve theirs


def _messages() -> str:
    """What Serve says of the application's deployments, tracebacks of their replicas included."""
    from ray import serve as ray_serve

    application = ray_serve.status().applications.get(APPLICATION)
    return "\n".join(one.message for one in application.deployments.values()) if application else ""
