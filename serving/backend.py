"""What stands behind the routes: something that designs, draws, and says whether it can.

`app.py` has the real one, on Ray Serve.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from .api import DesignRequest, DesignResponse
from .events import Event


class UnavailableError(Exception):
    """The backend cannot answer now: full, starting, or dead and being replaced."""


class Backend(Protocol):
    async def design(self, request: DesignRequest) -> DesignResponse:
        """Raises UnavailableError."""
        ...

    def pictures(self, answer: DesignResponse) -> AsyncGenerator[Event]:
        """First Ready, or the Failure of a dead engine; then what becomes of the designs, see events.py.

        Raises UnavailableError.
        """
        ...

    async def check(self) -> None:
        """Return once the models answer; raises UnavailableError."""
        ...
