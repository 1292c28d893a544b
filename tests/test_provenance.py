"""What an output was made from: hashes that change with what is in the inputs, and with nothing else."""

from __future__ import annotations

from pathlib import Path

from flowtailor.pipelines.config import Config
from flowtailor.pipelines.provenance import fingerprint


def test_fingerprints_follow_content_not_names_order_or_time(tmp_path: Path):
    folder = tmp_path / "inputs"
    folder.mkdir()
    missing = fingerprint({"data": folder / "a"})
    (folder / "a").write_text("1")
    first = fingerprint({"data": folder, "config": Config().reward})
    assert first == fingerprint({"config": Config().reward, "data": folder})
    (folder / "a").write_text("2")
    assert first != fingerprint({"data": folder, "config": Config().reward})
    assert missing != fingerprint({"data": folder / "a"})
    assert fingerprint(["ab", "c"]) != fingerprint(["a", "bc"])
