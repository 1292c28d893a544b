"""The training loop: stopped anywhere, it goes on as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from flowtailor.errors import FlowtailorError
from flowtailor.studio.training import Ema, cosine_lr, rng, train

STEPS = 40


class Tiny:
    """A linear model with dropout that learns to sum; its noise comes from both generators."""

    def __init__(self, width: int = 4, seed: int = 3):
        torch.manual_seed(seed)
        self.seed = seed
        self.model = nn.Linear(width, 1)
        self.ema = Ema(self.model, decay=0.9)

    def step(self, i: int) -> tuple[torch.Tensor, dict[str, float]]:
        x = torch.from_numpy(rng(self.seed, i).normal(size=(8, 4))).float()
        loss = (self.model(nn.functional.dropout(x, 0.1)) - x.sum(1, keepdim=True)).square().mean()
        return loss, {"loss": loss.item()}

    def train(self, out: Path, **options) -> list[torch.Tensor]:
        options = {"steps": STEPS, "peak_lr": 0.05, "log_every": 7, "echo": lambda _: None, **options}
        train(self.step, self.model, ema=self.ema, out=out, name="tiny", seed=self.seed, **options)
        return [p.detach().clone() for p in (*self.model.parameters(), *self.ema._mean.values())]


def log_lines(out: Path) -> list[dict]:
    lines = [json.loads(line) for line in (out / "tiny.log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def assert_equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> None:
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.fixture
def whole(tmp_path) -> list[torch.Tensor]:
    """The end of a run that nothing disturbed; its log is in `tmp_path / "whole"`."""
    return Tiny().train(tmp_path / "whole")


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_stopped_run_ends_like_an_undisturbed_one(tmp_path, whole, number, error):
    former = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    first = Tiny()

    real = first.step

    def interrupted(i: int) -> tuple[torch.Tensor, dict[str, float]]:
        if i == 17:
            os.kill(os.getpid(), number)  # the step goes on to its end all the same
        return real(i)

    first.step = interrupted
    said: list[str] = []
    try:
        with pytest.raises(error):
            first.train(tmp_path, echo=said.append)
    finally:
        signal.signal(signal.SIGTERM, former)
    assert "stopped after step 18 of 40" in said[-1]
    second = Tiny()
    with torch.no_grad():
        second.model.weight.fill_(9.0)  # whatever it starts from is replaced by the saved state
    assert_equal(second.train(tmp_path), whole)
    assert log_lines(tmp_path) == log_lines(tmp_path / "whole")


def test_a_killed_process_goes_on(tmp_path, whole):
    program = f"""
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_training import Tiny
tiny, out = Tiny(), Path({str(tmp_path)!r})
real = tiny.step
def step(i):
    if i == 23 and not (out / "killed").exists():
        (out / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return real(i)
tiny.step = step
tiny.train(out, save_every_s=0)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    said: list[str] = []
    assert_equal(Tiny().train(tmp_path, echo=said.append), whole)
    assert said[0] == "tiny: goes on after step 23 of 40"
    assert log_lines(tmp_path) == log_lines(tmp_path / "whole")


def test_lines_logged_after_the_last_save_are_not_there_twice(tmp_path, whole):
    tiny = Tiny()
    real = tiny.step

    def fails(i: int) -> tuple[torch.Tensor, dict[str, float]]:
        if i == 30:
            raise ValueError("a step that fails leaves the last save as it is")
        return real(i)

    tiny.step = fails
    with pytest.raises(ValueError, match="fails"):
        tiny.train(tmp_path)
    assert len(log_lines(tmp_path)) == 4
    assert_equal(Tiny().train(tmp_path), whole)
    assert log_lines(tmp_path) == log_lines(tmp_path / "whole")


def test_a_finished_run_does_nothing_again(tmp_path, whole):
    said: list[str] = []
    again = Tiny()
    again.step = lambda i: pytest.fail("a step")
    assert_equal(again.train(tmp_path / "whole", echo=said.append), whole)
    assert said == ["tiny: all 40 steps are done already"]


def test_progress_says_how_long_it_takes(tmp_path):
    said: list[str] = []
    Tiny().train(tmp_path, echo=said.append)
    assert "tiny:" in said[0] and "7/40" in said[0] and "loss=" in said[0] and "<" in said[0]
    assert [line["step"] for line in log_lines(tmp_path)] == [7, 14, 21, 28, 35, 40]


def test_another_model_is_refused_with_a_remedy(tmp_path, whole):
    with pytest.raises(FlowtailorError, match="delete it to start over"):
        Tiny(width=5).train(tmp_path / "whole", steps=50)


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    tiny = Tiny()
    real = tiny.step
    tiny.step = lambda i: (real(i)[0], {"loss": float("nan")})
    with pytest.raises(FlowtailorError, match="lower learning rate"):
        tiny.train(tmp_path)
    assert not (tmp_path / "tiny.state.pt").exists()


def test_it_learns(tmp_path):
    tiny = Tiny()
    tiny.train(tmp_path, steps=200)
    losses = [line["loss"] for line in log_lines(tmp_path)]
    assert losses[-1] < 0.5 * losses[0]


def test_learning_rate_rises_and_falls():
    rates = [cosine_lr(i, 100, 1.0, warmup=10) for i in range(101)]
    assert rates[0] == 0.1 and max(rates) == rates[10] == 1.0 and rates[100] < 1e-9
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_ema_lags_behind_and_arrives():
    model = nn.Linear(2, 1)
    ema = Ema(model, decay=0.99)
    with torch.no_grad():
        model.weight.fill_(1.0)
    for _ in range(400):
        ema.update()
    other = nn.Linear(2, 1)
    ema.copy_to(other)
    assert torch.allclose(other.weight, model.weight, atol=0.05) and not torch.equal(
        other.weight, model.weight
    )
