"""One conversation with a running ComfyUI: ask what it has, submit, follow, fetch.

Promises: what the engine says about a workflow comes back as the picture with the seconds that the engine
spent on it (not those in its queue), or as one of the errors of comfy_errors.py. A lost websocket costs
nothing but the progress: the engine's history is the truth. Does not check workflows itself, and knows no
format but PNG.
"""

from __future__ import annotations

import json
import struct
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from flowtailor.machine import is_loopback

from .comfy_errors import (
    ComfyBusy,
    ComfyExecutionError,
    ComfyInterrupted,
    ComfyRejected,
    ComfyTimeout,
    ComfyUnavailable,
    failure,
)

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

Api = dict[str, Any]
Progress = Callable[[int, int], None]

_SETTLE_S = 5.0  # an interrupted engine stops at its next step; one that has not by then hangs
_HTTP_TIMEOUT_S = 30.0
_POLL_S = 0.05
_OF_THE_WORKFLOW = (200, 400, 413, 500)  # what ComfyUI answers to one; all else a proxy or another program
_OTHER_PROGRAM = "is a ComfyUI (not another program) there?"
_RECHECK_S = 1.0  # the history is asked this often even if the websocket says nothing


@dataclass(frozen=True)
class Rendered:
    """A finished picture. `seconds`: from the start to the end of execution on the engine."""

    png: bytes
    seconds: float
    width: int
    height: int


class ComfyClient:
    """One conversation with one engine. Use a client from one thread at a time."""

    def __init__(self, base_url: str, output_dir: Path | None = None) -> None:
        """`output_dir`: the folder of an engine of ours, from which fetched pictures are removed. Pictures of
        somebody else's go to its temporary folder, which ComfyUI empties when it starts."""
        import requests  # here: the configuration alone must stay quick to import

        self.base_url = base_url.rstrip("/")
        self._output_dir = output_dir
        self._client_id = uuid.uuid4().hex
        self._http = requests.Session()
        # A proxy of the environment, for the world outside, does not lead to this machine.
        self._http.trust_env = not is_loopback(urlsplit(self.base_url).hostname or "")
        self._socket: ClientConnection | None = None

    def close(self) -> None:
        self._hang_up()
        self._http.close()

    def _hang_up(self) -> None:
        """Close the websocket: ComfyUI sends to all of its clients in turn, and one that does not read would
        hold up the others."""
        if self._socket:
            self._socket.close()
            self._socket = None

    def system_stats(self) -> Api:
        return self._json("/system_stats")

    def object_info(self) -> Api:
        """Every node class that the engine has, with types, ranges and installed models."""
        return self._json("/object_info")

    def interrupt(self, prompt_id: str) -> None:
        """Stop one prompt, running or waiting."""
        self._withdraw(prompt_id)
        self._post("/interrupt", {"prompt_id": prompt_id})

    def _withdraw(self, prompt_id: str) -> None:
        self._post("/queue", {"delete": [prompt_id]})

    def wait_idle(self, timeout_s: float = _SETTLE_S) -> bool:
        """Whether the engine answers and has nothing left to do before `timeout_s` is over."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                queue = self._json("/queue")
            except ComfyUnavailable:
                return False
            if not queue["queue_running"] and not queue["queue_pending"]:
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)

    def free(self) -> None:
        """Let the engine drop its models and cached results before its next prompt."""
        self._post("/free", {"unload_models": True, "free_memory": True})

    def verdict(self, workflow: Any) -> tuple[bool, Api]:
        """Whether the engine accepts `workflow` (any JSON), and its answer. What it accepts is not run."""
        accepted, body = self._offer(workflow)
        if accepted:
            self.interrupt(body["prompt_id"])
        return accepted, body

    def submit(self, workflow: Api) -> str:
        """Queue a workflow and return its prompt id. Raises ComfyRejected."""
        accepted, body = self._offer(workflow)
        if not accepted:
            raise ComfyRejected(body)
        return body["prompt_id"]

    def render(self, workflow: Api, timeout_s: float = 60.0, on_progress: Progress | None = None) -> Rendered:
        """Run a bound workflow and fetch the last picture of its last SaveImage node.

        `on_progress(step, steps)` follows the sampler. Raises ComfyRejected, ComfyExecutionError,
        ComfyInterrupted, ComfyTimeout or ComfyUnavailable (ComfyBusy where it never began).
        """
        self._connect()
        try:
            prompt_id = self.submit(_placed(workflow, ours=self._output_dir is not None))
            entry = self._wait(prompt_id, timeout_s, on_progress)
        finally:
            self._hang_up()
        if entry is None:
            if self._waits(prompt_id):
                self._withdraw(prompt_id)  # an older ComfyUI would stop whatever runs, which is not ours
                raise ComfyBusy(
                    f"{self.base_url}: busy with others' workflows for {timeout_s:g} s; wait, or name more "
                    "servers in engine.urls"
                )
            self.interrupt(prompt_id)
            raise ComfyTimeout(f"no picture within {timeout_s:g} s; raise engine.render_timeout_s or do less")
        messages = dict(entry["status"]["messages"])
        if entry["status"]["status_str"] != "success":
            raise failure(messages)
        png = self._fetch_image(workflow, entry["outputs"])
        milliseconds = messages["execution_success"]["timestamp"] - messages["execution_start"]["timestamp"]
        return Rendered(png, milliseconds / 1000, *png_size(png))

    def _wait(self, prompt_id: str, timeout_s: float, on_progress: Progress | None) -> Api | None:
        """The history entry of a finished prompt; None where it has waited, or has run, for `timeout_s`."""
        deadline, waits = time.monotonic() + timeout_s, True
        while time.monotonic() < deadline:
            # Listen first, for at most _RECHECK_S: the message may be lost, the history is the truth.
            self._listen(prompt_id, min(deadline, time.monotonic() + _RECHECK_S), on_progress)
            entry = self._json(f"/history/{prompt_id}").get(prompt_id)
            if entry:
                return entry
            if waits and not self._waits(prompt_id):
                deadline, waits = time.monotonic() + timeout_s, False
        return None

    def _waits(self, prompt_id: str) -> bool:
        """Whether a prompt has not begun yet. Raises ComfyInterrupted where it is gone."""
        queue = self._json("/queue")
        pending, running = (
            any(prompt_id in entry for entry in queue.get(part, ()))
            for part in ("queue_pending", "queue_running")
        )
        # It may have ended since its history was asked for.
        if not pending and not running and prompt_id not in self._json(f"/history/{prompt_id}"):
            raise ComfyInterrupted("somebody took the workflow out of the engine's queue; try it again")
        return pending

    def _listen(self, prompt_id: str, until: float, on_progress: Progress | None) -> None:
        """Read the websocket until the prompt has ended or the time is over."""
        from websockets.exceptions import WebSocketException

        while self._socket and (left := until - time.monotonic()) > 0:
            try:
                text = self._socket.recv(timeout=left)
            except TimeoutError:
                return
            except (OSError, WebSocketException):
                self._socket = None  # from here on the history is polled
                break
            message = json.loads(text) if isinstance(text, str) else {}
            data = message.get("data")
            if not isinstance(data, dict) or data.get("prompt_id") != prompt_id:  # node packs send anything
                continue
            if message["type"] == "progress" and on_progress:
                on_progress(data["value"], data["max"])
            if message["type"] == "executing" and data["node"] is None:
                return
        time.sleep(max(0.0, min(_POLL_S, until - time.monotonic())))

    def _fetch_image(self, workflow: Api, outputs: Api) -> bytes:
        lists = {node_id: outputs.get(node_id, {}).get("images") for node_id in workflow}
        last = {node_id: images[-1] for node_id, images in lists.items() if images}
        shown = [node_id for node_id, image in last.items() if isinstance(image, dict)]  # of packs: texts
        saved = [node_id for node_id in shown if workflow[node_id]["class_type"] == "SaveImage"] or shown
        if not saved:
            raise ComfyExecutionError("", "", "NoImage", "the workflow ended without saving a picture")
        image = last[saved[-1]]
        png = self._get("/view", params=image).content
        if self._output_dir:
            (self._output_dir / image["subfolder"] / image["filename"]).unlink(missing_ok=True)
        return png

    def _connect(self) -> None:
        """Open the websocket; without one, progress is not seen and the history is polled."""
        if self._socket is not None:
            return
        from websockets.exceptions import WebSocketException
        from websockets.sync.client import connect

        url = "ws" + self.base_url.removeprefix("http") + f"/ws?clientId={self._client_id}"
        try:
            # No pings: a busy engine answers late, and the history tells of a dead one.
            self._socket = connect(
                url, open_timeout=_HTTP_TIMEOUT_S, ping_interval=None, max_size=None, proxy=None
            )
        except (OSError, TimeoutError, WebSocketException):
            self._socket = None

    def _offer(self, workflow: Any) -> tuple[bool, Api]:
        reply = self._request("POST", "/prompt", json={"prompt": workflow, "client_id": self._client_id})
        if reply.status_code not in _OF_THE_WORKFLOW:
            self._checked(reply)
        try:
            body = reply.json()
        except ValueError:  # a JSON shape that the engine's own code stumbles over
            body = {"error": {"type": "server_error", "message": f"HTTP {reply.status_code}"}}
        return reply.status_code == 200 and "prompt_id" in body, body

    def _get(self, path: str, **options: Any) -> Any:
        return self._checked(self._request("GET", path, **options))

    def _json(self, path: str) -> Api:
        """The JSON object at a path of the engine's."""
        reply = self._get(path)
        try:
            body = reply.json()
        except ValueError:  # a page for people
            body = None
        if not isinstance(body, dict):
            raise ComfyUnavailable(f"{reply.url} answered no JSON object; {_OTHER_PROGRAM}")
        return body

    def _post(self, path: str, data: Api) -> Any:
        return self._checked(self._request("POST", path, json=data))

    def _checked(self, reply: Any) -> Any:
        if not reply.ok:
            raise ComfyUnavailable(f"{reply.url} answered {reply.status_code}; {_OTHER_PROGRAM}")
        return reply

    def _request(self, method: str, path: str, **options: Any) -> Any:
        import requests

        try:
            return self._http.request(method, self.base_url + path, timeout=_HTTP_TIMEOUT_S, **options)
        except requests.RequestException as error:
            raise ComfyUnavailable(
                f"{self.base_url}: no ComfyUI answers ({type(error).__name__}); start it, or mend engine.urls"
            ) from error


def png_size(png: bytes) -> tuple[int, int]:
    """Width and height out of a PNG's header."""
    if png[:8] != b"\x89PNG\r\n\x1a\n":
        raise ComfyExecutionError("", "", "NotPNG", "the engine sent something that is no PNG")
    return struct.unpack(">II", png[16:24])


def _placed(workflow: Api, *, ours: bool) -> Api:
    """Where each SaveImage puts its picture.

    On an engine of ours under a name of its own: a cached result would name a file that is long gone. On
    somebody else's it is shown instead of saved.
    """
    fresh = dict(workflow)
    for node_id, node in workflow.items():
        if isinstance(node, dict) and node.get("class_type") == "SaveImage":
            inputs = dict(node.get("inputs", {}))
            prefix = inputs.pop("filename_prefix", "")
            if ours:
                inputs["filename_prefix"] = f"{prefix}-{uuid.uuid4().hex[:8]}"
            shown = node["class_type"] if ours else "PreviewImage"
            fresh[node_id] = {**node, "class_type": shown, "inputs": inputs}
    return fresh
