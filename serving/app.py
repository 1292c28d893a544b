"""The Ray Serve application: an HTTP deployment in front of one that holds the models and one that draws.

The HTTP replica answers health checks while the models compute, and turns Serve's own failures
(full queue, replica lost) into `UnavailableError`. The model replica gathers the requests that arrive
within `batch_wait_s` into one call. The replica that draws owns an engine from the first picture on.
`build` is the entry point of Serve config files.

Annotations are evaluated here (no `from __future__`): Serve reads the type of `build`'s argument.
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from fastapi import FastAPI
from pydantic import Field
from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.config import BackpressureConfig
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from flowtailor.errors import FlowtailorError

from ..pipelines.config import ReplicasConfig
from .api import DesignRequest, DesignResponse
from .backend import UnavailableError
from .events import Event
from .guard import TOKEN_VARIABLE, find_token
from .routes import RETRY_AFTER_S, make_app

logger = logging.getLogger("ray.serve")
READY_TIMEOUT_S = 5.0
LATELY_S = 60.0
WAITING_TO_DRAW = 8  # requests; each of them may be for many pictures


class ServeArgs(ReplicasConfig):
    """What a Serve config file may say under `args`."""

    run: str = Field(default="runs/quickstart", description="run folder that holds policy/ and reward/")
    token: str | None = Field(
        default=None, description=f"None: {TOKEN_VARIABLE}, or only this machine may ask"
    )
    gpus_per_replica: float = Field(default=0.0, ge=0)


@contextmanager
def _told_in_the_log() -> Iterator[None]:
    """In a replica that starts: what Serve shows of an error is a traceback of tracebacks."""
    try:
        yield
    except FlowtailorError as error:
        logger.error("cannot start: %s", error)
        raise


@contextmanager
def _lost_replica_is_unavailable() -> Iterator[None]:
    try:
        yield
    except RayTaskError:  # a mistake in our code, not a lost replica: its traceback goes to the log
        raise
    except (RayServeException, RayError) as error:
        raise UnavailableError(_first_line(error)) from error


@serve.deployment(max_constructor_retry_count=3)
class Models:
    """One copy of policy and reward ensemble; computes one batch at a time in a thread."""

    def __init__(self, args: ServeArgs) -> None:
        from .preflight import servable

        with _told_in_the_log():
            servable(args.run)  # before torch, which takes seconds and which the other processes do without
            from .designs import Designs

            self._designs = Designs.load(args.run)
        batched: Any = self.design  # the decorator's own attributes are not in its type
        batched.set_max_batch_size(args.max_batch_size)
        batched.set_batch_wait_timeout_s(args.batch_wait_s)

    @serve.batch(max_concurrent_batches=1)
    async def design(self, requests: list[DesignRequest]) -> list[DesignResponse]:
        return await asyncio.to_thread(self._designs.answer, requests)

    async def check(self) -> None:
        """Answers once the models are loaded."""


@serve.deployment(max_constructor_retry_count=3)
class Engine:
    """Draws for one request at a time, on an engine of the run's kind."""

    _pictures: Any = None  # where the run could not be read

    def __init__(self, args: ServeArgs) -> None:
        from ..pipelines.trained import open_run
        from .pictures import Pictures

        with _told_in_the_log():
            self._pictures = Pictures(open_run(args.run).config.engine)

    async def draw(self, flows: list[dict[str, Any]]) -> AsyncGenerator[Event]:
        async for event in self._pictures.stream(flows):
            yield event

    def __del__(self) -> None:  # Serve calls it when the service stops
        if self._pictures:
            self._pictures.close()


@serve.deployment(max_constructor_retry_count=3)
@serve.ingress()
class Api:
    """The HTTP side: many requests wait here at little cost."""

    def __init__(self, models: DeploymentHandle, engine: DeploymentHandle, token: str | None) -> None:
        self._models = models
        self._engine = engine.options(stream=True)
        with _told_in_the_log():
            self._token = find_token(token)
        self._answered = -math.inf

    def __serve_build_asgi_app__(self) -> FastAPI:
        return make_app(self, self._token)

    async def design(self, request: DesignRequest) -> DesignResponse:
        with _lost_replica_is_unavailable():
            answer = await self._models.design.remote(request)
        self._answered = time.monotonic()
        return answer

    async def pictures(self, answer: DesignResponse) -> AsyncGenerator[Event]:
        drawing: Any = self._engine.draw.remote([design.workflow for design in answer.designs])
        with _lost_replica_is_unavailable():
            async for event in drawing:
                yield event

    async def check(self) -> None:
        await ready(self._models.check.remote(), time.monotonic() - self._answered)


async def ready(asked: Awaitable[Any], since_answer_s: float) -> None:
    """Raises UnavailableError where the models do not answer now and have made no design lately.

    What is asked waits among the requests, and a full queue is no illness: whoever sends requests where it is
    ready would take a busy endpoint away.
    """
    try:
        with _lost_replica_is_unavailable(), suppress(BackPressureError):
            await asyncio.wait_for(asked, READY_TIMEOUT_S)
    except TimeoutError as error:
        if since_answer_s > LATELY_S:
            raise UnavailableError(f"the models did not answer within {READY_TIMEOUT_S:g} s") from error


def build(args: ServeArgs) -> serve.Application:
    """`import_path: flowtailor.serving.app:build` of a Serve config file."""
    busy = BackpressureConfig(status_code=503, retry_after_s=RETRY_AFTER_S)
    inner = args.model_copy(update={"token": None})
    models = Models.options(
        num_replicas=args.replicas,
        # A batch in work and the next one waiting; what is above queues in the HTTP replica.
        max_ongoing_requests=2 * args.max_batch_size,
        max_queued_requests=args.max_queued_requests,
        ray_actor_options={"num_gpus": args.gpus_per_replica},
    ).bind(inner)
    engine = Engine.options(
        max_ongoing_requests=1,
        max_queued_requests=WAITING_TO_DRAW,
        ray_actor_options={"num_cpus": 0.1},  # it waits; a GPU for its engine is given in a config file
    ).bind(inner)
    capacity = args.max_queued_requests + 2 * args.max_batch_size * args.replicas
    api = Api.options(
        max_ongoing_requests=2 * capacity,  # above the models' capacity, so that they say 503, not we
        max_queued_requests=capacity,
        backpressure_config=busy,
        ray_actor_options={"num_cpus": 0.1},
    )
    return api.bind(models, engine, args.token)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
