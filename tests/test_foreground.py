"""`studio start`: an engine that a person opens in the browser, and that is gone after Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

from flowtailor.pipelines.cli import main
from flowtailor.studio.install import HERE, Studio, install_front_end


def test_a_taken_port_is_told_before_anything_starts(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["studio", "start", "--port", str(port)]) == 2
    assert f"--port {port}: " in capsys.readouterr().err
    assert main(["studio", "start", "--port", "70000"]) == 2


def test_the_front_end_is_the_one_that_the_engine_asks_for(studio: Studio) -> None:
    pinned = re.search(
        r"^comfyui-frontend-package==\S+", (HERE / "requirements/front_end.txt").read_text(), re.M
    )
    assert pinned
    assert pinned[0] in (studio.comfyui / "requirements.txt").read_text().split()


@pytest.fixture
def home(tmp_path: Path, studio: Studio) -> Path:
    """A FLOWTAILOR_HOME of our own that shares the installed parts."""
    (tmp_path / "home" / "studio").mkdir(parents=True)
    for part in (studio.comfyui.parent, studio.models):
        (tmp_path / "home" / "studio" / part.name).symlink_to(part)
    (tmp_path / "tmp").mkdir()
    return tmp_path / "home"


@pytest.mark.engine
@pytest.mark.parametrize("front_end", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_it_answers_until_ctrl_c_and_leaves_nothing(home: Path, front_end: bool) -> None:
    command = [sys.executable, "-m", "flowtailor", "studio", "start", "--port", "0"]
    if front_end:
        part = install_front_end().parent
        (home / "studio" / part.name).symlink_to(part)
        command.append("--front-end")
    environment = {**os.environ, "FLOWTAILOR_HOME": str(home), "TMPDIR": str(home.parent / "tmp")}
    started = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert started.stdout is not None
        address = re.search(r"http://127\.0\.0\.1:\d+", started.stdout.readline())
        assert address
        with urllib.request.urlopen(f"{address[0]}/system_stats") as answer:
            assert json.load(answer)["system"]["comfyui_version"] == "0.3.75"
        with urllib.request.urlopen(address[0]) as answer:
            assert ("<title>ComfyUI</title>" in answer.read().decode()) == front_end
        family = psutil.Process(started.pid).children(recursive=True)
        started.send_signal(signal.SIGINT)
        assert started.wait(30) == 0
    finally:
        started.kill()
    assert family
    assert not psutil.wait_procs(family, timeout=5)[1], "the engine outlived the command"
    assert not list((home.parent / "tmp").glob("flowtailor-*"))
    assert sorted(path.name for path in (home / "desk").iterdir()) == ["input", "output", "user"]
