"""What the endpoint tells of itself: its schema, its page, and what a request has to be like."""

from __future__ import annotations

import re
from typing import Any

import pytest
from drawing_backend import DrawingBackend
from starlette.testclient import TestClient

from flowtailor.serving.api import DesignRequest
from flowtailor.serving.events import Done, Failure, Picture, Progress
from flowtailor.serving.routes import PAGE, make_app


def client() -> TestClient:
    app = make_app(DrawingBackend([]), None)
    return TestClient(app, client=("127.0.0.1", 50000), base_url="http://127.0.0.1")


def schema() -> dict[str, Any]:
    return client().get("/openapi.json").json()


@pytest.mark.parametrize("kind", [None, "application/x-www-form-urlencoded", "text/plain"])
def test_a_body_that_is_not_announced_as_json_is_refused_for_that(kind: str | None) -> None:
    headers = {"Content-Type": kind} if kind else {}
    refused = client().post("/v1/designs", content=b'{"prompt": "a red apple"}', headers=headers)
    (problem,) = refused.json()["detail"]
    assert (refused.status_code, problem["field"]) == (422, "body")
    assert problem["rule"] == "send the header Content-Type: application/json"


def test_an_unknown_field_is_answered_with_those_there_are() -> None:
    refused = client().post("/v1/designs", json={"prompt": "a", "promt": "b"})
    (problem,) = refused.json()["detail"]
    assert problem["field"] == "promt"
    assert problem["rule"] == f"unknown field; there are {', '.join(DesignRequest.model_fields)}"


def test_the_schema_says_who_may_ask_and_how_that_fails() -> None:
    content = schema()
    (scheme,) = content["components"]["securitySchemes"].values()
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    designs, metrics = content["paths"]["/v1/designs"]["post"], content["paths"]["/metrics"]["get"]
    assert designs["security"] and designs["security"] == metrics["security"]
    assert {"400", "401", "403", "413", "422", "502", "503"} <= set(designs["responses"])
    assert {"401", "403"} <= set(metrics["responses"])


def test_the_schema_describes_each_event_of_the_stream() -> None:
    content = schema()["paths"]["/v1/designs"]["post"]["responses"]["200"]["content"]
    designs = content["application/json"]["schema"]
    told = {
        one["title"]: one["properties"]["data"]["contentSchema"]
        for one in content["text/event-stream"]["itemSchema"]["oneOf"]
    }
    assert told.pop("designs") == designs
    assert {name: set(data["properties"]) for name, data in told.items()} == {
        event.name: set(event.model_fields) for event in (Progress, Picture, Failure, Done)
    }


def test_the_page_asks_what_a_request_may_say_wherever_it_lies() -> None:
    """A proxy may put it under a path."""
    page = PAGE.read_text()
    assert set(re.findall(r'<input name="(\w+)"', page)) == set(DesignRequest.model_fields) - {"temperature"}
    assert 'fetch("v1/designs"' in page and 'href="docs"' in page
