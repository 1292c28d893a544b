"""Folders of seed workflows: those that ship, and what people put into one of their own."""

import json
from pathlib import Path
from typing import Any

import pytest

from flowtailor.datasets.flows import SHIPPED, load_seed_flows
from flowtailor.errors import FlowtailorError


def test_those_that_ship_are_named_by_their_files():
    assert list(load_seed_flows()) == sorted(file.stem for file in SHIPPED.glob("*.json"))


def test_a_file_that_an_editor_saved_with_a_mark_is_read(plain_api: dict[str, Any], tmp_path: Path):
    text = json.dumps(plain_api, ensure_ascii=False).replace("{prompt}", "{prompt}, \u96ea")
    (tmp_path / "mine.json").write_text(text, encoding="utf-8-sig")
    assert "{prompt}, \u96ea" in load_seed_flows(tmp_path)["mine"].dumps()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("99", r"mine\.json: node 6, input samples: links to missing node 99"),
        ("6", r"mine\.json: node 6, input samples: link to node 6 closes a cycle"),
    ],
)
def test_a_link_that_leads_nowhere_is_told_with_its_file(
    source: str, said: str, plain_api: dict[str, Any], tmp_path: Path
):
    plain_api["6"]["inputs"]["samples"] = [source, 0]
    (tmp_path / "mine.json").write_text(json.dumps(plain_api))
    with pytest.raises(FlowtailorError, match=said):
        load_seed_flows(tmp_path)


def test_what_holds_no_workflows_is_named(tmp_path: Path):
    with pytest.raises(FlowtailorError, match=r"space\.flows = .*/none: no such folder"):
        load_seed_flows(tmp_path / "none")
    with pytest.raises(FlowtailorError, match="holds no"):
        load_seed_flows(tmp_path)
    (tmp_path / "a.json").mkdir()
    with pytest.raises(FlowtailorError, match=r"a\.json: cannot be read \(Is a directory\)"):
        load_seed_flows(tmp_path)
    (tmp_path / "a.json").rmdir()
    (tmp_path / "b.json").write_bytes(b"{")
    with pytest.raises(FlowtailorError, match=r"b\.json: not JSON"):
        load_seed_flows(tmp_path)
