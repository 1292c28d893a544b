"""A worker that dies while it trains, for tests of how a stage goes on."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import psutil


class KillOneWorker(threading.Thread):
    """Kills one Ray Train worker of this process as soon as `storage` holds a file like `checkpoint`."""

    def __init__(self, storage: Path, checkpoint: str) -> None:
        super().__init__(daemon=True)
        self.storage, self.checkpoint, self.killed = storage, checkpoint, False

    def run(self) -> None:
        deadline = time.monotonic() + 200
        while not self.killed and time.monotonic() < deadline:
            if next(self.storage.glob(self.checkpoint), None):
                for process in psutil.Process().children(recursive=True):
                    if "RayTrainWorker" in " ".join(process.cmdline()):
                        process.kill()
                        self.killed = True
                        break
            time.sleep(0.02)
