"""One ComfyUI process: how it is called, where it writes, how it is started, watched and stopped.

Promises: an engine ends with the process that started it (see launch.py), a clean stop leaves no files,
and one that dies is reported with the end of its log. Does not know the engine's API beyond "is it up".
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from flowtailor.errors import FlowtailorError
from flowtailor.machine import is_running

from .install import Studio

# A temporary folder may be of several machines; no name of one holds an underscore.
_PREFIX = f"flowtailor-engine-{socket.gethostname()}_"
_POLL_S = 0.1
_STOP_S = 5.0
# Whatever proxy the environment names: it does not lead to this machine.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_START_ATTEMPTS = 3  # a free port may be taken by another process before the engine binds it


@dataclass(frozen=True)
class Launch:
    """What to run: an interpreter, a main.py, its arguments, and additions to the environment."""

    main: Path
    arguments: tuple[str, ...]
    python: str = sys.executable
    environment: dict[str, str] = field(default_factory=dict)


def studio_launch(
    studio: Studio, run_dir: Path, threads: int, extra: tuple[str, ...] = (), *, gpu: bool = False
) -> Launch:
    """The studio's engine, on the CPU if not told otherwise, with only ComfyUI's own nodes, writing below
    `run_dir`."""
    for name in ("custom_nodes", "input", "output", "temp", "user", "front-end"):
        (run_dir / name).mkdir(parents=True, exist_ok=True)
    (run_dir / "models").symlink_to(studio.models, target_is_directory=True)
    (run_dir / "front-end" / "index.html").write_text("ComfyUI without a front end, driven by flowtailor.\n")
    # On a GPU in the CPU's precision, so that the pictures are the same but for rounding.
    arguments = ["--fp32-unet", "--fp32-vae"] if gpu else ["--cpu"]
    arguments += ["--use-pytorch-cross-attention", "--base-directory", str(run_dir)]
    arguments += ["--front-end-root", str(run_dir / "front-end"), "--disable-all-custom-nodes"]
    # Nodes of some thirty workflows: as good as all models then stay loaded (4 GB with each checkpoint's
    # own text encoder), and a picture's seconds are its workflow's, not those of reading another checkpoint.
    arguments += ["--disable-api-nodes", "--cache-lru", "300"]
    return Launch(
        studio.comfyui / "main.py",
        (*arguments, *extra),
        environment={**_thread_limits(threads), "PYTHONPATH": str(studio.site)},
    )


def checkout_launch(path: Path, run_dir: Path, threads: int, extra: tuple[str, ...] = ()) -> Launch:
    """The user's own ComfyUI with its models, custom nodes and, if it has one, its virtual environment."""
    main = path.expanduser().resolve() / "main.py"
    if not main.is_file():
        raise FlowtailorError(
            f"engine.path = {path}: holds no main.py; give the folder of a ComfyUI checkout"
        )
    own = [main.parent / name / "bin" / "python" for name in (".venv", "venv")]
    python = next((str(p) for p in own if p.exists()), sys.executable)
    arguments = ["--output-directory", str(run_dir / "output"), "--temp-directory", str(run_dir)]
    options = main.parent / "comfy" / "cli_args.py"
    if options.is_file() and "--database-url" in options.read_text():  # one process at a time may have it
        arguments += ["--database-url", f"sqlite:///{run_dir / 'comfyui.db'}"]
    return Launch(main, (*arguments, *extra), python, _thread_limits(threads))


def _thread_limits(threads: int) -> dict[str, str]:
    # Passive waiting: engines side by side would otherwise spin on each other's cores.
    return {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}


def new_run_dir() -> Path:
    """A temporary folder for one engine's output, removed when it stops.

    Folders whose owner was killed together with its engine are removed now.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*/"):
        owner = left.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdecimal() and not is_running(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))


class EngineProcess:
    """A running engine. Make it with `start`, end it with `stop`."""

    def __init__(self, process: subprocess.Popen, port: int, run_dir: Path) -> None:
        self.process, self.port, self.run_dir = process, port, run_dir
        self.url = f"http://127.0.0.1:{port}"

    @classmethod
    def start(cls, launch: Launch, run_dir: Path, timeout_s: float, port: int | None = None) -> EngineProcess:
        """Start an engine at `port`, or at a free one, and wait until it answers.

        Raises FlowtailorError with the end of the log when it dies or is not up within `timeout_s`; of its
        files only the log then stays, beside the folder. Nothing stays where the start is interrupted.
        """
        for attempt in range(1, _START_ATTEMPTS + 1):
            engine = cls._spawn(launch, run_dir, port or free_port())
            try:
                engine._wait_until_up(timeout_s)
                return engine
            except BaseException as error:
                engine._end_process()
                taken = isinstance(error, FlowtailorError) and "address already in use" in engine.log_tail()
                if taken and not port and attempt < _START_ATTEMPTS:
                    continue
                if isinstance(error, FlowtailorError):
                    shutil.move(engine.log_path, engine.kept_log_path)
                engine.stop()
                raise
        raise AssertionError("unreachable: the last attempt returns or raises")

    @classmethod
    def _spawn(cls, launch: Launch, run_dir: Path, port: int) -> EngineProcess:
        command = [launch.python, str(Path(__file__).with_name("launch.py")), str(launch.main)]
        command += ["--listen", "127.0.0.1", "--port", str(port), "--disable-auto-launch", *launch.arguments]
        with (run_dir / "engine.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # held open: its end tells the engine that we are gone
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **launch.environment, "FLOWTAILOR_RUN_DIR": str(run_dir)},
                start_new_session=True,  # Ctrl-C reaches us, and we stop the engine
            )
        return cls(process, port, run_dir)

    def _wait_until_up(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise FlowtailorError(
                    f"ComfyUI died while starting (exit code {self.process.returncode}): "
                    f"{self.log_tail()}; see {self.kept_log_path}"
                )
            if self._answers():
                return
            time.sleep(_POLL_S)
        raise FlowtailorError(
            f"ComfyUI did not answer within engine.start_timeout_s = {timeout_s:g}; raise it, or see "
            f"{self.kept_log_path}: {self.log_tail()}"
        )

    def _answers(self) -> bool:
        try:
            with _DIRECT.open(f"{self.url}/system_stats", timeout=2) as reply:
                stats = json.load(reply)
        except (OSError, ValueError):
            return False
        # Not another engine that was quicker to take this port: ours tells its own folder.
        system = stats.get("system") if isinstance(stats, dict) else None
        argv = system.get("argv") if isinstance(system, dict) else None
        return argv is None or any(str(self.run_dir) in argument for argument in argv)

    @property
    def log_path(self) -> Path:
        return self.run_dir / "engine.log"

    @property
    def kept_log_path(self) -> Path:
        """Where the log of an engine that did not start lies."""
        return self.run_dir.with_name(f"{self.run_dir.name}.log")

    def log_tail(self, lines: int = 3) -> str:
        """The last lines that say something, joined into one."""
        text = self.log_path.read_text(errors="replace")
        return " | ".join([line.strip() for line in text.splitlines() if line.strip()][-lines:])

    def ends_within(self, seconds: float) -> bool:
        """Whether the process is gone, or goes before the time is over."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self) -> None:
        """End the process and remove its files; may be called twice."""
        self._end_process()
        shutil.rmtree(self.run_dir, ignore_errors=True)

    def _end_process(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdin:
            self.process.stdin.close()


def free_port() -> int:
    """A TCP port of the loopback address that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
