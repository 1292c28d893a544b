"""The hacking alarm of GRPO: does the ensemble still foresee what the policy's designs really score?

Before the first step, every `grpo.audit_every` steps and after the last, the policy designs for a fixed
set of prompts with fixed seeds; the designs are rendered, scored and compared with what the ensemble
foresaw. A mean of predicted less rendered score above `grpo.audit_max_gap` means that the policy has found
the ensemble's errors: training stops, and the adapter of the last audit that passed is kept.

Rows and pictures lie in `policy/audit`, a dataset of its own, because training depends on the rows of the
collection; what either of them holds is not rendered again. The prompts are validation prompts first,
on which nothing was fitted. A design that fails to render scores 0. What the scorers overlook, an
audit overlooks as well.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from flowtailor.errors import FlowtailorError

from ..datasets.prompts import Prompt, choose_prompts, load_prompts
from ..datasets.rows import weighted_score
from ..datasets.store import Store
from ..workflows.space import Space
from .config import Config
from .engines import render_here
from .plan import designed_rows
from .renders import Render, rendered_rows
from .stage import Run, write_json
from .statistics import Interval, bootstrap_mean

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from ..models.designing import Designer
    from ..models.reward import RewardEnsemble

ALARM = "alarm.json"


@dataclass(frozen=True)
class Audit:
    """What an audit found after `step` steps; means over prompts; gap: predicted less rendered."""

    step: int
    predicted: float
    rendered: Interval
    gap: Interval
    designs: int
    failed: int


def compare(step: int, rows: pd.DataFrame, weights: Mapping[str, float]) -> Audit:
    """The audit of rendered rows that carry what was `predicted` of them."""
    predicted, rendered = rows["predicted"].to_numpy(dtype=float), weighted_score(rows, weights)
    return Audit(
        step,
        float(predicted.mean()),
        bootstrap_mean(rendered),
        bootstrap_mean(predicted - rendered),
        len(rows),
        int(rows["error_type"].notna().sum()),
    )


def audit_prompts(config: Config) -> list[Prompt]:
    """The prompts of every audit of a configuration: validation prompts, then training prompts."""
    validation = min(config.grpo.audit_designs, config.prompts.validation)
    counts = {"validation": validation, "train": config.grpo.audit_designs - validation}
    return choose_prompts(load_prompts(config.prompts.file), counts)


class Auditor:
    """Draws, renders and compares; the same step of the same policy is the same audit."""

    def __init__(
        self,
        config: Config,
        space: Space,
        designer: Designer,
        ensemble: RewardEnsemble,
        render: Render = render_here,
    ) -> None:
        """designer: holds the policy in training as its one adapter."""
        run = Run(config)
        self._config, self._space, self._designer, self._ensemble = config, space, designer, ensemble
        self._render = render
        self._prompts = audit_prompts(config)
        self._collected, self._store = run.dataset, Store(run.path("policy/audit"))
        self._engine = run.engine()

    def __call__(self, step: int) -> Audit:
        """Audit the policy as it stands. Raises FlowtailorError where an engine was lost."""
        rows = rendered_rows(
            self._config,
            self._plan(),
            self._store,
            known=[self._collected],
            render=self._render,
            label=f"audit after {step} steps",
        )
        return compare(step, rows, self._config.scorers.weights)

    def _plan(self) -> pd.DataFrame:
        """A row for each prompt's design, with its predicted score."""
        grpo, seed = self._config.grpo, self._config.run.seed
        texts = [prompt.text for prompt in self._prompts]
        model = self._designer.policy.model
        training = model.training
        model.eval()
        drawn = self._designer.design(
            texts, temperature=grpo.temperature, seed=seed, adapter=self._designer.adapters[0]
        )
        model.train(training)
        tokens = [tuple(designs[0].tokens) for designs in drawn]
        designs = zip(self._prompts, tokens, strict=True)
        planned = designed_rows(designs, self._space, engine=self._engine, seeds=1, seed=seed)
        predictions = self._ensemble.predict(texts, tokens)
        return planned.assign(predicted=predictions.score(self._config.scorers.weights)[0])


class Alarm:
    """Keeps the adapter of the last audit that passed, and remembers the audit that did not."""

    def __init__(
        self, audit: Callable[[int], Audit], save_adapter: Callable[[Path], None], max_gap: float
    ) -> None:
        self.raised: Audit | None = None
        self._audit, self._save_adapter, self._max_gap = audit, save_adapter, max_gap
        self._passed: Path | None = None

    def check(self, step: int, folder: Path) -> Audit:
        """Audit; a policy that passes is written to a place in `folder`, instead of the one before."""
        audit = self._audit(step)
        if not audit.gap.value <= self._max_gap:  # nor where it is no number
            self.raised = audit
        else:
            self._passed = folder / "audited"
            shutil.rmtree(self._passed, ignore_errors=True)
            self._save_adapter(self._passed)
        return audit

    def save(self, folder: Path) -> None:
        """Write the adapter, or after an alarm the one that passed before it, if any, and the audit."""
        if self.raised is None:
            return self._save_adapter(folder)
        if self._passed is not None:
            shutil.copytree(self._passed, folder, dirs_exist_ok=True)
        return write_json(folder / ALARM, {**asdict(self.raised), "max_gap": self._max_gap})


def alarm_callback(alarm: Alarm, every: int) -> TrainerCallback:
    """A callback that checks, logs what was found with the step's line, and stops training on an alarm."""
    from transformers import TrainerCallback

    class Audits(TrainerCallback):
        def __init__(self) -> None:
            self._found: dict[str, Any] = {}

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self._check(args, state, control)  # of a worker that goes on, too: its copy of an adapter is gone

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if alarm.raised is None and (
                state.global_step % every == 0 or state.global_step == state.max_steps
            ):
                self._check(args, state, control)

        def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            state.log_history[-1] |= self._found
            self._found = {}

        def _check(self, args: Any, state: Any, control: Any) -> None:
            self._found = logged(alarm.check(state.global_step, Path(args.output_dir)))
            control.should_training_stop |= alarm.raised is not None

    return Audits()


def logged(audit: Audit) -> dict[str, Any]:
    """What `log.jsonl` tells of an audit; the audit before the first step stands with that step."""
    return {
        "audit_step": audit.step,
        "audit_predicted": audit.predicted,
        "audit_rendered": list(audit.rendered),
        "audit_gap": audit.gap.value,
        "audit_failed": audit.failed,
    }


def stop_on_alarm(folder: Path, kept: Path) -> None:
    """Raise FlowtailorError where training ended with an alarm, after moving what it wrote to `kept`."""
    file = folder / ALARM
    if not file.is_file():
        return
    told = json.loads(file.read_text())
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(folder, kept)
    adapter = (
        f"the adapter before that is kept in {kept}"
        if (kept / "adapter_config.json").is_file()
        else f"no adapter passed, the log is in {kept}"
    )
    raise FlowtailorError(
        f"grpo: stopped after {told['step']} steps: the ensemble foresees {told['predicted']:.3f} for "
        f"{told['designs']} designs of the policy, rendered they score {told['rendered'][0]:.3f}; the gap of "
        f"{told['gap'][0]:.3f} is above grpo.audit_max_gap = {told['max_gap']:g}; {adapter}; collect more "
        "rows, or raise reward.kappa, grpo.beta or the limit"
    )
