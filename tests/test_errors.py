"""Errors that people see: one line, and the exit code of the command line."""

from __future__ import annotations

import pytest

from flowtailor.errors import FlowtailorError, told_in_one_line


def test_a_script_ends_in_one_line(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended, told_in_one_line("study"):
        raise FlowtailorError("runs/mine: no such run folder; make one with `flowtailor run`")
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "study: error: runs/mine: no such run folder; make one with `flowtailor run`\n"
    )
