"""Pictures as server-sent events: what comes in which order, and what each fault looks like."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import threading
import time
from collections.abc import AsyncGenerator
from typing import Any

import psutil
import pytest
from drawing_backend import ONE, Api, DrawingBackend
from failing_engine import FAULTS, Engines, flow
from starlette.testclient import TestClient

from flowtailor.actors.client import Rendered
from flowtailor.actors.comfy import EngineConfig
from flowtailor.errors import FlowtailorError
from flowtailor.serving import routes
from flowtailor.serving.events import Event, Failure, Picture, Progress, Ready
from flowtailor.serving.pictures import NOT_DRAWN, Pictures
from flowtailor.serving.routes import make_app
from flowtailor.serving.streams import with_silences
from flowtailor.workflows.graph import Workflow

Events = list[tuple[str, dict[str, Any]]]


def ask(backend: DrawingBackend, *, render: bool = True) -> Any:
    app = make_app(backend, None)
    client = TestClient(app, client=("127.0.0.1", 50000), base_url="http://127.0.0.1")
    return client.post("/v1/designs", json={"prompt": "a red apple", "render": render})


def read(text: str) -> Events:
    """The events of a stream as (type, data); comments are passed over."""
    blocks = [block.split("\n") for block in text.split("\n\n") if block and not block.startswith(":")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]


def drawn(*flows: Api, **changes: Any) -> Events:
    """What follows the designs in the stream of an answer that began well."""
    response = ask(DrawingBackend(list(flows), **changes))
    assert response.status_code == 200
    first, *others = read(response.text)
    assert first[0] == "designs"
    return others


def brief(events: Events) -> list[tuple[Any, ...]]:
    """What matters of each event but the progress: ("picture", design), ("done", pictures, errors)."""
    keys = {"picture": ["design"], "error": ["design", "type"], "done": ["pictures", "errors"]}
    return [(name, *(data[key] for key in keys[name])) for name, data in events if name != "progress"]


def test_progress_and_pictures_come_in_order():
    response = ask(DrawingBackend([flow("apple"), flow("pear")]))
    assert response.headers["content-type"].startswith("text/event-stream")
    designs, *events = read(response.text)
    assert [design["workflow"]["name"] for design in designs[1]["designs"]] == ["apple", "pear"]
    names = ["progress", "progress", "picture", "progress", "progress", "picture", "done"]
    assert [name for name, _ in events] == names
    assert events[1][1] == {"design": 0, "step": 2, "steps": 2}
    apple = events[2][1]
    assert base64.b64decode(apple.pop("png")) == b"apple"
    assert apple == {"design": 0, "width": 128, "height": 96, "seconds": 0.25}
    assert events[-1] == ("done", {"pictures": 2, "errors": 0})


def test_the_engine_starts_with_the_first_picture_and_stays():
    backend = DrawingBackend([flow("apple")])
    assert ask(backend, render=False).json()["designs"][0]["summary"] == "plain"
    assert backend.engines.opened == 0
    for _ in range(2):
        assert ask(backend).status_code == 200
    assert backend.engines.opened == 1


@pytest.mark.parametrize("fault", ["rejected", "fails", "late"])
def test_a_design_that_fails_is_an_error_and_the_next_is_drawn(fault: str):
    events = drawn(flow("apple", fault), flow("pear"))
    kind = type(FAULTS[fault]).__name__
    assert brief(events) == [("error", 0, kind), ("picture", 1), ("done", 1, 1)]
    assert events[1][1]["message"] == (str(FAULTS[fault]) if fault == "late" else NOT_DRAWN)


def test_the_log_has_what_an_engine_said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr("flowtailor.serving.pictures.logger", logging.getLogger("replica"))
    drawn(flow("apple", "rejected"))
    assert "no such sampler" in caplog.text


def test_a_dead_engine_is_a_502_that_does_not_tell_where_it_is():
    backend = DrawingBackend([flow("apple")], engines=Engines(can_start=[False]))
    response = ask(backend)
    assert response.status_code == 502
    assert "no ComfyUI engine answers" in response.json()["detail"]
    assert "secret" not in response.text
    assert ask(backend).status_code == 200  # tried again


def test_an_engine_that_dies_is_replaced_and_the_design_drawn():
    engines = Engines()
    assert brief(drawn(flow("apple", "dies"), engines=engines)) == [("picture", 0), ("done", 1, 0)]
    assert (engines.opened, engines.closed) == (2, 1)


def test_a_design_that_brings_the_engine_down_twice_is_given_up():
    events = drawn(flow("apple", "dies", "dies"), flow("pear"))
    assert brief(events) == [("error", 0, "EngineDied"), ("picture", 1), ("done", 1, 1)]


def test_a_busy_server_is_passed_over_and_a_busy_world_is_told():
    engines = Engines()
    pictures = Pictures(EngineConfig(kind="urls", urls=("http://a", "http://b", "http://c")), engines.open)
    events: list[Event] = []
    pictures.draw([flow("apple", "busy"), flow("pear", "busy", "busy", "busy")], events.append)
    assert engines.drawn == ["apple"]
    assert [urls[0] for urls in engines.urls[:2]] == ["http://a", "http://b"]
    (failure,) = (event for event in events if isinstance(event, Failure))
    assert (failure.design, failure.type) == (1, "EngineBusy") and "http" not in failure.message


def test_a_server_that_is_lost_is_passed_over():
    engines = Engines()
    pictures = Pictures(EngineConfig(kind="urls", urls=("http://a", "http://b", "http://c")), engines.open)
    events: list[Event] = []
    pictures.draw([flow("apple", "dies")], events.append)
    assert [urls[0] for urls in engines.urls] == ["http://a", "http://b"]
    assert any(isinstance(event, Picture) for event in events)


def test_for_a_client_that_left_while_it_waited_no_engine_is_started():
    engines = Engines()
    Pictures(ONE, engines.open).draw([flow("apple")], lambda _: None, stopped=lambda: True)
    assert engines.opened == 0


def test_an_engine_that_cannot_be_replaced_ends_the_stream():
    events = drawn(flow("apple"), flow("pear", "dies"), flow("fig"), engines=Engines(can_start=[True, False]))
    assert brief(events) == [("picture", 0), ("error", None, "EngineAway")]
    assert "secret" not in events[-1][1]["message"]


def test_an_engine_that_hangs_is_replaced():
    engines = Engines(settles=False)
    drawn(flow("apple", "late"), flow("pear"), engines=engines)
    assert (engines.opened, engines.drawn) == (2, ["pear"])


def test_a_full_queue_is_a_503_before_the_stream_and_an_error_in_it():
    response = ask(DrawingBackend([flow("apple")], fault_at=0))
    assert (response.status_code, response.headers["retry-after"]) == (503, "2")
    assert brief(drawn(flow("apple"), fault_at=2)) == [("error", None, "UnavailableError")]


def test_a_mistake_of_ours_is_no_500_and_tells_nothing():
    secret = FAULTS["broken"]
    response = ask(DrawingBackend([flow("apple")], fault_at=0, fault=secret))
    assert response.status_code == 503 and "secret" not in response.text
    for events in (drawn(flow("apple"), fault_at=2, fault=secret), drawn(flow("apple", "broken"))):
        assert brief(events) == [("error", None, "ServerError")]
        assert "secret" not in events[-1][1]["message"]


def test_for_a_client_that_has_left_no_design_is_begun():
    engines = Engines()
    pictures = Pictures(ONE, engines.open)

    async def leave_after_the_first_progress() -> None:
        stream = pictures.stream([flow("apple"), flow("pear"), flow("fig")])
        async for event in stream:
            if event.name == "progress":
                go_on.set()
                break
        await stream.aclose()

    go_on = threading.Event()
    draw = engines.render

    def slowly(workflow: Api, timeout_s: float, on_progress: Any) -> Rendered:
        on_progress(0, 2)
        go_on.wait(10)
        return draw(workflow, timeout_s, on_progress)

    engines.render = slowly  # type: ignore[method-assign]
    asyncio.run(leave_after_the_first_progress())  # waits for the thread
    assert engines.drawn == ["apple"]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> float:
    """Seconds that are longer than any silence."""
    monkeypatch.setattr(routes, "SILENCE_S", 0.05)
    return 0.3


def starting_in(seconds: float, engines: Engines) -> Engines:
    start = engines.open

    def slowly(config: EngineConfig) -> Any:
        time.sleep(seconds)
        return start(config)

    engines.open = slowly  # type: ignore[method-assign]
    return engines


def test_comments_fill_the_silence_while_an_engine_starts(impatient: float):
    text = ask(DrawingBackend([flow("apple")], engines=starting_in(impatient, Engines()))).text
    assert text.startswith("event: designs") and text.count("\n\n: waiting\n\n") >= 2
    assert [name for name, _ in read(text)] == ["designs", "progress", "progress", "picture", "done"]


def test_comments_fill_the_silence_while_a_model_loads(impatient: float):
    engines = Engines()
    draw = engines.render

    def slowly(*args: Any) -> Rendered:
        time.sleep(impatient)
        return draw(*args)

    engines.render = slowly  # type: ignore[method-assign]
    text = ask(DrawingBackend([flow("apple"), flow("pear")], engines=engines)).text
    assert [name for name, _ in read(text)][-1] == "done"
    before, between, after = text.split("event: picture")
    assert ": waiting" in before and ": waiting" in between and ": waiting" not in after


def test_an_engine_that_fails_late_ends_a_stream_that_has_begun(impatient: float):
    engines = starting_in(impatient, Engines(can_start=[False]))
    assert brief(drawn(flow("apple"), engines=engines)) == [("error", None, "EngineAway")]


def test_a_client_that_leaves_in_the_silence_stops_what_is_waited_for():
    stopped: list[bool] = []

    async def silent() -> AsyncGenerator[Event]:
        try:
            yield Ready()
            await asyncio.sleep(60)
        finally:
            stopped.append(True)

    async def leave() -> None:
        events = with_silences(silent(), 0.01)
        assert [await anext(events) for _ in range(3)] == [Ready(), None, None]
        await events.aclose()

    asyncio.run(leave())
    assert stopped


def test_requests_take_turns():
    engines = Engines()
    pictures = Pictures(ONE, engines.open)
    told: list[str] = []
    in_work, go_on = threading.Event(), threading.Event()

    def tell(name: str, event: Event) -> None:
        told.append(name)
        in_work.set()
        go_on.wait(10)

    threads = []
    for name in ("first", "second"):
        emit = lambda event, name=name: tell(name, event)  # noqa: E731
        threads.append(threading.Thread(target=pictures.draw, args=([flow(name)], emit)))
        threads[-1].start()
        assert in_work.wait(10)
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert told == ["first"] * 5 + ["second"] * 5


@pytest.mark.engine
@pytest.mark.slow
def test_a_real_engine_starts_draws_and_is_replaced(studio_engine: EngineConfig, plain_api: Api):
    """What the stand-in leaves out: a ComfyUI that starts with the first picture, and is killed."""
    plain_api["5"]["inputs"]["steps"] = 60
    flow = Workflow.from_api(plain_api).bind("a red apple", 1).to_api()
    missing = {**flow, "5": {"class_type": "DreamSampler", "inputs": {}}}
    others = set(psutil.Process().children())
    events: Events = []
    killed: list[psutil.Process] = []

    def emit(event: Event) -> None:
        events.append((event.name, event.model_dump()))
        if isinstance(event, Progress) and event.step == 5 and not killed:
            killed.extend(set(psutil.Process().children()) - others)
            killed[0].kill()

    pictures = Pictures(studio_engine)
    try:
        pictures.draw([flow, missing], emit)
    finally:
        pictures.close()
    assert brief(events[1:]) == [("picture", 0), ("error", 1, "ComfyRejected"), ("done", 1, 1)]
    steps = [data["step"] for name, data in events if name == "progress"]
    assert steps[:5] == [1, 2, 3, 4, 5] and steps[-60:] == list(range(1, 61))
    png = next(data["png"] for name, data in events if name == "picture")
    assert base64.b64decode(png).startswith(b"\x89PNG")


def test_a_long_message_is_cut_and_put_on_one_line():
    message = Failure.of(FlowtailorError("a\nb " + "x" * 900), 3).message
    assert message.startswith("a b x") and len(message) == 500
