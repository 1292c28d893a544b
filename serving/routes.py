"""The HTTP face of the designer: routes, and what each failure looks like; guard.py says who is let in.

Promises: bad input is a 422 that names the field and the rule, an overloaded or broken backend
is a 503 with Retry-After, a dead engine a 502, nothing is a 500; where a stream of pictures has
begun, they are `error` events. Knows nothing of Ray: any `Backend` will do.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, HTTPException, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST

from flowtailor import __version__

from .api import DesignRequest, DesignResponse, Refusal, refusal
from .backend import Backend, UnavailableError
from .events import Failure, in_openapi
from .guard import TOKEN_VARIABLE, Guard, admit
from .metrics import CountRequests, Measured, Metrics
from .streams import BROKEN, SILENCE_S, as_text, with_silences

logger = logging.getLogger("ray.serve")
RETRY_AFTER_S = 2
DESIGNS = "/v1/designs"
FAILED = "the design failed on the server; its log has the cause"
# For the schema: guard.py is who asks for it.
BEARER = HTTPBearer(auto_error=False, description=f"{TOKEN_VARIABLE} of the server, where it has one")
NOT_LET_IN: dict[int | str, dict[str, Any]] = {
    401: {"description": "the token is wrong or missing"},
    403: {"description": "no token is set, and the client is another machine, or asks for another name"},
}
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "the designs; with `render` a stream of events",
        "content": {"text/event-stream": in_openapi()},
    },
    400: {"description": "the body is not UTF-8, or nested too deep"},
    **NOT_LET_IN,
    413: {"description": "the body is too long"},
    422: {"model": Refusal},
    502: {"description": "pictures were asked for, and no engine answers"},
    503: {"description": "overloaded; see Retry-After"},
}
PAGE = Path(__file__).with_name("index.html")


def make_app(backend: Backend, token: str | None) -> FastAPI:
    """The FastAPI application. Without a token only clients on this machine may design."""
    app = FastAPI(title="flowtailor", version=__version__, description="Designs ComfyUI workflows.")
    metrics = Metrics()
    backend = Measured(backend, metrics)
    app.add_middleware(CountRequests, metrics=metrics)

    def admitted(request: Request) -> None:
        admit(request, token)

    @app.exception_handler(RequestValidationError)
    async def refuse(_: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse(refusal(error.errors()), status_code=422)

    @app.post(DESIGNS, response_model=DesignResponse, responses=RESPONSES, dependencies=[Security(BEARER)])
    async def designs(request: DesignRequest) -> DesignResponse | StreamingResponse:
        """Design workflows for a prompt: API JSON that the engine runs, with predicted scores.

        With `render` the answer is a stream of server-sent events: `designs` (what the answer is
        without it), `progress`, `picture` and `error` for each design, `done`.
        """
        with _unavailable_where_it_fails("a design failed", FAILED):
            answer = await backend.design(request)
        return await _drawn(backend, answer) if request.render else answer

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """This process answers."""
        return {"status": "ok", "version": __version__}

    @app.get("/readyz")
    async def readyz() -> dict[str, str]:
        """The models are loaded and answer."""
        try:
            await backend.check()
        except Exception as error:
            raise _unavailable(error) from error
        return {"status": "ready"}

    @app.get(
        "/metrics",
        dependencies=[Security(BEARER), Depends(admitted)],
        response_class=PlainTextResponse,
        responses=NOT_LET_IN,
    )
    async def show_metrics() -> PlainTextResponse:
        """What has passed through this process, for Prometheus."""
        return PlainTextResponse(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE)

    for route in app.routes:  # a dependency would be asked only once the body had been read and parsed
        if isinstance(route, APIRoute) and route.path == DESIGNS:
            route.app = Guard(route.app, token)
    return app


async def _drawn(backend: Backend, answer: DesignResponse) -> StreamingResponse:
    """The stream: begun once the engine is ready, or once a proxy might lose patience.

    Raises HTTPException 502 or 503 for what goes wrong before.
    """
    events = with_silences(backend.pictures(answer), SILENCE_S)
    with _unavailable_where_it_fails("no picture was begun", BROKEN):
        first = await anext(events)
    if isinstance(first, Failure):
        raise HTTPException(502, detail=first.message)
    # For proxies in front: what is collected before it is passed on shows no progress.
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(as_text(answer, events), media_type="text/event-stream", headers=headers)


@contextmanager
def _unavailable_where_it_fails(logged: str, told: str) -> Iterator[None]:
    """A 503 for what the backend raises; of a mistake of ours the log has the cause, and it is `told`."""
    try:
        yield
    except UnavailableError as error:
        raise _unavailable(error) from error
    except Exception as error:
        logger.exception(logged)
        raise _unavailable(told) from error


def _unavailable(reason: object) -> HTTPException:
    return HTTPException(503, detail=str(reason), headers={"Retry-After": str(RETRY_AFTER_S)})
