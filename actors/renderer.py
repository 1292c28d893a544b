"""Renders rows: a block of (prompt, workflow, seed) in, the same block with pictures or errors out.

A failed render is a row with `error_type` and `error_message`, never an exception. A row whose picture
exists is not rendered again. `Renderer`, the callable class for `ray.data.Dataset.map_batches`, owns an
engine, replaces it when it dies or hangs, gives up on a row that brought it down twice, and draws no row
that was planned for another engine (`EngineChanged`). Where no server answers, it waits once for one to come
back.
Columns in: row_id, prompt, workflow (JSON with slots), seed, and engine where it matters. Columns out:
seconds, width, height, image, image_sha256, error_type, error_message.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from flowtailor.errors import FlowtailorError

from ..studio.engine import EngineProcess
from ..workflows.graph import Workflow, takes_seed
from .client import ComfyClient
from .comfy import EngineConfig, engine_name, start_engine
from .comfy_errors import ComfyMachineError, ComfyRejected, ComfyTimeout, ComfyUnavailable
from .images import Images, Picture

_MESSAGE_CHARACTERS = 500
_TRIES = 2
_LOOK_AGAIN_S = 1.0  # for a server that is away
_DYING_S = 1.0  # its connections close before the process is gone
_OF_THIS_SERVER = (ComfyRejected.__name__, "EngineChanged")  # another one may have its model or its version


@dataclass(frozen=True)
class Outcome:
    """The columns that a render fills; either the picture's or the error's are None."""

    seconds: float | None = None
    width: int | None = None
    height: int | None = None
    image: str | None = None
    image_sha256: str | None = None
    error_type: str | None = None
    error_message: str | None = None

    @classmethod
    def of(cls, picture: Picture) -> Outcome:
        return cls(picture.seconds, picture.width, picture.height, picture.path, picture.sha256)

    @classmethod
    def failed(cls, error: Exception, name: str = "") -> Outcome:
        message = " ".join(str(error).split())[:_MESSAGE_CHARACTERS]
        return cls(error_type=name or type(error).__name__, error_message=message)


_DTYPES = {
    "seconds": "float64",
    "width": "Int32",
    "height": "Int32",
    "image": "str",
    "image_sha256": "str",
    "error_type": "str",
    "error_message": "str",
}


def render_row(client: ComfyClient, row: Any, images: Images, timeout_s: float, engine: str) -> Outcome:
    """Find or make one row's picture. Raises ComfyUnavailable, and OSError where it cannot be stored.

    engine: the client's; a row that was planned for another one would get a picture under a wrong id.
    """
    picture = images.find(row.row_id)
    if picture is None:
        if getattr(row, "engine", engine) != engine:
            changed = FlowtailorError(
                f"this engine is {engine}, the rows are of {row.engine}; run `flowtailor collect` again"
            )
            return Outcome.failed(changed, "EngineChanged")
        try:
            flow = drawn_anew(Workflow.loads(row.workflow))
            bound = flow.bind(row.prompt, int(row.seed), row.row_id)
            rendered = client.render(bound.to_api(), timeout_s)
            picture = images.write(row.row_id, rendered.png, rendered.seconds)
        except ComfyUnavailable:
            raise
        except (FlowtailorError, json.JSONDecodeError) as error:
            return Outcome.failed(error)
    return Outcome.of(picture)


def drawn_anew(flow: Workflow) -> Workflow:
    """What takes the seed is marked by a name that never was before, in an input that no node class declares.

    ComfyUI's cache tells nodes apart by all their inputs. It shall lend a picture the models that others
    loaded, but not what was drawn with the same prompt and seed by another workflow, or by this one for a
    client that was killed: its seconds would be too short.
    """
    drawing = [node_id for node_id, node in flow.nodes.items() if takes_seed(node)]
    mark = {"drawing": uuid.uuid4().hex}
    return flow.with_inputs(dict.fromkeys(drawing, mark))


class Renderer:
    """Owns one engine for as long as it lives and renders blocks of rows on it."""

    def __init__(
        self, engine: EngineConfig, images_dir: str, *, first_server: Callable[[], int] = lambda: 0
    ) -> None:
        """first_server: asked once for the number of the one of `engine.urls` to begin with."""
        self._config = engine
        self._images = Images(images_dir)
        self._process: EngineProcess | None = None
        self._server = first_server()
        self._client = self._connect()
        self._name: str | None = None  # of the engine, once it was asked
        self._given_up = False  # waiting for a server

    def __call__(self, batch: pd.DataFrame) -> pd.DataFrame:
        outcomes = [asdict(self._render(row)) for row in batch.itertuples(index=False)]
        columns = {
            name: pd.Series([outcome[name] for outcome in outcomes], index=batch.index, dtype=dtype)
            for name, dtype in _DTYPES.items()
        }
        return batch.assign(**columns)

    def close(self) -> None:
        """Stop the engine. Not needed when the process ends: the engine then ends as well."""
        self._client.close()
        if self._process:
            self._process.stop()

    def _render(self, row: Any) -> Outcome:
        outcome = self._tried(row)
        if outcome.error_type == ComfyUnavailable.__name__ and self._comes_back():
            outcome = self._tried(row)
        return outcome

    def _tried(self, row: Any) -> Outcome:
        """The row on this engine, and where that says nothing of the row, on others."""
        lost: Outcome | None = None
        for _ in range(max(_TRIES, len(self._config.urls))):
            try:
                self._name = self._name or engine_name(self._config, self._client)
                outcome = render_row(
                    self._client, row, self._images, self._config.render_timeout_s, self._name
                )
            except ComfyUnavailable as error:
                lost = self._lost(error)
                self._restart()
                continue
            self._given_up = False
            here_only = outcome.error_type in _OF_THIS_SERVER and len(self._config.urls) > 1
            if here_only or outcome.error_type == ComfyMachineError.__name__:
                if lost is None or not here_only:  # else one is away or busy that might have drawn it
                    lost = outcome
                self._restart()
                continue
            if outcome.error_type == ComfyTimeout.__name__ and not self._client.wait_idle():
                self._restart()
            return outcome
        assert lost is not None
        return lost

    def _lost(self, error: ComfyUnavailable) -> Outcome:
        """What a row is told if no other engine takes it either."""
        if self._process is None or not self._process.ends_within(_DYING_S):
            return Outcome.failed(error)
        died = FlowtailorError(f"ComfyUI died {_TRIES} times on this row: {self._process.log_tail()}")
        return Outcome.failed(died, "EngineDied")

    def _comes_back(self) -> bool:
        """Whether a server answers within `start_timeout_s`. Where none did, rows do not wait again until one
        has answered: thousands of them would."""
        deadline = time.monotonic() + self._config.start_timeout_s
        while not self._given_up:
            try:
                self._client.system_stats()
                return True
            except ComfyUnavailable:
                self._given_up = time.monotonic() > deadline
                self._restart()
                time.sleep(_LOOK_AGAIN_S)
        return False

    def _restart(self) -> None:
        """A new process, or the next server: one that is away must not turn all blocks into errors."""
        self.close()
        self._server += 1
        self._client, self._name = self._connect(), None

    def _connect(self) -> ComfyClient:
        if self._config.kind == "urls":
            return ComfyClient(self._config.urls[self._server % len(self._config.urls)])
        self._process = start_engine(self._config)
        return ComfyClient(self._process.url, self._process.run_dir / "output")
