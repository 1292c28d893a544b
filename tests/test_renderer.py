"""Rows become pictures or error rows; engines that die or hang are replaced."""

from __future__ import annotations

import copy
import http.server
import io
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from flowtailor.actors import renderer as renderer_module
from flowtailor.actors.client import ComfyClient
from flowtailor.actors.comfy import EngineConfig
from flowtailor.actors.comfy_errors import ComfyMachineError
from flowtailor.actors.images import Images, PictureUnreadable, pixel_sha256, with_text
from flowtailor.actors.renderer import Renderer
from flowtailor.studio.engine import free_port

Api = dict[str, Any]


def rows(api: Api, *seeds: int, prompt: str = "a red apple") -> pd.DataFrame:
    flow = json.dumps(api)
    return pd.DataFrame(
        [{"row_id": f"{seed:04x}", "prompt": prompt, "workflow": flow, "seed": seed} for seed in seeds]
    )


def render(renderer: Renderer, frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rendered rows as records, with None where a value is missing."""
    done = renderer(frame)
    records = done.astype(object).where(done.notna(), None).to_dict("records")
    return [{str(name): value for name, value in record.items()} for record in records]


def png(color: str = "red", size: tuple[int, int] = (12, 8)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def images_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dataset") / "images"


@pytest.fixture(scope="module")
def renderer(studio: object, images_dir: Path) -> Iterator[Renderer]:
    renderer = Renderer(EngineConfig(count=1, render_timeout_s=30), str(images_dir))
    yield renderer
    renderer.close()


@pytest.mark.engine
def test_rows_get_their_pictures(renderer: Renderer, images_dir: Path, plain_api: Api) -> None:
    first, second = render(renderer, rows(plain_api, 1, 2))
    assert (first["image"], second["image"]) == ("images/00/0001.png", "images/00/0002.png")
    assert (first["width"], first["height"], first["error_type"]) == (128, 128, None)
    assert 0.05 < first["seconds"] < 30
    with Image.open(images_dir.parent / first["image"]) as image:
        assert pixel_sha256(image) == first["image_sha256"] != second["image_sha256"]
    assert not list(images_dir.rglob("*.tmp"))


@pytest.mark.engine
def test_workflows_share_models_but_not_what_was_drawn(renderer: Renderer, plain_api: Api) -> None:
    """Else the second would take the first one's latents, and a tenth of its time."""
    invert = {"class_type": "ImageInvert", "inputs": {"image": ["6", 0]}}
    save = {**plain_api["7"], "inputs": {**plain_api["7"]["inputs"], "images": ["invert", 0]}}
    render(renderer, rows(plain_api, 40))  # the prompt is known from here on
    (drawn,) = render(renderer, rows(plain_api, 41))
    inverting = rows({**plain_api, "invert": invert, "7": save}, 41).assign(row_id="0041-inverted")
    (inverted,) = render(renderer, inverting)
    assert inverted["image_sha256"] != drawn["image_sha256"]
    assert inverted["seconds"] > drawn["seconds"] / 2


@pytest.mark.engine
def test_a_picture_that_exists_is_not_rendered_again(
    renderer: Renderer, plain_api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = renderer(rows(plain_api, 1))
    monkeypatch.setattr(ComfyClient, "render", lambda *_: pytest.fail("rendered again"))
    pd.testing.assert_frame_equal(first, renderer(rows(plain_api, 1)))


@pytest.mark.engine
def test_rows_of_another_engine_wait_for_it(renderer: Renderer, plain_api: Api) -> None:
    render(renderer, rows(plain_api, 21))
    planned = rows(plain_api, 21, 22).assign(engine="comfyui-0.3.64")
    there, new = render(renderer, planned)
    assert there["error_type"] is None  # its picture is there and was of that engine
    assert new["error_type"] == "EngineChanged"
    assert "comfyui-0.3.75+studio" in new["error_message"] and "0.3.64" in new["error_message"]


@pytest.mark.engine
def test_failures_are_rows(renderer: Renderer, plain_api: Api) -> None:
    failing = copy.deepcopy(plain_api)
    patch = {"model": ["1", 0], "b1": 1.1, "b2": 1.2, "s1": 0.9, "s2": 0.2}
    failing["8"] = {"class_type": "FreeU", "inputs": patch}
    failing["5"]["inputs"]["model"] = ["8", 0]
    unknown = {**plain_api, "5": {"class_type": "DreamSampler", "inputs": {}}}
    frame = pd.concat([rows(failing, 10), rows(unknown, 11), rows(plain_api, 12)], ignore_index=True)
    frame.loc[len(frame)] = {"row_id": "0013", "prompt": "x", "workflow": "{not json", "seed": 13}

    fails, refused, fine, broken = render(renderer, frame)
    assert fails["error_type"] == "ComfyExecutionError" and "FreeU" in fails["error_message"]
    assert refused["error_type"] == "ComfyRejected" and "DreamSampler" in refused["error_message"]
    assert fine["error_type"] is None and fine["image"]
    assert broken["error_type"] == "JSONDecodeError"
    assert fails["image"] is refused["seconds"] is broken["width"] is None


@pytest.mark.engine
def test_a_slow_row_times_out_and_the_next_is_rendered(
    renderer: Renderer, plain_api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = copy.deepcopy(plain_api)
    slow["5"]["inputs"]["steps"] = 5000
    monkeypatch.setattr(renderer, "_config", renderer._config.model_copy(update={"render_timeout_s": 3.0}))
    late, fine = render(renderer, pd.concat([rows(slow, 20), rows(plain_api, 21)], ignore_index=True))
    assert late["error_type"] == "ComfyTimeout"
    assert fine["error_type"] is None


@pytest.mark.engine
def test_an_engine_killed_in_the_middle_is_replaced(renderer: Renderer, plain_api: Api) -> None:
    plain_api["5"]["inputs"]["steps"] = 60
    assert renderer._process is not None
    pid = renderer._process.process.pid
    threading.Timer(1.0, os.kill, (pid, signal.SIGKILL)).start()
    done = render(renderer, rows(plain_api, 30, 31))
    assert [row["error_type"] for row in done] == [None, None]
    assert renderer._process.process.pid != pid


def test_a_row_that_kills_the_engine_twice_is_given_up(
    tmp_path: Path, plain_api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault is injected: processes that are dead as soon as somebody talks to them."""
    started = []

    def start_dead(config: EngineConfig) -> Any:
        started.append(config)
        return silent(tmp_path, ended=True)

    monkeypatch.setattr(renderer_module, "start_engine", start_dead)
    [row] = render(Renderer(EngineConfig(), str(tmp_path)), rows(plain_api, 40))
    assert row["error_type"] == "EngineDied" and "out of memory" in row["error_message"]
    assert len(started) == 3  # the first, and one after each death


def silent(run_dir: Path, *, ended: bool) -> Any:
    """An engine process that does not answer."""
    return SimpleNamespace(
        url="http://127.0.0.1:9",
        run_dir=run_dir,
        log_tail=lambda: "out of memory",
        stop=lambda: None,
        ends_within=lambda seconds: ended,
    )


def test_an_engine_that_lives_and_does_not_answer_does_not_condemn_the_row(
    tmp_path: Path, plain_api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while the machine swaps."""
    monkeypatch.setattr(renderer_module, "start_engine", lambda config: silent(tmp_path, ended=False))
    config = EngineConfig(start_timeout_s=0.1)
    [row] = render(Renderer(config, str(tmp_path)), rows(plain_api, 41))
    assert row["error_type"] == "ComfyUnavailable"


def test_a_server_that_is_away_gives_retryable_rows(tmp_path: Path, plain_api: Api) -> None:
    config = EngineConfig(kind="urls", urls=("http://127.0.0.1:9",), start_timeout_s=0.1)
    renderer = Renderer(config, str(tmp_path))
    assert [row["error_type"] for row in render(renderer, rows(plain_api, 50))] == ["ComfyUnavailable"]
    started = time.monotonic()
    done = render(renderer, rows(plain_api, *range(51, 71)))  # it has waited once
    assert {row["error_type"] for row in done} == {"ComfyUnavailable"}
    assert time.monotonic() - started < 5


def test_a_server_that_comes_back_is_waited_for(tmp_path: Path, plain_api: Api) -> None:
    port = free_port()
    renderer = Renderer(
        EngineConfig(kind="urls", urls=(f"http://127.0.0.1:{port}",), start_timeout_s=30), str(tmp_path)
    )
    with poorer(port, after_s=1.5):
        [row] = render(renderer, rows(plain_api, 52))
    assert row["error_type"] == "ComfyRejected"  # it answered


@pytest.mark.engine
def test_a_server_that_is_away_leaves_its_rows_to_the_others(
    comfy: ComfyClient, tmp_path: Path, plain_api: Api
) -> None:
    config = EngineConfig(kind="urls", urls=("http://127.0.0.1:9", comfy.base_url))
    for first in (0, 1):
        renderer = Renderer(config, str(tmp_path / str(first)), first_server=lambda first=first: first)
        [row] = render(renderer, rows(plain_api, 60 + first))
        assert row["error_type"] is None


class Poorer(http.server.BaseHTTPRequestHandler):
    """A server of the same version that lacks a model."""

    version = "0.3.75"

    def answer(self, status: int, body: Api) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def do_GET(self) -> None:
        self.answer(200, {"system": {"comfyui_version": self.version}})

    def do_POST(self) -> None:
        self.answer(400, {"error": {"message": "Prompt outputs failed validation"}, "node_errors": {}})


@contextmanager
def poorer(port: int, *, after_s: float = 0.0) -> Iterator[str]:
    """The address of such a server, which answers some time later."""
    with http.server.HTTPServer(("127.0.0.1", port), Poorer, bind_and_activate=False) as server:

        def serve() -> None:
            time.sleep(after_s)
            server.server_bind()
            server.server_activate()
            server.serve_forever()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        if not after_s:
            wait_for_port(port)
        yield f"http://127.0.0.1:{port}"
        server.shutdown()
        thread.join()


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    pytest.fail("the server did not start")


@pytest.mark.engine
def test_what_one_server_refuses_another_may_draw(comfy: ComfyClient, tmp_path: Path, plain_api: Api) -> None:
    with poorer(free_port()) as url:
        drawn = Renderer(EngineConfig(kind="urls", urls=(url, comfy.base_url)), str(tmp_path / "a"))
        assert render(drawn, rows(plain_api, 70))[0]["error_type"] is None
        refused = Renderer(EngineConfig(kind="urls", urls=(url, url)), str(tmp_path / "b"))
        assert render(refused, rows(plain_api, 71))[0]["error_type"] == "ComfyRejected"


def test_what_one_server_refuses_another_that_is_away_might_draw(tmp_path: Path, plain_api: Api) -> None:
    with poorer(free_port()) as url:
        config = EngineConfig(kind="urls", urls=("http://127.0.0.1:9", url), start_timeout_s=0.1)
        [row] = render(Renderer(config, str(tmp_path)), rows(plain_api, 73))
        assert row["error_type"] == "ComfyUnavailable"  # it is tried again, by the next command


@pytest.mark.engine
def test_rows_for_one_version_go_to_the_server_that_has_it(
    comfy: ComfyClient, tmp_path: Path, plain_api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Poorer, "version", "0.30.0")
    with poorer(free_port()) as url:
        config = EngineConfig(kind="urls", urls=(url, comfy.base_url))
        planned = rows(plain_api, 72).assign(engine="comfyui-0.3.75")
        assert render(Renderer(config, str(tmp_path)), planned)[0]["error_type"] is None


@pytest.mark.engine
def test_an_engine_whose_machine_failed_is_replaced(
    studio: object, tmp_path: Path, plain_api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault is injected: the first render meets a GPU that lost its context."""
    whole, failures = (
        ComfyClient.render,
        [ComfyMachineError("5", "KSampler", "AcceleratorError", "CUDA error")],
    )

    def render_once_failing(self: ComfyClient, *arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return whole(self, *arguments)

    monkeypatch.setattr(ComfyClient, "render", render_once_failing)
    renderer = Renderer(EngineConfig(), str(tmp_path))
    first = renderer._process
    assert render(renderer, rows(plain_api, 73))[0]["error_type"] is None
    assert renderer._process is not first
    renderer.close()


@pytest.mark.parametrize("scheme", ["path", "file://", "memory://"])
def test_pictures_are_kept_with_their_facts(tmp_path: Path, scheme: str) -> None:
    place = {"path": str(tmp_path), "file://": f"file://{tmp_path}", "memory://": "memory://dataset"}[scheme]
    images = Images(f"{place}/images")
    assert images.find("abcd") is None
    written = images.write("abcd", png(), 1.25)
    assert images.find("abcd") == written
    assert (written.path, written.seconds, written.width, written.height) == (
        "images/ab/abcd.png",
        1.25,
        12,
        8,
    )


def test_a_damaged_picture_counts_as_missing(tmp_path: Path) -> None:
    images = Images(tmp_path)
    with pytest.raises(PictureUnreadable, match="damaged PNG"):
        images.write("abcd", png()[:-40], 1.0)
    assert images.find("abcd") is None
    images.write("abcd", png(), 1.0)
    file = tmp_path / "ab" / "abcd.png"
    file.write_bytes(file.read_bytes()[:60])
    assert images.find("abcd") is None
    file.write_bytes(png())  # a picture, but none of ours
    assert images.find("abcd") is None
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")  # in several chunks; the header of the second one is gone
    first, *others = buffer.getvalue().split(b"IDAT")
    file.write_bytes(first + b"IDAT" + others[0] + b"????" + b"IDAT".join(others[1:]))
    assert images.find("abcd") is None


def test_the_hash_is_of_the_pixels() -> None:
    plain, noted = (Image.open(io.BytesIO(data)) for data in (png(), with_text(png(), "key", "some text")))
    assert noted.text == {"key": "some text"}  # type: ignore[attr-defined]
    assert np.array_equal(np.asarray(plain), np.asarray(noted))
    assert pixel_sha256(plain) == pixel_sha256(noted)
    assert pixel_sha256(plain) != pixel_sha256(Image.open(io.BytesIO(png(size=(8, 12)))))
