"""The endpoint: what a request may say, what each failure looks like, and a real deployment."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import pytest
import requests
from pydantic import ValidationError
from ray.serve.exceptions import BackPressureError
from starlette.testclient import TestClient
from tiny_rows import SCORERS
from tiny_run import tiny_run

from flowtailor.machine import is_loopback
from flowtailor.serving import app
from flowtailor.serving.api import DesignRequest, DesignResponse
from flowtailor.serving.backend import UnavailableError
from flowtailor.serving.designs import Designs
from flowtailor.serving.events import Event
from flowtailor.serving.guard import MAX_BODY
from flowtailor.serving.routes import make_app
from flowtailor.workflows.space import Space
from flowtailor.workflows.validate import problems

HERE = ("127.0.0.1", 50000)
ELSEWHERE = ("192.0.2.7", 50000)


class FailingBackend:
    """Answers with no designs, or fails the way a prompt asks for."""

    async def design(self, request: DesignRequest) -> DesignResponse:
        if request.prompt == "full":
            raise UnavailableError("64 requests wait already")
        if request.prompt == "broken":
            raise RuntimeError("secret detail")
        return DesignResponse(prompt=request.prompt, designs=[])

    async def pictures(self, answer: DesignResponse) -> AsyncGenerator[Event]:
        raise UnavailableError("see test_serving_pictures.py")
        yield

    async def check(self) -> None:
        raise UnavailableError("loading")


@pytest.mark.parametrize(
    ("models", "since_answer_s", "is_ready"),
    [
        ("answer", math.inf, True),
        ("full", math.inf, True),
        ("silent", math.inf, False),
        ("silent", 3.0, True),
    ],
)
def test_a_busy_endpoint_is_ready(
    models: str, since_answer_s: float, is_ready: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "READY_TIMEOUT_S", 0.05)

    async def asked() -> None:
        if models == "full":
            raise BackPressureError(num_queued_requests=64, max_queued_requests=64)
        await asyncio.sleep(0 if models == "answer" else 5)

    with nullcontext() if is_ready else pytest.raises(UnavailableError, match="did not answer within"):
        asyncio.run(app.ready(asked(), since_answer_s))


def client(token: str | None = None, address: tuple[str, int] = HERE) -> TestClient:
    return TestClient(make_app(FailingBackend(), token), client=address, base_url="http://127.0.0.1")


def post(body: str | bytes) -> tuple[int, list[str]]:
    """Status and the fields that a refusal names."""
    headers = {"content-type": "application/json"}
    response = client().post("/v1/designs", content=body, headers=headers)
    detail = response.json().get("detail")
    return response.status_code, [problem["field"] for problem in detail] if isinstance(detail, list) else []


def test_a_prompt_is_enough_and_is_trimmed() -> None:
    request = DesignRequest(prompt="  a red apple ")
    assert (request.prompt, request.n, request.guidance, request.budget_s) == ("a red apple", 1, None, None)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ("{}", "prompt"),
        ('{"prompt": ""}', "prompt"),
        ('{"prompt": " \\n"}', "prompt"),
        ('{"prompt": 7}', "prompt"),
        ('{"prompt": "a fox, embedding:style"}', "prompt"),
        ('{"prompt": "\\ud800"}', "prompt"),
        ('{"prompt": "' + "x" * 2001 + '"}', "prompt"),
        ('{"prompt": "a", "n": 0}', "n"),
        ('{"prompt": "a", "n": 17}', "n"),
        ('{"prompt": "a", "n": "3"}', "n"),
        ('{"prompt": "a", "n": true}', "n"),
        ('{"prompt": "a", "guidance": NaN}', "guidance"),
        ('{"prompt": "a", "guidance": 1e999}', "guidance"),
        ('{"prompt": "a", "guidance": -1}', "guidance"),
        ('{"prompt": "a", "budget_s": 0}', "budget_s"),
        ('{"prompt": "a", "seed": 9223372036854775808}', "seed"),
        ('{"prompt": "a", "temperature": -0.1}', "temperature"),
        ('{"prompt": "a", "render": 1}', "render"),
        ('{"prompt": "a", "file": "/etc/passwd"}', "file"),
        ("[]", "body"),
        ("{", "body"),
    ],
)
def test_bad_input_is_refused_by_field(body: str, field: str) -> None:
    assert post(body) == (422, [field])


@pytest.mark.parametrize("body", [b'{"prompt": "\xff"}', "[" * 50_000, '{"seed": ' + "9" * 5000 + "}"])
def test_bytes_that_are_not_json_are_refused(body: str | bytes) -> None:
    assert post(body)[0] == 400


def test_a_refusal_names_rule_and_value() -> None:
    problem = client().post("/v1/designs", json={"prompt": "a", "n": 40}).json()["detail"][0]
    assert problem == {"field": "n", "rule": "Input should be less than or equal to 16", "value": "40"}


def test_overload_says_when_to_come_back() -> None:
    response = client().post("/v1/designs", json={"prompt": "full"})
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0


def test_a_mistake_of_ours_is_no_500_and_tells_nothing() -> None:
    response = client().post("/v1/designs", json={"prompt": "broken"})
    assert response.status_code == 503
    assert "secret" not in response.text


def test_health_page_and_schema() -> None:
    assert client().get("/healthz").json()["status"] == "ok"
    assert client().get("/readyz").status_code == 503
    assert "<form>" in client().get("/").text
    assert client().get("/docs").status_code == 200
    paths = client().get("/openapi.json").json()["paths"]
    assert set(paths) == {"/v1/designs", "/healthz", "/readyz", "/metrics"}


def test_without_a_token_only_this_machine_may_ask() -> None:
    request = {"prompt": "a red apple"}
    assert client().post("/v1/designs", json=request).status_code == 200
    assert client(address=ELSEWHERE).post("/v1/designs", json=request).status_code == 403


@pytest.mark.parametrize(
    ("header", "status"), [(None, 401), ("Bearer wrong", 401), ("Basic secret", 401), ("Bearer secret", 200)]
)
def test_a_token_is_asked_of_everyone(header: str | None, status: int) -> None:
    headers = {"Authorization": header} if header else {}
    asked = client("secret", ELSEWHERE).post("/v1/designs", json={"prompt": "a"}, headers=headers)
    assert asked.status_code == status


LONG = b'{"prompt": "' + b"x" * MAX_BODY + b'"}'


def in_pieces() -> Iterator[bytes]:
    """The same without its length in a header."""
    yield LONG[:9]
    yield LONG[9:]


def test_who_may_not_ask_is_told_before_the_body_is_read() -> None:
    for asked, status in ((client("secret", ELSEWHERE), 401), (client(address=ELSEWHERE), 403)):
        assert asked.post("/v1/designs", content=LONG).status_code == status
        assert asked.post("/v1/designs", content=b"{").status_code == status


@pytest.mark.parametrize("content", [LONG, in_pieces()])
def test_a_long_body_is_refused_unparsed(content: bytes | Iterator[bytes]) -> None:
    refused = client("secret", ELSEWHERE).post(
        "/v1/designs", content=content, headers={"Authorization": "Bearer secret"}
    )
    assert refused.status_code == 413
    assert f"more than {MAX_BODY} bytes" in refused.json()["detail"]


@pytest.mark.parametrize("host", ["rebound.example", "a_b.example:8000", "[::1", "192.0.2.7"])
def test_without_a_token_other_names_of_this_machine_are_refused(host: str) -> None:
    """A page that somebody else's name server leads here is in the browser of this machine."""
    refused = client().post("/v1/designs", json={"prompt": "a"}, headers={"Host": host})
    assert refused.status_code == 403
    assert "set FLOWTAILOR_TOKEN" in refused.json()["detail"]
    headers = {"Host": host, "Authorization": "Bearer secret"}
    assert client("secret").post("/v1/designs", json={"prompt": "a"}, headers=headers).status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "[::1]:8000"])
def test_without_a_token_this_machine_is_asked_by_its_own_names(host: str) -> None:
    asked = client().post("/v1/designs", json={"prompt": "a"}, headers={"Host": host})
    assert asked.status_code == 200


def test_loopback_addresses() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.0.2.7", "example.org", "")))


def test_args_of_a_serve_file_are_checked() -> None:
    from flowtailor.serving.app import ServeArgs

    with pytest.raises(ValidationError, match="replica_count"):
        ServeArgs.model_validate({"run": "runs/quickstart", "replica_count": 2})


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory, space: Space) -> Path:
    """A run whose engine is a server that is away."""
    run_dir = tiny_run(tmp_path_factory.mktemp("serving") / "tiny", space)
    resolved = json.loads((run_dir / "config.resolved.json").read_text())
    resolved["config"]["engine"] |= {"kind": "urls", "urls": ["http://127.0.0.1:9"]}
    (run_dir / "config.resolved.json").write_text(json.dumps(resolved))
    return run_dir


def test_designs_are_valid_workflows_with_prompt_seed_and_forecast(run_dir: Path, space: Space) -> None:
    (answer,) = Designs.load(run_dir).answer([DesignRequest(prompt="a red apple", n=3, seed=43)])
    assert len(answer.designs) == 3
    rewards = [design.forecast.reward for design in answer.designs]
    assert rewards == sorted(rewards, reverse=True)
    for design in answer.designs:
        assert problems(design.workflow, space.catalog) == []
        values = [value for node in design.workflow.values() for value in node["inputs"].values()]
        assert 43 in values
        assert any("a red apple" in value for value in values if isinstance(value, str))
        assert design.summary
        assert set(design.forecast.scores) == set(SCORERS)
        assert design.forecast.score.std > 0
        assert design.forecast.seconds.mean > 0
        assert design.forecast.keeps_budget is None
        sizes = [abs(part.score.mean) for part in design.components]
        assert sizes and sizes == sorted(sizes, reverse=True)
        assert all(part.component and part.change and part.score.std > 0 for part in design.components)


def test_a_budget_that_no_design_keeps_is_told_and_not_refused(run_dir: Path) -> None:
    (answer,) = Designs.load(run_dir).answer([DesignRequest(prompt="an owl", n=2, budget_s=0.001)])
    assert [design.forecast.keeps_budget for design in answer.designs] == [False, False]
    seconds = [design.forecast.seconds.mean for design in answer.designs]
    assert seconds == sorted(seconds)


def test_an_answer_does_not_depend_on_its_batch(run_dir: Path) -> None:
    requests = [
        DesignRequest(prompt="an owl", n=2, seed=1),
        DesignRequest(prompt="a cat", n=1, guidance=0, budget_s=0.6),
        DesignRequest(prompt="an owl", n=2, seed=2, temperature=1.3),
    ]
    designs = Designs.load(run_dir)
    together = designs.answer(requests)
    alone = [designs.answer([request])[0] for request in requests]

    def tokens(answers: list[DesignResponse]) -> list[list[list[str]]]:
        return [[design.tokens for design in answer.designs] for answer in answers]

    assert [answer.prompt for answer in together] == ["an owl", "a cat", "an owl"]
    assert tokens(together) == tokens(alone)


@pytest.fixture(scope="module")
def served(run_dir: Path) -> Iterator[str]:
    """`flowtailor serve` as a person runs it; Ctrl-C must end it cleanly."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "flowtailor", "serve", "--run", str(run_dir), "--port", str(port)]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
    try:
        yield _ready(process, f"http://127.0.0.1:{port}")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def _ready(process: subprocess.Popen, url: str) -> str:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if requests.get(f"{url}/readyz", timeout=5).ok:
                return url
        except requests.RequestException:
            time.sleep(0.5)
    process.kill()
    pytest.fail(f"the endpoint did not start: {process.communicate()[1][-2000:]}")


@pytest.mark.ray
def test_a_served_policy_answers_many_at_once(served: str) -> None:
    def ask(number: int) -> requests.Response:
        body = {"prompt": f"{number} red apples", "n": 1 + number % 3, "seed": number}
        return requests.post(f"{served}/v1/designs", json=body, timeout=60)

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, range(12)))
    assert [answer.status_code for answer in answers] == [200] * 12
    for number, answer in enumerate(answers):
        content = DesignResponse.model_validate(answer.json())
        assert content.prompt == f"{number} red apples"
        assert len(content.designs) == 1 + number % 3
    again = ask(5).json()
    assert [d["tokens"] for d in again["designs"]] == [d["tokens"] for d in answers[5].json()["designs"]]


@pytest.mark.ray
def test_a_served_policy_refuses_bad_input_and_lives_without_an_engine(served: str) -> None:
    refused = requests.post(f"{served}/v1/designs", json={"prompt": " ", "n": 0}, timeout=60)
    assert refused.status_code == 422
    assert [problem["field"] for problem in refused.json()["detail"]] == ["prompt", "n"]
    no_picture = requests.post(f"{served}/v1/designs", json={"prompt": "an owl", "render": True}, timeout=60)
    assert (no_picture.status_code, "engine" in no_picture.json()["detail"]) == (502, True)
    metrics = requests.get(f"{served}/metrics", timeout=60).text
    assert 'flowtailor_requests_total{route="/v1/designs",status="422"} 1.0' in metrics
    assert 'flowtailor_pictures_failed_total{error="EngineAway"} 1.0' in metrics
    assert requests.get(f"{served}/healthz", timeout=60).json()["status"] == "ok"
    assert "<form>" in requests.get(served, timeout=60).text
    assert requests.get(f"{served}/docs", timeout=60).ok
