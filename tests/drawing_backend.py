"""Stands in for Ray Serve, only to inject its faults where real pictures are streamed."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

from failing_engine import Engines

from flowtailor.actors.comfy import EngineConfig
from flowtailor.serving.api import DesignedWorkflow, DesignRequest, DesignResponse, Estimate, Forecast
from flowtailor.serving.backend import UnavailableError
from flowtailor.serving.events import Event
from flowtailor.serving.pictures import Pictures

Api = dict[str, Any]

ONE = EngineConfig(kind="urls", urls=("http://127.0.0.1:1",))


@dataclass
class DrawingBackend:
    """Real pictures of a stand-in engine, and the faults of Ray Serve where they are asked for."""

    flows: list[Api]
    engines: Engines = field(default_factory=Engines)
    config: EngineConfig = ONE
    fault_at: int | None = None  # events before `fault`
    fault: Exception = field(default_factory=lambda: UnavailableError("8 requests wait already"))

    def __post_init__(self) -> None:
        self._pictures = Pictures(self.config, self.engines.open)

    async def design(self, request: DesignRequest) -> DesignResponse:
        return DesignResponse(prompt=request.prompt, designs=[designed(flow) for flow in self.flows])

    async def pictures(self, answer: DesignResponse) -> AsyncGenerator[Event]:
        told = 0
        async for event in self._pictures.stream([design.workflow for design in answer.designs]):
            if told == self.fault_at:
                raise self.fault
            told += 1
            yield event

    async def check(self) -> None: ...


def designed(flow: Api) -> DesignedWorkflow:
    one = Estimate(mean=0.5, std=0.1)
    forecast = Forecast(score=one, scores={}, seconds=one, reward=0.4, keeps_budget=None)
    return DesignedWorkflow(
        workflow=flow, summary="plain", tokens=[], logprob=-1.0, forecast=forecast, components=[]
    )
