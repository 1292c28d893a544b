"""`flowtailor studio start`: the studio's engine in the foreground, for people and other programs.

Promises: it listens on this machine alone, ends with the command however that ends, and leaves no
temporary files. What a person makes with it stays, under `$FLOWTAILOR_HOME/desk`: `output` (pictures),
`user` (settings and saved workflows of the front end), `input` (uploads).
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from flowtailor.errors import FlowtailorError
from flowtailor.files import downloads
from flowtailor.machine import why_not_listen

from .engine import EngineProcess, new_run_dir, studio_launch
from .install import Echo, install, install_front_end

_START_TIMEOUT_S = 90.0
_SAY = partial(print, flush=True)  # another program may wait for the address


def run_until_interrupted(port: int, *, front_end: bool = False, echo: Echo = _SAY) -> None:
    """Install what is missing, run one engine at `port` (0: a free one), return when Ctrl-C is pressed.

    Raises FlowtailorError where the port is not to be had, or the engine does not start or ends by itself.
    """
    if reason := why_not_listen("127.0.0.1", port):  # the engine would say it only after its start
        raise FlowtailorError(f"--port {port}: {reason}; choose another one")
    studio = install(echo=echo)
    # ComfyUI takes the later of two arguments, so these win over the ones for engines without a person.
    extra = ["--front-end-root", str(install_front_end(echo=echo))] if front_end else []
    desk = downloads() / "desk"
    for name in ("output", "user", "input"):
        (desk / name).mkdir(parents=True, exist_ok=True)
        extra += [f"--{name}-directory", str(desk / name)]
    _skip_welcome(desk / "user")
    run_dir = new_run_dir()
    launch = studio_launch(studio, run_dir, threads=1, extra=tuple(extra))
    engine = EngineProcess.start(launch, run_dir, _START_TIMEOUT_S, port)
    try:
        page = "; drop a design's JSON file on the page to open it" if front_end else ", without a web page"
        echo(f"studio: ComfyUI answers at {engine.url}{page}")
        echo(f"studio: pictures in {desk / 'output'}, log in {engine.log_path}; Ctrl-C stops it")
        code = engine.process.wait()
        raise FlowtailorError(f"ComfyUI ended by itself (exit code {code}): {engine.log_tail()}")
    except KeyboardInterrupt:
        echo("studio: stopped")
    finally:
        engine.stop()


def _skip_welcome(user: Path) -> None:
    """The front end greets a new user with a list of templates, of which none are installed."""
    settings = user / "default" / "comfy.settings.json"
    if not settings.exists():
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text(json.dumps({"Comfy.TutorialCompleted": True}))
