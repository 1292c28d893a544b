"""Designs in, pictures out: the run's ComfyUI engine, started when the first picture is asked for.

Promises: one request draws at a time, the others wait; an engine of ours that died or hangs is
replaced, and of servers that run elsewhere the first that answers and has time is used; what goes wrong
is an event, never an exception. A client that leaves costs at most the picture that is being drawn. The
engine stays until the process ends. Knows nothing of HTTP or Ray Serve.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from flowtailor.errors import FlowtailorError

from ..actors.client import ComfyClient
from ..actors.comfy import EngineConfig, engine
from ..actors.comfy_errors import ComfyBusy, ComfyInterrupted, ComfyTimeout, ComfyUnavailable
from .events import Done, Event, Failure, Picture, Progress, Ready

Api = dict[str, Any]
OpenEngine = Callable[[EngineConfig], AbstractContextManager[ComfyClient]]

logger = logging.getLogger("ray.serve")
NOT_DRAWN = "the engine could not draw this; the server's log says why"
_TRIES = 2


class EngineAway(FlowtailorError):
    """No engine answers, and none could be started."""


class EngineBusy(FlowtailorError):
    """Every engine was busy with others' workflows when it was this design's turn."""


class EngineDied(FlowtailorError):
    """The engine went away each time it drew this design."""


class Pictures:
    """Owns one engine."""

    def __init__(self, config: EngineConfig, open_engine: OpenEngine = engine) -> None:
        self._config = config
        self._open_engine = open_engine
        self._opened = ExitStack()
        self._client: ComfyClient | None = None
        self._turn = threading.Lock()

    async def stream(self, flows: Sequence[Api]) -> AsyncGenerator[Event]:
        """The events of `draw`, as they come. Where nobody listens any more, no design is begun."""
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        loop, left = asyncio.get_running_loop(), threading.Event()

        def emit(event: Event) -> None:
            loop.call_soon_threadsafe(events.put_nowait, event)

        work = asyncio.create_task(asyncio.to_thread(self.draw, flows, emit, left.is_set))
        work.add_done_callback(lambda _: events.put_nowait(None))
        try:
            while (event := await events.get()) is not None:
                yield event
            await work  # raises what was a mistake of ours
        finally:
            left.set()

    def draw(
        self, flows: Sequence[Api], emit: Callable[[Event], None], stopped: Callable[[], bool] = lambda: False
    ) -> None:
        """Draw API workflows one after the other; see events.py for what is emitted after Ready."""
        with self._turn:
            if stopped():
                return
            try:
                self._ready()
                emit(Ready())
                errors = 0
                for design, flow in enumerate(flows):
                    if stopped():
                        return
                    event = self._drawn(design, flow, emit)
                    errors += isinstance(event, Failure)
                    emit(event)
                emit(Done(pictures=len(flows) - errors, errors=errors))
            except EngineAway as error:
                emit(Failure.of(error))

    def close(self) -> None:
        """Stop the engine; the next picture starts it again."""
        self._client = None
        self._opened.close()

    def _drawn(self, design: int, flow: Api, emit: Callable[[Event], None]) -> Picture | Failure:
        def progress(step: int, steps: int) -> None:
            emit(Progress(design=design, step=int(step), steps=int(steps)))

        busy, limit_s = False, self._config.render_timeout_s
        tries = max(_TRIES, len(self._config.urls))
        for _ in range(tries):
            client = self._ready()
            try:
                rendered = client.render(flow, limit_s, progress)
            except ComfyBusy:
                busy = True
                self._next_server()
                continue
            except ComfyUnavailable as error:
                logger.warning("the engine was lost while it drew: %s", error)
                if self._config.urls:
                    self._next_server()
                continue
            except FlowtailorError as error:
                if isinstance(error, ComfyTimeout):
                    self._settle(client)
                return _failure(error, design)
            return Picture(
                design=design,
                png=base64.b64encode(rendered.png).decode(),
                width=rendered.width,
                height=rendered.height,
                seconds=rendered.seconds,
            )
        if busy:
            return Failure.of(EngineBusy(f"busy with others' workflows for {limit_s:g} s; ask again"), design)
        return Failure.of(EngineDied(f"the engine went away {tries} times while it drew this"), design)

    def _next_server(self) -> None:
        """Begin with the next of several servers, the present one last."""
        self.close()
        urls = self._config.urls
        self._config = self._config.model_copy(update={"urls": urls[1:] + urls[:1]})

    def _ready(self) -> ComfyClient:
        """A client on an engine that answers. Raises EngineAway."""
        if self._client is not None:
            try:
                self._client.system_stats()
                return self._client
            except ComfyUnavailable:
                self.close()
        try:
            self._client = self._opened.enter_context(self._open_engine(self._config))
        except FlowtailorError as error:  # tells where the engine or its log is, which is not for clients
            logger.error("no engine: %s", error)
            raise EngineAway("no ComfyUI engine answers; the server's log says why") from error
        return self._client

    def _settle(self, client: ComfyClient) -> None:
        """Give up an engine that goes on with what it was told to stop."""
        if not client.wait_idle():
            self.close()


def _failure(error: FlowtailorError, design: int) -> Failure:
    if isinstance(error, ComfyTimeout | ComfyInterrupted):  # in our own words
        return Failure.of(error, design)
    # In the engine's words, which name files and installed models: not for clients.
    logger.error("design %d was not drawn: %s", design, error)
    return Failure(design=design, type=type(error).__name__, message=NOT_DRAWN)
