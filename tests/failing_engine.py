"""Stands in for ComfyUI engines, only to inject faults where a real one is served."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from flowtailor.actors.client import ComfyClient, Rendered
from flowtailor.actors.comfy import EngineConfig
from flowtailor.actors.comfy_errors import (
    ComfyBusy,
    ComfyExecutionError,
    ComfyRejected,
    ComfyTimeout,
    ComfyUnavailable,
)
from flowtailor.errors import FlowtailorError

Api = dict[str, Any]

FAULTS = {
    "rejected": ComfyRejected({"error": {"message": "no such sampler"}}),
    "fails": ComfyExecutionError("5", "KSampler", "OutOfMemoryError", "2 GB"),
    "late": ComfyTimeout("no picture within 60 s"),
    "dies": ComfyUnavailable("http://127.0.0.1:1: no ComfyUI answers"),
    "busy": ComfyBusy("http://127.0.0.1:1: busy with others' workflows for 60 s"),
    "broken": RuntimeError("secret detail"),
}


def flow(name: str, *faults: str) -> Api:
    """A workflow for `Engines`, with what goes wrong at each try to draw it."""
    return {"name": name, "faults": list(faults)}


@dataclass
class Engines:
    """Any number of engines, one after the other, and what became of them."""

    can_start: list[bool] = field(default_factory=list)  # for each start; afterwards all do
    settles: bool = True
    opened: int = 0
    closed: int = 0
    drawn: list[str] = field(default_factory=list)
    urls: list[tuple[str, ...]] = field(default_factory=list)  # as each start was told them
    alive: bool = True

    @contextmanager
    def open(self, config: EngineConfig) -> Iterator[ComfyClient]:
        if not (self.can_start.pop(0) if self.can_start else True):
            raise FlowtailorError("ComfyUI died while starting: no CUDA; see /tmp/secret.log")
        self.opened += 1
        self.urls.append(config.urls)
        self.alive = True
        yield cast(ComfyClient, self)
        self.closed += 1

    def system_stats(self) -> Api:
        if not self.alive:
            raise ComfyUnavailable("http://127.0.0.1:1: no ComfyUI answers")
        return {}

    def wait_idle(self, timeout_s: float = 5.0) -> bool:
        return self.settles

    def render(self, workflow: Api, timeout_s: float, on_progress: Any) -> Rendered:
        on_progress(1, 2)
        if workflow["faults"]:
            fault = workflow["faults"].pop(0)
            self.alive = fault != "dies"
            raise FAULTS[fault]
        on_progress(2, 2)
        self.drawn.append(workflow["name"])
        return Rendered(workflow["name"].encode(), 0.25, 128, 96)
