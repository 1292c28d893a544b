"""Who is let in, and how much they may send: asked before anything of a request's body is read.

Promises: a client that may not ask learns that first (401, 403), and no body past MAX_BODY is read or
parsed (413). Does not limit how often a client asks; the queues do.
"""

from __future__ import annotations

import hmac
import os
from urllib.parse import urlsplit

from fastapi import HTTPException, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flowtailor.errors import FlowtailorError
from flowtailor.machine import is_loopback

TOKEN_VARIABLE = "FLOWTAILOR_TOKEN"  # of the environment
MAX_BODY = 64 * 1024  # bytes; the longest prompt, each character escaped, takes less than half


def admit(request: Request, token: str | None) -> None:
    """Raises HTTPException 401 or 403."""
    if token is None:
        if not is_loopback(request.client.host if request.client else ""):
            raise HTTPException(403, f"no token is set, so only this machine may ask; set {TOKEN_VARIABLE}")
        # The browser of this machine may show a page whose name was made to lead here (DNS rebinding).
        if not is_loopback(_asked_host(request)):
            raise HTTPException(403, f"no token is set: ask 127.0.0.1 or localhost, or set {TOKEN_VARIABLE}")
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    # compare_digest takes the same time however much of the token is right.
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.encode("latin-1"), token.encode()):
        raise HTTPException(
            401, "send the header Authorization: Bearer TOKEN", headers={"WWW-Authenticate": "Bearer"}
        )


def _asked_host(request: Request) -> str:
    """The header's, not `request.url`'s: that falls back to our own address where the header is odd."""
    try:
        return urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    except ValueError:
        return ""


def find_token(of_config: str | None = None) -> str | None:
    """That of a Serve config's `args`, else the environment's; blank counts as none.

    Raises FlowtailorError for one that no client could send in a header.
    """
    for name, value in (("args.token", of_config), (TOKEN_VARIABLE, os.environ.get(TOKEN_VARIABLE))):
        token = (value or "").strip()
        if not (token.isascii() and token.isprintable()):
            raise FlowtailorError(
                f"{name}: holds a character that no header carries; use ASCII, as from `openssl rand -hex 32`"
            )
        if token:
            return token
    return None


class Guard:
    """ASGI middleware of one route."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        admit(request, self._token)
        announced = request.headers.get("content-length", "")
        if announced.isdecimal():
            _refuse_above_limit(int(announced))
        size = 0

        async def counted() -> Message:  # a body may come in pieces of unknown number
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            _refuse_above_limit(size)
            return message

        await self._app(scope, counted, send)


def _refuse_above_limit(size: int) -> None:
    """Raises HTTPException 413."""
    if size > MAX_BODY:
        raise HTTPException(
            413, f"the body has more than {MAX_BODY} bytes; send a prompt and its options alone"
        )
