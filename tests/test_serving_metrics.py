"""What `GET /metrics` tells operators, as Prometheus would read it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from drawing_backend import Api, DrawingBackend
from failing_engine import FAULTS, Engines, flow
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from flowtailor.serving.api import DesignRequest, DesignResponse
from flowtailor.serving.backend import UnavailableError
from flowtailor.serving.events import Done, Event, Picture, Ready
from flowtailor.serving.metrics import CountRequests, Measured, Metrics
from flowtailor.serving.routes import make_app


def told(text: str) -> dict[str, float]:
    """Value by name and labels, such as `flowtailor_requests_total /healthz 200`."""
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def asked(client: TestClient, *, render: bool) -> None:
    client.post("/v1/designs", json={"prompt": "a red apple", "render": render})


def client_of(*flows: Api, **changes: Any) -> TestClient:
    app = make_app(DrawingBackend(list(flows), **changes), None)
    return TestClient(app, client=("127.0.0.1", 50000), base_url="http://127.0.0.1")


def scraped(client: TestClient) -> dict[str, float]:
    return told(client.get("/metrics").text)


def test_requests_are_counted_by_route_and_status():
    client = client_of(flow("apple"))
    client.get("/healthz")
    client.post("/v1/designs", json={"prompt": ""})
    asked(client, render=False)
    asked(client, render=True)
    values = scraped(client)
    assert values["flowtailor_requests_total /healthz 200"] == 1
    assert values["flowtailor_requests_total /v1/designs 422"] == 1
    assert values["flowtailor_requests_total /v1/designs 200"] == 2
    assert values["flowtailor_request_seconds_count /v1/designs"] == 3
    assert values["flowtailor_request_seconds_bucket 600.0 /v1/designs"] == 3


def test_paths_that_clients_make_up_share_one_label():
    client = client_of()
    for path in ("/admin.php", "/v1/designs/7", "/\N{SNOWMAN}"):
        client.get(path)
    assert scraped(client)["flowtailor_requests_total other 404"] == 3


def test_designs_and_pictures_are_counted():
    client = client_of(flow("apple"), flow("pear", "late"), flow("fig"))
    asked(client, render=False)
    asked(client, render=True)
    values = scraped(client)
    assert values["flowtailor_designs_total"] == 6
    assert values["flowtailor_design_seconds_count"] == 2
    assert values["flowtailor_pictures_drawn_total"] == 2
    assert values["flowtailor_picture_seconds_sum"] == 0.5
    assert values["flowtailor_pictures_failed_total ComfyTimeout"] == 1


def test_where_the_engine_is_away_all_that_were_to_be_drawn_have_failed():
    at_once = client_of(flow("apple"), flow("pear"), engines=Engines(can_start=[False]))
    asked(at_once, render=True)
    assert scraped(at_once)["flowtailor_pictures_failed_total EngineAway"] == 2
    assert scraped(at_once)["flowtailor_requests_total /v1/designs 502"] == 1
    engines = Engines(can_start=[True, False])
    midway = client_of(flow("apple"), flow("pear", "dies"), flow("fig"), engines=engines)
    asked(midway, render=True)
    assert scraped(midway)["flowtailor_pictures_drawn_total"] == 1
    assert scraped(midway)["flowtailor_pictures_failed_total EngineAway"] == 2


@pytest.mark.parametrize("fault", [UnavailableError("replica lost"), FAULTS["broken"]])
def test_pictures_that_a_broken_stream_does_not_bring_have_failed(fault: Exception):
    client = client_of(flow("apple"), flow("pear"), fault_at=2, fault=fault)
    asked(client, render=True)
    assert scraped(client)[f"flowtailor_pictures_failed_total {type(fault).__name__}"] == 2


def test_pictures_whose_client_leaves_have_failed():
    metrics = Metrics()
    measured = Measured(DrawingBackend([flow("apple"), flow("pear"), flow("fig")]), metrics)

    async def leave_after_the_first_picture() -> None:
        stream = measured.pictures(await measured.design(DesignRequest(prompt="a red apple")))
        while not isinstance(await anext(stream), Picture):
            pass
        await stream.aclose()

    asyncio.run(leave_after_the_first_picture())
    values = told(metrics.text().decode())
    assert values["flowtailor_pictures_drawn_total"] == 1
    assert values["flowtailor_pictures_failed_total GeneratorExit"] == 2


def test_what_is_refused_before_the_stream_has_not_failed():
    client = client_of(flow("apple"), fault_at=0)
    asked(client, render=True)
    values = scraped(client)
    assert values["flowtailor_requests_total /v1/designs 503"] == 1
    assert not [name for name in values if name.startswith("flowtailor_pictures_failed_total")]


class StepByStep:
    """A backend that goes on when told to."""

    def __init__(self) -> None:
        self.go_on = asyncio.Semaphore(0)

    async def design(self, request: DesignRequest) -> DesignResponse:
        await self.go_on.acquire()
        return DesignResponse(prompt=request.prompt, designs=[])

    async def pictures(self, answer: DesignResponse) -> AsyncGenerator[Event]:
        await self.go_on.acquire()
        yield Ready()
        await self.go_on.acquire()
        yield Done(pictures=0, errors=0)

    async def check(self) -> None: ...


def test_queues_are_told_while_requests_are_in_them():
    seen: list[tuple[float, ...]] = []

    async def follow() -> None:
        metrics, backend = Metrics(), StepByStep()
        measured = Measured(backend, metrics)

        async def one_request() -> None:
            answer = await measured.design(DesignRequest(prompt="an owl"))
            async for _ in measured.pictures(answer):
                pass

        request = asyncio.create_task(one_request())
        for _ in range(4):
            await asyncio.sleep(0.01)
            values = told(metrics.text().decode())
            seen.append(
                tuple(
                    values[f"flowtailor_{name}"]
                    for name in ("queue_depth models", "queue_depth engine", "requests_drawing")
                )
            )
            backend.go_on.release()
        await request

    asyncio.run(follow())
    assert seen == [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0)]


def test_a_request_whose_client_leaves_is_counted_and_waits_no_more():
    metrics, backend = Metrics(), Measured(StepByStep(), Metrics())

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await backend.design(DesignRequest(prompt="an owl"))

    async def leave() -> None:
        counted = CountRequests(app, metrics)
        request = asyncio.create_task(counted({"type": "http"}, None, None))  # type: ignore[arg-type]
        await asyncio.sleep(0.01)
        request.cancel()
        await asyncio.wait({request})

    asyncio.run(leave())
    assert told(metrics.text().decode())["flowtailor_requests_total other cancelled"] == 1


def test_who_may_ask_for_designs_may_ask_for_metrics():
    app = make_app(DrawingBackend([]), "secret")
    assert TestClient(app).get("/metrics").status_code == 401
    allowed = TestClient(app).get("/metrics", headers={"Authorization": "Bearer secret"})
    assert allowed.headers["content-type"].startswith("text/plain; version=")
    elsewhere = TestClient(make_app(DrawingBackend([]), None), client=("192.0.2.7", 50000))
    assert elsewhere.get("/metrics").status_code == 403
