"""What operators see of the endpoint: requests, queues, designs and pictures, as Prometheus reads them.

Promises: labels take few values whatever clients send, a route never a path. Knows what passed through
this process since it started: neither other replicas, nor what Ray Serve refused in front of them.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .api import DesignRequest, DesignResponse
from .backend import Backend
from .events import Event, Failure, Picture

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)  # histograms' bounds


class Metrics:
    """The series, in a registry of their own: other libraries fill the global one."""

    def __init__(self) -> None:
        self._registry = known = CollectorRegistry()
        ProcessCollector(registry=known)
        seconds = partial(Histogram, buckets=SECONDS, registry=known)
        self.requests = Counter(
            "flowtailor_requests",
            "Requests by route and status; cancelled: the client left before the answer began",
            ["route", "status"],
            registry=known,
        )
        self.request_seconds = seconds(
            "flowtailor_request_seconds",
            "From a request to the end of its answer, streams of pictures included",
            ["route"],
        )
        self.design_seconds = seconds(
            "flowtailor_design_seconds", "From a request to its designs, the wait for the models included"
        )
        self.designs = Counter("flowtailor_designs", "Designs made", registry=known)
        self.picture_seconds = seconds("flowtailor_picture_seconds", "That the engine spent on a picture")
        self.drawn = Counter("flowtailor_pictures_drawn", "Pictures drawn", registry=known)
        self.failed = Counter(
            "flowtailor_pictures_failed", "Designs that were not drawn, by error", ["error"], registry=known
        )
        queue = Gauge(
            "flowtailor_queue_depth",
            "Requests that wait for designs or are in work (models), that wait for their turn to be drawn"
            " (engine)",
            ["queue"],
            registry=known,
        )
        self.models_queue, self.engine_queue = queue.labels("models"), queue.labels("engine")
        self.drawing = Gauge("flowtailor_requests_drawing", "Requests that are being drawn", registry=known)

    def text(self) -> bytes:
        return generate_latest(self._registry)


class CountRequests:
    """ASGI middleware. It sees what is sent, so that a stream lasts until its end."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        status, began = "", time.perf_counter()

        async def noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, noting_status)
        except Exception:
            status = status or "500"
            raise
        finally:
            route = getattr(scope.get("route"), "path", "other")  # the router has put it there
            self._metrics.requests.labels(route, status or "cancelled").inc()
            self._metrics.request_seconds.labels(route).observe(time.perf_counter() - began)


class Measured:
    """A backend, with its work counted."""

    def __init__(self, backend: Backend, metrics: Metrics) -> None:
        self._backend = backend
        self._metrics = metrics

    async def design(self, request: DesignRequest) -> DesignResponse:
        began = time.perf_counter()
        with self._metrics.models_queue.track_inprogress():
            answer = await self._backend.design(request)
        self._metrics.design_seconds.observe(time.perf_counter() - began)
        self._metrics.designs.inc(len(answer.designs))
        return answer

    async def pictures(self, answer: DesignResponse) -> AsyncGenerator[Event]:
        events = self._backend.pictures(answer)
        left = len(answer.designs)  # of which nothing was heard yet
        try:
            with self._metrics.engine_queue.track_inprogress():
                first = await anext(events)  # what raises here was refused: no picture has failed
            left -= self._settled(first, left)
            yield first
            with self._metrics.drawing.track_inprogress():
                try:
                    async for event in events:
                        left -= self._settled(event, left)
                        yield event
                except BaseException as error:  # the client's leaving too
                    if left:
                        self._metrics.failed.labels(type(error).__name__).inc(left)
                    raise
        finally:
            await events.aclose()

    def _settled(self, event: Event, left: int) -> int:
        """How many of the designs that are left the event settles."""
        if isinstance(event, Picture):
            self._metrics.drawn.inc()
            self._metrics.picture_seconds.observe(event.seconds)
            return 1
        if isinstance(event, Failure):
            lost = left if event.design is None else 1
            self._metrics.failed.labels(event.type).inc(lost)
            return lost
        return 0

    async def check(self) -> None:
        await self._backend.check()
