"""What can go wrong with a workflow on a ComfyUI, each under a name of its own, and its words for it.

Rows keep the names in `error_type`; which of them may be tried again is known to datasets/rows.py.
"""

from __future__ import annotations

from typing import Any

from flowtailor.errors import FlowtailorError

# CUDA's and ROCm's words, and the system's for a full disk, a broken one, and one that went away.
_OF_THE_MACHINE = (
    "CUDA error",
    "HIP error",
    "No space left on device",
    "Input/output error",
    "Stale file handle",
)


class ComfyUnavailable(FlowtailorError):
    """Nobody answers at the engine's address, or it went away in the middle."""


class ComfyBusy(ComfyUnavailable):
    """The engine worked for others for as long as there was time to wait."""


class ComfyRejected(FlowtailorError):
    """The engine's validation refused the workflow; `body` is its answer."""

    def __init__(self, body: dict[str, Any]) -> None:
        self.body = body
        super().__init__(f"ComfyUI refused the workflow: {_first_complaint(body)}; see `workflow check`")

    def __reduce__(self) -> tuple[Any, ...]:  # the default would replay the message as a body
        return type(self), (self.body,)


class ComfyExecutionError(FlowtailorError):
    """A node failed while the workflow ran."""

    def __init__(self, node_id: str, class_type: str, exception_type: str, message: str) -> None:
        self.node_id, self.class_type = node_id, class_type
        self.exception_type, self.message = exception_type, message
        super().__init__(f"node {node_id} ({class_type}) failed: {exception_type}: {message}")

    def __reduce__(self) -> tuple[Any, ...]:  # the default would replay the one joined message
        return type(self), (self.node_id, self.class_type, self.exception_type, self.message)


class ComfyOutOfMemory(ComfyExecutionError):
    """The GPU's memory was full, perhaps of what others had there."""


class ComfyMachineError(ComfyExecutionError):
    """The machine failed under the node: a GPU that lost its context, a full or unreadable disk."""


class ComfyInterrupted(FlowtailorError):
    """Somebody else stopped the workflow, as with Stop in ComfyUI's page; it is not to blame."""


class ComfyTimeout(FlowtailorError):
    """The picture was not ready in time; the engine was told to stop working on it."""


def failure(messages: dict[str, Any]) -> ComfyExecutionError | ComfyInterrupted:
    """Why a prompt has no picture, out of the messages of its history."""
    detail = messages.get("execution_error")
    if detail is None:
        return ComfyInterrupted(
            "somebody stopped the workflow on the engine; the same command tries it again"
        )
    message = " ".join(str(detail["exception_message"]).split())
    name = detail["exception_type"].rpartition(".")[2]
    return _kind(name, message)(str(detail["node_id"]), detail["node_type"], name, message)


def _kind(name: str, message: str) -> type[ComfyExecutionError]:
    """Whether the machine or the workflow is to blame for an exception of this name."""
    if name == "OutOfMemoryError" or "out of memory" in message:
        return ComfyOutOfMemory
    if name in ("AcceleratorError", "MemoryError") or any(sign in message for sign in _OF_THE_MACHINE):
        return ComfyMachineError
    return ComfyExecutionError


def _first_complaint(body: dict[str, Any]) -> str:
    """One line out of the engine's answer: the first node's first error, or the general one."""
    for node_id, node in (body.get("node_errors") or {}).items():
        for error in node.get("errors", []):
            return f"node {node_id} ({node.get('class_type')}): {error['message']}: {error['details']}"
    error = body.get("error") or {}
    return error.get("message", "no reason given") if isinstance(error, dict) else str(error)
