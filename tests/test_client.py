"""One conversation with an engine, on the real embedded ComfyUI: what comes back, and as which error."""

from __future__ import annotations

import http.server
import io
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flowtailor.actors.client import ComfyClient
from flowtailor.actors.comfy_errors import (
    ComfyBusy,
    ComfyExecutionError,
    ComfyInterrupted,
    ComfyRejected,
    ComfyTimeout,
    ComfyUnavailable,
    failure,
)
from flowtailor.datasets.rows import LOST, RETRYABLE_ERRORS
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
    error = failure({"execution_error": detail | {"exception_type": "torch.OutOfMemoryError"}})
    assert type(error).__name__ in RETRYABLE_ERRORS - LOST
    assert "node 3 (KSampler) failed: OutOfMemoryError" in str(error)


@pytest.mark.parametrize(
    ("exception_type", "message", "name"),
    [
        ("torch.AcceleratorError", "CUDA error: out of memory", "ComfyOutOfMemory"),
        (
            "torch.AcceleratorError",
            "CUDA error: an illegal memory access was encountered",
            "ComfyMachineError",
        ),
        ("RuntimeError", "HIP error: unspecified launch failure", "ComfyMachineError"),
        ("OSError", "[Errno 28] No space left on device: 'a.png'", "ComfyMachineError"),
        ("RuntimeError", "mat1 and mat2 shapes cannot be multiplied", "ComfyExecutionError"),
    ],
)
def test_what_the_machine_did_is_no_failure_of_the_workflow_for_good(
    exception_type: str, message: str, name: str
) -> None:
    detail = {"node_id": "3", "node_type": "KSampler"}
    error = failure(
        {"execution_error": detail | {"exception_type": exception_type, "exception_message": message}}
    )
    assert type(error).__name__ == name
    assert (name in RETRYABLE_ERRORS) == (name != "ComfyExecutionError")
    assert name not in LOST


@pytest.mark.engine
def test_without_a_websocket_the_history_is_polled(comfy: ComfyClient, plain_api: Api) -> None:
    client = ComfyClient(comfy.base_url)
    client._connect = lambda: None  # type: ignore[method-assign]
    assert client.render(bound(plain_api, seed=77)).width == 128


@pytest.mark.engine
def test_between_pictures_no_websocket_is_open(comfy: ComfyClient, plain_api: Api) -> None:
    """ComfyUI waits for a client that does not read, and all others with it."""
    comfy.render(bound(plain_api, seed=78))
    assert comfy._socket is None


def test_the_picture_is_the_last_of_the_last_save_image(tmp_path: Path) -> None:
    """Packs show pictures of their own, or texts under the name of pictures."""
    serve = ComfyClient("http://127.0.0.1:9")
    serve._get = lambda path, params: SimpleNamespace(content=params["filename"])  # type: ignore[method-assign]
    workflow = {node: {"class_type": kind} for node, kind in {"1": "SaveImage", "2": "PackPreview"}.items()}
    saved = {"images": [{"filename": "a.png", "type": "temp"}, {"filename": "b.png", "type": "temp"}]}
    preview = {"images": [{"filename": "pack.png", "type": "output"}]}
    packs = (preview, {"images": ["aGVsbG8="]}, {"images": []})
    for pack in packs:
        assert serve._fetch_image(workflow, {"1": saved, "2": pack}) == "b.png"
    assert serve._fetch_image(workflow, {"2": preview}) == "pack.png"
    with pytest.raises(ComfyExecutionError, match="without saving a picture"):
        serve._fetch_image(workflow, {"2": packs[1]})


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


def test_something_else_at_the_address(tmp_path: Path) -> None:
    handler = http.server.SimpleHTTPRequestHandler
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(ComfyUnavailable, match="404"):
            ComfyClient(f"http://127.0.0.1:{server.server_port}").system_stats()
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
