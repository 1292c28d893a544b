"""The command line: light to start, one clear line per mistake, the exit codes it promises."""

import errno
import subprocess
import sys

import pytest

from flowtailor.errors import FlowtailorError
from flowtailor.pipelines import collect
from flowtailor.pipelines.cli import STAGES, main

VERBS = ("studio", "catalog", "workflow", "design", "serve", *STAGES)


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def test_help_imports_nothing_heavy():
    output = run_python(
        "import sys\n"
        "from flowtailor.pipelines.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print('HEAVY', {'torch', 'ray', 'pydantic', 'pandas', 'pyarrow', 'transformers'} & set(sys.modules))"
    )
    assert "HEAVY set()" in output
    assert all(verb in output for verb in VERBS)


@pytest.mark.parametrize("arguments", [["--help"], *([verb, "--help"] for verb in VERBS)])
def test_every_verb_explains_itself(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 0
    assert "usage: flowtailor" in capsys.readouterr().out


def test_a_mistake_is_one_line_and_2(capsys: pytest.CaptureFixture[str]):
    assert main(["collect", "--set", "collect.flow=3"]) == 2
    assert capsys.readouterr().err.startswith("flowtailor: error: collect.flow: unknown config key")


@pytest.mark.parametrize("arguments", [["--debug", "collect"], ["collect", "--debug"]])
def test_debug_shows_where_it_came_from(arguments: list[str]):
    with pytest.raises(FlowtailorError):
        main([*arguments, "--set", "collect.flow=3"])


class WorkerFailure(Exception):
    """Carries a worker's error as Ray does, as an object or in its text."""

    __module__ = "ray.exceptions"

    def __init__(self, cause: Exception | None = None, text: str = "long text with a traceback") -> None:
        super().__init__(text)
        self.cause = cause


class ActorDiedError(Exception):
    """As Ray's of that name."""

    __module__ = "ray.exceptions"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/data/x"),
            2,
            "no space left on the disk",
        ),
        (WorkerFailure(FlowtailorError("port 1: taken")), 2, "error: port 1: taken"),
        (WorkerFailure(text="a\nflowtailor.actors.comfy_errors.ComfyTimeout: slow\nb"), 2, "error: slow"),
        (ActorDiedError("The actor died.\nlong"), 2, "a worker was lost (The actor died.); repeat"),
        (WorkerFailure(text="a\nOSError: [Errno 28] Error writing bytes\nb"), 2, "no space left"),
    ],
)
def test_what_stops_a_stage_is_told_in_one_line(
    error: BaseException,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(collect, "run_stage", fail)
    assert main(["collect"]) == code
    output = capsys.readouterr().err
    assert said in output
    assert "Traceback" not in output


def test_a_programming_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(collect, "run_stage", fail)
    with pytest.raises(ZeroDivisionError):
        main(["collect"])


def test_overrides_and_dry_run_reach_the_stage(monkeypatch: pytest.MonkeyPatch):
    seen = {}
    monkeypatch.setattr(collect, "run_stage", lambda config, dry_run: seen.update(config=config, dry=dry_run))
    assert main(["collect", "--set", "collect.flows=7", "--set", "run.name=other", "--dry-run"]) == 0
    assert seen["config"].collect.flows == 7
    assert seen["config"].run.name == "other"
    assert seen["dry"] is True
