"""Errors that people see: one line, and the exit code of the command line."""

from __future__ import annotations

import pytest

from flowtailor.errors import FlowtailorError, told_in, told_in_one_line


def test_a_script_ends_in_one_line(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended, told_in_one_line("study"):
        raise FlowtailorError("runs/mine: no such run folder; make one with `flowtailor run`")
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "study: error: runs/mine: no such run folder; make one with `flowtailor run`\n"
    )


def test_a_traceback_tells_its_last_error_of_ours():
    first = "Traceback:\nflowtailor.actors.comfy_errors.ComfyUnavailable: no engine\n\nDuring handling ...\n"
    assert told_in(f"{first}flowtailor.errors.FlowtailorError: mend engine.urls\n") == "mend engine.urls"
    assert told_in("Traceback:\nTypeError: flowtailor.errors") is None
