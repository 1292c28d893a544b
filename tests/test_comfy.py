"""The engine's client and its life cycle, on the real embedded ComfyUI."""

from __future__ import annotations

import http.server
import io
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

import numpy as np
import pytest
from PIL import Image

from flowtailor.actors.client import _failure
from flowtailor.actors.comfy import (
    ComfyBusy,
    ComfyClient,
    ComfyExecutionError,
    ComfyInterrupted,
    ComfyRejected,
    ComfyTimeout,
    ComfyUnavailable,
    EngineConfig,
    engine,
    engine_name,
)
from flowtailor.datasets.rows import LOST, RETRYABLE_ERRORS
from flowtailor.errors import FlowtailorError
from flowtailor.studio.engine import new_run_dir
from flowtailor.workflows.graph import Workflow

Api = dict[str, Any]


def bound(api: Api, prompt: str = "a red apple", seed: int = 1) -> Api:
    return Workflow.from_api(api).bind(prompt, seed).to_api()


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(float)


@pytest.mark.engine
def test_a_workflow_becomes_a_picture(comfy: ComfyClient, plain_api: Api) -> None:
    steps: list[tuple[int, int]] = []
    apple = comfy.render(bound(plain_api, seed=11), on_progress=lambda step, of: steps.append((step, of)))
    assert (apple.width, apple.height) == (128, 128)
    assert 0.05 < apple.seconds < 30
    assert steps[-1] == (8, 8)
    middle = pixels(apple.png)[48:80, 48:80].mean(axis=(0, 1))
    assert middle[0] > 150 > middle[1]  # it is red


@pytest.mark.engine
def test_same_seed_same_pixels_even_without_the_cache(comfy: ComfyClient, plain_api: Api) -> None:
    first = comfy.render(bound(plain_api, seed=5))
    comfy.free()
    again = comfy.render(bound(plain_api, seed=5))
    other = comfy.render(bound(plain_api, seed=6))
    assert np.array_equal(pixels(first.png), pixels(again.png))
    assert not np.array_equal(pixels(first.png), pixels(other.png))


@pytest.mark.engine
def test_repeating_a_cached_workflow_gives_the_picture_again(comfy: ComfyClient, plain_api: Api) -> None:
    flow = bound(plain_api, seed=7)
    assert np.array_equal(pixels(comfy.render(flow).png), pixels(comfy.render(flow).png))


@pytest.mark.engine
def test_an_unknown_model_is_refused_with_its_name(comfy: ComfyClient, plain_api: Api) -> None:
    plain_api["1"]["inputs"]["ckpt_name"] = "dream.safetensors"
    with pytest.raises(ComfyRejected, match=r"dream\.safetensors"):
        comfy.render(bound(plain_api))
    accepted, body = comfy.verdict(bound(plain_api))
    assert not accepted
    assert "1" in body["node_errors"]


@pytest.mark.engine
def test_a_verdict_does_not_run_the_workflow(comfy: ComfyClient, plain_api: Api) -> None:
    accepted, body = comfy.verdict(bound(plain_api, seed=123))
    assert accepted
    assert comfy.verdict([1, 2])[0] is False  # even a JSON shape that makes the engine stumble
    comfy.render(bound(plain_api, seed=124))  # the engine is through with everything before this
    history = comfy._get(f"/history/{body['prompt_id']}").json().get(body["prompt_id"])
    assert history is None or history["status"]["status_str"] == "error"


@pytest.mark.engine
def test_a_failing_node_is_named(comfy: ComfyClient, plain_api: Api) -> None:
    patch = {"model": ["1", 0], "b1": 1.1, "b2": 1.2, "s1": 0.9, "s2": 0.2}
    plain_api["8"] = {"class_type": "FreeU", "inputs": patch}
    plain_api["5"]["inputs"]["model"] = ["8", 0]
    with pytest.raises(ComfyExecutionError, match="FreeU") as caught:
        comfy.render(bound(plain_api))
    assert (caught.value.node_id, caught.value.class_type) == ("8", "FreeU")
    assert caught.value.exception_type == "KeyError"


@pytest.mark.engine
def test_a_timeout_interrupts_the_engine(comfy: ComfyClient, plain_api: Api) -> None:
    plain_api["5"]["inputs"]["steps"] = 2000
    with pytest.raises(ComfyTimeout):
        comfy.render(bound(plain_api), timeout_s=1.0)
    plain_api["5"]["inputs"]["steps"] = 2
    started = time.monotonic()
    comfy.render(bound(plain_api))
    assert time.monotonic() - started < 20  # 2000 steps would take longer


@pytest.mark.engine
def test_stop_in_comfyuis_page_says_nothing_of_the_workflow(comfy: ComfyClient, plain_api: Api) -> None:
    plain_api["5"]["inputs"]["steps"] = 2000
    page = ComfyClient(comfy.base_url)
    with pytest.raises(ComfyInterrupted, match="tries it again") as caught:
        comfy.render(bound(plain_api), on_progress=lambda *_: page._post("/interrupt", {}))
    assert type(caught.value).__name__ in RETRYABLE_ERRORS & LOST


@pytest.mark.engine
def test_a_workflow_that_somebody_takes_out_of_the_queue_is_not_to_blame(
    comfy: ComfyClient, plain_api: Api
) -> None:
    slow = bound(plain_api, seed=33)
    next(node for node in slow.values() if node["class_type"] == "KSampler")["inputs"]["steps"] = 500
    others = comfy.submit(slow)
    threading.Timer(0.5, lambda: ComfyClient(comfy.base_url)._post("/queue", {"clear": True})).start()
    try:
        with pytest.raises(ComfyInterrupted, match="out of the engine's queue"):
            comfy.render(bound(plain_api, seed=34))
    finally:
        comfy.interrupt(others)
    assert comfy.wait_idle()


@pytest.mark.engine
def test_a_picture_stays_out_of_the_output_folder_of_somebody_s_server(
    comfy: ComfyClient, plain_api: Api
) -> None:
    guest, folder = ComfyClient(comfy.base_url), comfy._output_dir
    assert folder is not None
    for _ in "ab":  # the second time out of the engine's cache
        assert guest.render(bound(plain_api, seed=78)).width == 128
    assert not [*folder.rglob("*.png")]


def test_memory_that_is_full_is_tried_again_and_counts() -> None:
    """Another program may have had it; but a design that never fits must not be left out of a comparison."""
    detail = {"node_id": "3", "node_type": "KSampler", "exception_message": "Allocation on device"}
    error = _failure({"execution_error": detail | {"exception_type": "torch.OutOfMemoryError"}})
    assert type(error).__name__ in RETRYABLE_ERRORS - LOST
    assert "node 3 (KSampler) failed: OutOfMemoryError" in str(error)


@pytest.mark.engine
def test_without_a_websocket_the_history_is_polled(comfy: ComfyClient, plain_api: Api) -> None:
    client = ComfyClient(comfy.base_url)
    client._connect = lambda: None  # type: ignore[method-assign]
    assert client.render(bound(plain_api, seed=77)).width == 128


@pytest.mark.engine
def test_a_running_server_is_used_and_left_alone(comfy: ComfyClient) -> None:
    config = EngineConfig(kind="urls", urls=(comfy.base_url,))
    with engine(config) as client:
        assert engine_name(config, client) == "comfyui-0.3.75"
    assert comfy.system_stats()
    with engine(EngineConfig(kind="urls", urls=("http://127.0.0.1:9", comfy.base_url))) as client:
        assert client.base_url == comfy.base_url  # the first that answers


@pytest.mark.engine
def test_the_time_in_the_queue_is_not_the_workflow_s(comfy: ComfyClient, plain_api: Api) -> None:
    slow = bound(plain_api, seed=31)
    next(node for node in slow.values() if node["class_type"] == "KSampler")["inputs"]["steps"] = 500
    others = comfy.submit(slow)
    try:
        with pytest.raises(ComfyBusy, match="busy with others' workflows"):
            comfy.render(bound(plain_api, seed=32), timeout_s=0.3)
    finally:
        comfy.interrupt(others)
    assert comfy.wait_idle()


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


def test_something_else_at_the_address(tmp_path: Path) -> None:
    handler = http.server.SimpleHTTPRequestHandler
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(ComfyUnavailable, match="404"):
            ComfyClient(f"http://127.0.0.1:{server.server_port}").system_stats()
        server.shutdown()


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


@pytest.mark.parametrize("status", [401, 403, 404, 429, 502, 503, 504])
def test_what_only_a_proxy_answers_does_not_refuse_the_workflow(status: int, plain_api: Api) -> None:
    class Proxy(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_error(status)

    with http.server.HTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(ComfyUnavailable, match=str(status)):
            ComfyClient(f"http://127.0.0.1:{server.server_port}").submit(plain_api)
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


@pytest.mark.parametrize("values", [{"kind": "urls"}, {"kind": "checkout"}, {"threds": 2}])
def test_half_a_configuration_is_refused(values: Api) -> None:
    with pytest.raises(ValueError, match=r"urls|path|threds"):
        EngineConfig(**values)
