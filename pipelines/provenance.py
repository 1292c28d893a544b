"""What an output was made from, and with what: a hash of its inputs, versions, the git revision.

Promises: a fingerprint tells contents alone; where files lie, when they were written and in which order keys
come has no say in it. It does not know the code: a stage that computes otherwise has the same inputs.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel

VERSIONED = ("flowtailor", "ray", "torch", "transformers", "trl", "peft", "pyarrow")


def fingerprint(value: Any) -> str:
    """SHA-256 of a value made of plain data, pydantic models and paths; files count by content.

    A path that does not exist has a hash of its own, so that its appearance is a change.
    """
    digest = hashlib.sha256()
    _feed(digest, value)
    return digest.hexdigest()


def provenance() -> dict[str, Any]:
    """Versions of what computes, the git revision if there is one, and the time."""
    return {
        "versions": _versions(),
        "git_revision": _git_revision(),
        "written_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _feed(digest: Any, value: Any) -> None:
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if isinstance(value, Path):
        _feed_path(digest, value)
    elif isinstance(value, Mapping):
        digest.update(b"{")
        for key in sorted(value, key=str):
            digest.update(str(key).encode() + b":")
            _feed(digest, value[key])
        digest.update(b"}")
    elif isinstance(value, list | tuple):
        digest.update(b"[")
        for item in value:
            _feed(digest, item)
        digest.update(b"]")
    else:
        digest.update(json.dumps(value).encode() + b",")


def _feed_path(digest: Any, path: Path) -> None:
    if path.is_dir():
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            digest.update(str(file.relative_to(path)).encode() + b":")
            _feed_path(digest, file)
    elif path.is_file():
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    else:
        digest.update(b"missing")


@functools.cache
def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in VERSIONED:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


@functools.cache
def _git_revision() -> str | None:
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():  # an installed wheel: some other repository may lie around it
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None
