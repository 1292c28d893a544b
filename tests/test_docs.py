"""The documentation says what the code does: config keys and defaults, make targets, links."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from flowtailor.pipelines.config import Config

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def documented() -> dict[tuple[str, str], str]:
    """(section, key) -> default as docs/CONFIG.md writes it."""
    keys: dict[tuple[str, str], str] = {}
    section = ""
    for line in (ROOT / "docs/CONFIG.md").read_text().splitlines():
        if heading := re.fullmatch(r"## `\[(\w+)\]`", line):
            section = heading[1]
        elif row := re.match(r"\| `(\w+)` \| (.*?) \|", line):
            keys[section, row[1]] = row[2]
    return keys


def plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def test_every_config_key_is_documented_with_its_default() -> None:
    expected = {
        (section, key): plain(value)
        for section, values in Config().model_dump().items()
        for key, value in values.items()
    }
    written = documented()
    assert set(written) == set(expected)
    for place, text in written.items():
        value = None if text == "none" else tomllib.loads(f"value = {text.strip('`')}")["value"]
        assert value == expected[place], place


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)", page.read_text()))
    assert named <= targets
