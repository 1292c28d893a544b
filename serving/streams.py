"""Events as the text of a stream, with a comment where none comes for a while.

Proxies cut a connection that is silent for long, and an engine tells nothing while it starts or loads
a large model. Promises: a line at least every 10 s; a failure of the backend is an `error` event, which
of a mistake of ours tells nothing; what is drawn for a client that has left is stopped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator

from .api import DesignResponse
from .backend import UnavailableError
from .events import Event, Failure, Ready, encoded

logger = logging.getLogger("ray.serve")
SILENCE_S = 10.0
WAITING = ": waiting\n\n"  # a comment, which readers of server-sent events pass over
BROKEN = "the drawing failed on the server; its log has the cause"


async def with_silences(events: AsyncGenerator[Event], silence_s: float) -> AsyncGenerator[Event | None]:
    """The events as they come, and None each time that none has come for `silence_s`."""
    coming: asyncio.Future[Event] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(anext(events))
            await asyncio.wait({coming}, timeout=silence_s)
            if not coming.done():
                yield None
                continue
            try:
                event = coming.result()
            except StopAsyncIteration:
                return
            finally:
                coming = None
            yield event
    finally:  # the client may have left
        if coming:
            coming.cancel()  # which ends what `events` waits for, and so `events`
        else:
            await events.aclose()


async def as_text(answer: DesignResponse, events: AsyncGenerator[Event | None]) -> AsyncGenerator[str]:
    """The stream of an answer and of what `with_silences` gives."""
    yield encoded("designs", answer)
    try:
        async for event in events:
            if event is None:
                yield WAITING
            elif not isinstance(event, Ready):
                yield event.encoded()
    except UnavailableError as error:
        yield Failure.of(error).encoded()
    except Exception:
        logger.exception("a stream of pictures broke")
        yield Failure(design=None, type="ServerError", message=BROKEN).encoded()
    finally:
        await events.aclose()
