"""The training loop that every model of the studio shares: it may be stopped anywhere and goes on later.

Promises: a run that was interrupted and resumed ends with the same numbers, bit for bit, as one that
was not (on one machine, with one number of threads), because the random numbers of a step depend on
(seed, step) alone and the state is written whole or not at all. SIGINT and SIGTERM wait for the end of
the step, save, and then act as they would have; a SIGKILL costs at most `save_every_s`.
Does not know what it trains: the step gives the loss. Does not notice that the step or the data changed
between two runs of one name; its caller gives another name.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from flowtailor.errors import FlowtailorError
from flowtailor.files import written_whole

from .optimizer import Optimizer

# Of one step: the loss to take the gradient of, and numbers for the log.
Step = Callable[[int], tuple[Tensor, dict[str, float]]]


def rng(seed: int, step: int) -> np.random.Generator:
    """The random numbers of one step, whatever came before it."""
    return np.random.default_rng([seed, step])


def seed_torch(seed: int, step: int) -> None:
    """The same for torch: dropout and noise drawn within a step."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step]).generate_state(1)[0]))


def cosine_lr(step: int, steps: int, peak: float, warmup: int) -> float:
    """Up to `peak` in a straight line over `warmup` steps, then down to zero along half a cosine."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


class Ema:
    """Running mean of a module's weights; short at first, so that it forgets the initial ones.

    Buffers are not averaged: `copy_to` leaves the target's own.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module, self._decay, self._updates = module, decay, 0
        self._mean = {name: p.detach().float().clone() for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self) -> None:
        self._updates += 1
        weight = 1 - min(self._decay, (1 + self._updates) / (10 + self._updates))
        for name, p in self._module.named_parameters():
            self._mean[name].lerp_(p.detach().float(), weight)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Write the means into `module`, the averaged one or another of its kind."""
        for name, p in module.named_parameters():
            p.copy_(self._mean[name])

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self._updates, "mean": self._mean}

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> None:
        if state_dict["mean"].keys() != self._mean.keys():
            raise KeyError("other weights than those of the module")
        self._updates = state_dict["updates"]
        for name, mean in state_dict["mean"].items():
            self._mean[name].copy_(mean)


def train(
    step: Step,
    module: nn.Module,
    *,
    steps: int,
    peak_lr: float,
    out: Path,
    name: str,
    warmup: int | None = None,
    weight_decay: float = 0.0,
    seed: int = 0,
    ema: Ema | None = None,
    after: Callable[[int], None] = lambda done: None,
    save_every_s: float = 120,
    log_every: int = 50,
    echo: Callable[[str], None] = print,
) -> None:
    """Train what of `module` requires gradients, for the steps that `out/NAME.state.pt` does not hold yet.

    The gradient is clipped to length 1; the learning rate warms up for a twentieth of the steps, if not for
    `warmup`. `ema` is updated with the weights; `after` is called with the number of steps done.
    The means of the numbers over `log_every` steps are appended to `out/NAME.log.jsonl` with the seconds
    trained so far, and echoed with the time that is left.
    """
    out.mkdir(parents=True, exist_ok=True)
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = Optimizer(parameters, weight_decay=weight_decay)
    warmup = max(1, steps // 20) if warmup is None else warmup
    state = {"module": module, "optimizer": optimizer} | ({} if ema is None else {"ema": ema})
    run = _Run(name, state, out)
    run.load()
    if run.done >= steps:
        echo(f"{name}: all {steps} steps are done already")
        return
    if run.done:
        echo(f"{name}: goes on after step {run.done} of {steps}")

    def update(i: int) -> dict[str, float]:
        seed_torch(seed, i)
        loss, numbers = step(i)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step(cosine_lr(i, steps, peak_lr, warmup))
        if ema is not None:
            ema.update()
        after(i + 1)
        return numbers

    with _stop_requests() as stop:
        _advance(run, update, steps, stop, save_every_s=save_every_s, log_every=log_every, echo=echo)
    if run.done < steps:
        echo(f"{name}: stopped after step {run.done} of {steps}; the same command goes on from there")
    for number in stop[:1]:  # the handlers are the former ones again
        signal.raise_signal(number)
    if run.done < steps:  # a former handler that lets pass; half a training must not look like a whole one
        raise KeyboardInterrupt


def _advance(
    run: _Run,
    update: Callable[[int], dict[str, float]],
    steps: int,
    stop: list[int],
    *,
    save_every_s: float,
    log_every: int,
    echo: Callable[[str], None],
) -> None:
    """Step after step, told of and saved in time, until all are done or something is in `stop`."""
    first, before_s, began = run.done, run.seconds, time.monotonic()
    saved = began
    while run.done < steps and not stop:
        run.add(update(run.done))
        now = time.monotonic()
        run.seconds = before_s + now - began
        if run.done % log_every == 0 or run.done == steps:
            echo(_told(run.name, run.log(), first, run.done, steps, now - began))
        if stop or now - saved >= save_every_s or run.done == steps:
            run.save()
            saved = time.monotonic()


def _told(name: str, means: Mapping[str, float], first: int, done: int, steps: int, seconds: float) -> str:
    """The progress line."""
    numbers = ", ".join(f"{key}={value:.4g}" for key, value in means.items())
    return tqdm.format_meter(done, steps, seconds, prefix=name, initial=first, postfix=numbers, unit="step")


class _Run:
    """How far one training has come, on disk and in memory."""

    def __init__(self, name: str, state: Mapping[str, nn.Module | Optimizer | Ema], folder: Path) -> None:
        self.name, self.state = name, state
        self.path, self.log_path = folder / f"{name}.state.pt", folder / f"{name}.log.jsonl"
        self.done, self.seconds = 0, 0.0
        self.sums: dict[str, float] = {}
        self.summed = 0  # steps since the last line of the log

    def add(self, numbers: dict[str, float]) -> None:
        if not all(map(math.isfinite, numbers.values())):  # before it can be saved
            raise FlowtailorError(f"{self.name}: {numbers} at step {self.done}; take a lower learning rate")
        for key, value in numbers.items():
            self.sums[key] = self.sums.get(key, 0.0) + value
        self.summed += 1
        self.done += 1

    def log(self) -> dict[str, float]:
        means = {key: value / self.summed for key, value in self.sums.items()}
        line = json.dumps({"step": self.done, **means, "seconds": round(self.seconds, 1)})
        with self.log_path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        self.sums, self.summed = {}, 0
        return means

    def save(self) -> None:
        progress = {"done": self.done, "seconds": self.seconds, "sums": self.sums, "summed": self.summed}
        states = {key: one.state_dict() for key, one in self.state.items()}
        with written_whole(self.path) as new, new.open("wb") as file:
            torch.save({"progress": progress, "state": states}, file)
            file.flush()
            os.fsync(file.fileno())

    def load(self) -> None:
        if not self.path.exists():
            self.log_path.unlink(missing_ok=True)
            return
        saved = torch.load(self.path, map_location="cpu", weights_only=True)
        try:
            for key, one in self.state.items():
                one.load_state_dict(saved["state"][key])
        except (KeyError, RuntimeError, ValueError) as error:
            raise FlowtailorError(
                f"{self.path} belongs to another model ({error}); delete it to start over"
            ) from error
        for key, value in saved["progress"].items():
            setattr(self, key, value)
        self._forget_lines_after_the_save()

    def _forget_lines_after_the_save(self) -> None:
        if self.log_path.exists():
            lines = self.log_path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= self.done]
            self.log_path.write_text("".join(kept), encoding="utf-8")


@contextlib.contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM, so that no step is cut in half; the second one acts at once."""
    seen: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # only that one may set handlers
        yield seen
        return

    def remember(number: int, _: Any) -> None:
        seen.append(number)
        restore()

    former = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in former.items():
            signal.signal(number, handler)

    try:
        yield seen
    finally:
        restore()
