"""Which engines there are and how they come and go: processes of ours, and servers of others."""

from __future__ import annotations

import http.server
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from flowtailor.actors.client import ComfyClient
from flowtailor.actors.comfy import EngineConfig, engine, engine_name
from flowtailor.actors.comfy_errors import ComfyUnavailable
from flowtailor.errors import FlowtailorError
from flowtailor.studio.engine import new_run_dir


@pytest.mark.engine
def test_a_running_server_is_used_and_left_alone(comfy: ComfyClient) -> None:
    config = EngineConfig(kind="urls", urls=(comfy.base_url,))
    with engine(config) as client:
        assert engine_name(config, client) == "comfyui-0.3.75"
    assert comfy.system_stats()
    with engine(EngineConfig(kind="urls", urls=("http://127.0.0.1:9", comfy.base_url))) as client:
        assert client.base_url == comfy.base_url  # the first that answers


@pytest.mark.engine
def test_the_studio_s_name_tells_its_weights(comfy: ComfyClient, studio_engine: EngineConfig) -> None:
    assert engine_name(studio_engine, comfy).startswith("comfyui-0.3.75+studio-")


@pytest.mark.engine
def test_the_process_is_gone_after_the_block(studio_engine: EngineConfig) -> None:
    with engine(studio_engine) as client:
        url = client.base_url
        run_dir = client._output_dir
    with pytest.raises(ComfyUnavailable, match=url):
        ComfyClient(url).system_stats()
    assert run_dir is not None and not run_dir.exists()


OWNER = """
import sys, time
from flowtailor.actors.comfy import EngineConfig, start_engine
process = start_engine(EngineConfig())
print(process.process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.engine
def test_the_engine_dies_with_its_owner(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, env=environment)
    assert owner.stdout is not None
    engine_pid = int(owner.stdout.readline())
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    for _ in range(50):
        if not Path(f"/proc/{engine_pid}").exists():
            break
        time.sleep(0.1)
    else:
        pytest.fail("the engine outlived its owner by 5 s")
    assert not list(tmp_path.glob("flowtailor-engine-*"))


@pytest.fixture
def logs_stay_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines that do not start leave their log in the temporary folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.mark.usefixtures("logs_stay_here")
def test_an_engine_that_dies_while_starting_shows_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("raise RuntimeError('no CUDA today')")
    with pytest.raises(FlowtailorError, match=r"exit code 1.*no CUDA today"):
        engine(EngineConfig(kind="checkout", path=tmp_path)).__enter__()
    [log] = tmp_path.glob("flowtailor-engine-*")  # of its files only the log is kept
    assert "no CUDA today" in log.read_text()


@pytest.mark.usefixtures("logs_stay_here")
def test_a_slow_start_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("import time; time.sleep(60)")
    config = EngineConfig(kind="checkout", path=tmp_path, start_timeout_s=0.5)
    with pytest.raises(FlowtailorError, match=r"engine\.start_timeout_s = 0\.5"):
        engine(config).__enter__()


@pytest.mark.usefixtures("logs_stay_here")
def test_a_folder_without_comfyui_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FlowtailorError, match=r"holds no main\.py"):
        engine(EngineConfig(kind="checkout", path=tmp_path)).__enter__()
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("logs_stay_here")
def test_folders_of_owners_that_are_gone_are_removed(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    here = socket.gethostname()
    (tmp_path / f"flowtailor-engine-{here}_{gone.pid}-abc").mkdir()
    elsewhere = tmp_path / f"flowtailor-engine-{here}-2_{gone.pid}-abc"  # whose processes nobody here sees
    elsewhere.mkdir()
    ours = new_run_dir()
    assert set(tmp_path.iterdir()) == {ours, elsewhere}
    assert {new_run_dir(), ours, elsewhere} == set(tmp_path.iterdir())


def test_nobody_at_the_address() -> None:
    with pytest.raises(ComfyUnavailable, match=r"http://127\.0\.0\.1:9.*start it"):
        engine(EngineConfig(kind="urls", urls=("http://127.0.0.1:9",))).__enter__()


def test_a_page_for_people_at_the_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a proxy's, while what is behind it is mended."""
    (tmp_path / "system_stats").write_text("<html>back soon</html>")
    monkeypatch.chdir(tmp_path)
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(ComfyUnavailable, match="no JSON object; is a ComfyUI"):
            engine(EngineConfig(kind="urls", urls=(url,))).__enter__()
        server.shutdown()


STATS = """
from http.server import BaseHTTPRequestHandler, HTTPServer
class Stats(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"system": {}}')
HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Stats).serve_forever()
"""


@pytest.mark.usefixtures("logs_stay_here")
def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine is left out: what is reached must only answer."""
    (tmp_path / "main.py").write_text("import sys\n" + STATS)
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with engine(EngineConfig(kind="checkout", path=tmp_path, start_timeout_s=20)) as client:
        assert client.system_stats() == {"system": {}}
    assert ComfyClient("http://gpu-box:8188")._http.trust_env  # others may be behind the proxy


@pytest.mark.parametrize(
    "values",
    [
        {"kind": "urls"},
        {"kind": "checkout"},
        {"threds": 2},
        {"urls": ("http://127.0.0.1:8188",)},  # the toy studio would draw instead
        {"kind": "urls", "urls": ("http://127.0.0.1:8188",), "path": Path("ComfyUI")},
    ],
)
def test_half_a_configuration_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"urls|path|threds"):
        EngineConfig(**values)
