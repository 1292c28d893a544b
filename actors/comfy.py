"""A ComfyUI engine, reached over its own HTTP and websocket API."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class EngineConfig(BaseModel):
    """How to reach ComfyUI: the embedded studio, a checkout that we start, or servers that run already."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["studio", "checkout", "urls"] = "studio"
    urls: tuple[str, ...] = ()
    """Base URLs such as "http://127.0.0.1:8188"; for kind "urls"."""
    path: Path | None = None
    """Folder that holds ComfyUI's main.py; for kind "checkout"."""
    args: tuple[str, ...] = ()
    """Further arguments for main.py, for the kinds that we start."""
    count: int = Field(default=2, ge=1)
    """Number of engines; with kind "urls", the clients are spread over the urls."""
    threads: int = Field(default=1, ge=1)
    """CPU threads of one engine."""
    start_timeout_s: float = Field(default=90.0, gt=0)
    render_timeout_s: float = Field(default=60.0, gt=0)

    @model_validator(mode="after")
    def _complete(self) -> EngineConfig:
        if self.kind == "urls" and not self.urls:
            raise ValueError('kind = "urls" needs urls = ["http://127.0.0.1:8188"]')
        if self.kind == "checkout" and self.path is None:
            raise ValueError('kind = "checkout" needs path = "/path/to/ComfyUI"')
        return self
