"""What keeps the service from starting: told in one line, before anything starts where it can be."""

from __future__ import annotations

import json
import logging
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny_run import tiny_run

from flowtailor.errors import FlowtailorError
from flowtailor.pipelines.config import ServeConfig
from flowtailor.serving import command
from flowtailor.serving.command import check_address, serve, url, with_address
from flowtailor.serving.guard import TOKEN_VARIABLE, find_token
from flowtailor.workflows.space import Space


def test_an_open_address_needs_a_token() -> None:
    with pytest.raises(FlowtailorError, match=r"serve.host 0\.0\.0\.0: .*FLOWTAILOR_TOKEN"):
        check_address("0.0.0.0", 0, token=None)
    check_address("0.0.0.0", 0, token="secret")


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(FlowtailorError, match=rf"serve.port {port}: .*--port"):
            check_address("127.0.0.1", port, token=None)


@pytest.mark.parametrize("port", [0, 99999])
def test_a_port_that_cannot_be_asked_for_is_named(port: int) -> None:
    with pytest.raises(FlowtailorError, match=rf"serve.port {port}: .* than or equal to .*--port"):
        with_address(ServeConfig(), None, port)


def test_what_is_given_of_an_address_replaces_the_runs() -> None:
    config = ServeConfig(host="192.0.2.7", port=9000, replicas=2)
    assert with_address(config, None, None) == config
    assert with_address(config, "::1", None) == config.model_copy(update={"host": "::1"})


@pytest.mark.parametrize("host", ["no.such.name.invalid", "192.0.2.7"])
def test_an_address_that_is_not_here_is_not_blamed_on_the_port(host: str) -> None:
    for token in (None, "secret"):
        with pytest.raises(FlowtailorError, match=rf"serve.host {host}: cannot listen there .*--host"):
            check_address(host, 8000, token)


def test_an_address_is_shown_as_browsers_take_it() -> None:
    assert url("127.0.0.1", 8000) == "http://127.0.0.1:8000"
    assert url("::1", 8000) == "http://[::1]:8000"


@pytest.mark.parametrize("around", ["secret", " secret\n"])
def test_a_token_is_read_without_the_space_around_it(around: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, around)
    assert find_token() == find_token(" ") == "secret"
    assert find_token(" other ") == "other"
    monkeypatch.setenv(TOKEN_VARIABLE, " ")
    assert find_token() is None


@pytest.mark.parametrize("token", ["café", "two\nlines"])
def test_a_token_that_no_header_carries_is_refused(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, token)
    with pytest.raises(FlowtailorError, match=r"FLOWTAILOR_TOKEN: .*openssl rand") as refused:
        find_token()
    assert token not in str(refused.value)
    with pytest.raises(FlowtailorError, match=r"args\.token: "):
        find_token(token)


def test_an_unfinished_run_is_not_served(tmp_path: Path) -> None:
    with pytest.raises(FlowtailorError, match=r"config\.resolved\.json"):
        serve(tmp_path)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory, space: Space) -> Path:
    return tiny_run(tmp_path_factory.mktemp("serving") / "whole", space)


@pytest.fixture
def broken_run(whole_run: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return shutil.copytree(whole_run, tmp_path / "broken")


def an_older_ensemble(run: Path) -> str:
    file = run / "reward/ensemble.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 1}))
    return r"reward: no reward ensemble to load \(format 1, this version reads \d+\); run .*fit-reward"


def no_grpo(run: Path) -> str:
    shutil.rmtree(run / "policy/grpo")
    return "has no policy/grpo; make it with `flowtailor grpo`"


def an_empty_policy(run: Path) -> str:
    (run / "policy/sft/vocabulary.json").unlink()
    return r"policy/sft: has no vocabulary\.json, so no policy; run `flowtailor sft`"


def no_space(run: Path) -> str:
    (run / "space.toml").unlink()
    return r"space\.toml: no such space file"


@pytest.mark.parametrize("broken", [an_older_ensemble, no_grpo, an_empty_policy, no_space])
def test_a_run_that_cannot_be_loaded_is_refused(broken_run: Path, broken: Callable[[Path], str]) -> None:
    rule = broken(broken_run)
    with pytest.raises(FlowtailorError, match=rule):
        serve(broken_run)


def test_the_refusal_is_one_line_and_starts_nothing(broken_run: Path) -> None:
    an_older_ensemble(broken_run)
    program = (
        "import sys; from flowtailor.pipelines.cli import main; code = main(sys.argv[1:]);"
        "sys.exit(code if {'torch', 'ray'}.isdisjoint(sys.modules) else 'heavy imports')"
    )
    words = [sys.executable, "-c", program, "serve", "--run", str(broken_run)]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert ended.stderr.startswith(f"flowtailor: error: {broken_run}/reward: no reward ensemble")


@pytest.mark.parametrize("deployment", ["Models", "Engine"])
def test_a_replica_that_cannot_start_logs_one_line(
    tmp_path: Path, deployment: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from flowtailor.serving import app

    monkeypatch.setattr(app, "logger", logging.getLogger("replica"))  # Ray's own keeps to its files
    with pytest.raises(FlowtailorError):
        getattr(app, deployment).func_or_class(app.ServeArgs(run=str(tmp_path)))
    (line,) = caplog.messages
    assert line.startswith(f"cannot start: {tmp_path}: has no config.resolved.json; make it with")


def test_what_a_replica_says_as_it_fails_is_the_commands_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray is left out: it takes a minute to give a replica up."""
    from ray import serve as ray_serve

    def run(*_: Any, **__: Any) -> None:
        raise RuntimeError("Deploying application flowtailor failed: ['Models'].")

    failed = SimpleNamespace(message="Traceback:\nflowtailor.errors.FlowtailorError: minilm-l6: no network")
    applications = {"flowtailor": SimpleNamespace(deployments={"Models": failed})}
    monkeypatch.setattr(ray_serve, "run", run)
    monkeypatch.setattr(ray_serve, "status", lambda: SimpleNamespace(applications=applications))
    for nothing in ("start", "delete"):
        monkeypatch.setattr(ray_serve, nothing, lambda *_, **__: None)
    with pytest.raises(FlowtailorError, match="minilm-l6: no network"):
        command._deploy_and_wait(tmp_path, ServeConfig(), None)
    failed.message = "Traceback:\nTypeError: a mistake of ours"
    with pytest.raises(RuntimeError, match="Deploying application"):
        command._deploy_and_wait(tmp_path, ServeConfig(), None)
