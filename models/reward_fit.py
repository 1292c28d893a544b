"""Fitting one member of the reward ensemble, an epoch at a time, so that it can be resumed anywhere.

Shape legend: N rows, P distinct prompts, W distinct workflows, O outputs (the scorers, then
log-seconds), D = 384 sentence features, M of a batch's N x O targets that are known.

Promises: a member depends on the rows, the settings and its number alone. An interrupted fit that
goes on from its state ends with the same weights as one that was not interrupted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..datasets.rows import score_column
from .additive import AdditiveModel
from .reward_features import Words, WordTable
from .reward_net import RewardNet
from .text import TextEncoder
from .traits import Traits

WARM_UP = 0.05  # share of the steps
WEIGHT_DECAY = 0.05
SECONDS = "seconds"


@dataclass(frozen=True)
class FitSettings:
    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 3e-4
    seed: int = 0


@dataclass(frozen=True)
class Scale:
    """Mean and deviation of each output over the training rows that have it; seconds as their logarithm."""

    mean_O: np.ndarray
    std_O: np.ndarray

    @classmethod
    def of(cls, targets_NO: np.ndarray) -> Scale:
        return cls(np.nanmean(targets_NO, 0), np.maximum(np.nanstd(targets_NO, 0), 1e-6))


@dataclass(frozen=True)
class TrainingSet:
    """Rows as tensors; prompts and workflows that recur are held once."""

    features: Tensor  # (M, FEATURES): the word table
    vocabulary: tuple[str, ...]
    words: Words  # W workflows
    workflow_N: Tensor
    prompts_PD: Tensor
    prompt_N: Tensor
    targets_NO: Tensor  # standardised; NaN where a row lacks a score
    additive: AdditiveModel  # solved for these rows

    def network(self) -> RewardNet:
        """A member for these rows, untrained: it starts as the additive model."""
        outputs, workflows = self.targets_NO.shape[1], len(self.words.index_WT)
        net = RewardNet(len(self.vocabulary), outputs, self.additive.traits, workflows)
        net.additive.load_state_dict(self.additive.state_dict())
        return net


def targets(frame: pd.DataFrame, scorers: Sequence[str]) -> np.ndarray:
    """(N, O): the scores, then log-seconds, of rows that were rendered."""
    scores = [frame[score_column(name)].to_numpy(dtype=float) for name in scorers]
    return np.stack([*scores, np.log(frame[SECONDS].to_numpy(dtype=float))], axis=1)


def training_set(
    frame: pd.DataFrame,
    scorers: Sequence[str],
    table: WordTable,
    encoder: TextEncoder,
    scale: Scale,
    traits: Traits,
) -> TrainingSet:
    """Tensors of the rows of `frame` (columns prompt, tokens, seconds, score_*; scores may be null).

    traits: what of a prompt the worth of a word may depend on.
    """
    workflow_N, workflows = pd.factorize(frame["tokens"])
    prompt_N, prompts = pd.factorize(frame["prompt"])
    words = table.read([str(text).split() for text in workflows])
    standard_NO = (targets(frame, scorers) - scale.mean_O) / scale.std_O
    rows = {
        "words": words,
        "vocabulary": table.vocabulary,
        "prompts_PD": encoder.encode([str(text) for text in prompts]),
        "workflow_N": torch.from_numpy(workflow_N),
        "prompt_N": torch.from_numpy(prompt_N),
        "targets_NO": torch.from_numpy(standard_NO).float(),
    }
    additive = AdditiveModel(len(table.vocabulary), standard_NO.shape[1], traits, len(workflows))
    additive.fit(**rows)
    return TrainingSet(features=table.features, additive=additive, **rows)


class MemberFit:
    """One member on its way: its network, optimizer, bootstrap sample and epoch."""

    def __init__(
        self, data: TrainingSet, settings: FitSettings, member: int, device: torch.device | str = "cpu"
    ) -> None:
        self._data, self._settings, self._device = data, settings, device
        self._seed = settings.seed * 1000 + member
        self.epoch = 0
        torch.manual_seed(self._seed)
        self._rows = bootstrap(data.prompt_N, self._seed)
        self.net = data.network().to(device)
        learned = [parameter for parameter in self.net.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.AdamW(learned, settings.learning_rate, weight_decay=WEIGHT_DECAY)
        self._features = data.features.to(device)

    @property
    def done(self) -> bool:
        return self.epoch >= self._settings.epochs

    def run_epoch(self) -> float:
        """One pass over the bootstrap sample; returns the mean squared error in standard units."""
        torch.manual_seed(self._seed * 10_000 + self.epoch)  # order and dropout are the epoch's own
        batches = self._rows[torch.randperm(len(self._rows))].split(self._settings.batch_size)
        self.net.train()
        errors = [
            self._step(rows, (self.epoch + i / len(batches)) / self._settings.epochs)
            for i, rows in enumerate(batches)
        ]
        self.epoch += 1
        return float(np.mean(errors))

    def _step(self, rows: Tensor, progress: float) -> float:
        data = self._data
        seen, workflow_n = data.workflow_N[rows].unique(return_inverse=True)  # read each workflow once
        mean_NO, logvar_NO = self.net(
            self._features,
            data.words[seen].to(self._device),
            workflow_n.to(self._device),
            data.prompts_PD[data.prompt_N[rows]].to(self._device),
        )
        targets_NO = data.targets_NO[rows].to(self._device)
        known_NO = ~targets_NO.isnan()
        error_M = (mean_NO - targets_NO)[known_NO] ** 2
        # The spread learns from the errors, the mean does not learn from the spread: Gaussian
        # likelihood alone would let the mean give up on rows that are hard at first.
        logvar_M = logvar_NO[known_NO]
        spread_M = 0.5 * (logvar_M + error_M.detach() / logvar_M.exp())
        for group in self._optimizer.param_groups:
            group["lr"] = self._settings.learning_rate * schedule(progress)
        self._optimizer.zero_grad()
        (error_M.mean() + spread_M.mean()).backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self._optimizer.step()
        return float(error_M.detach().mean())

    def state_dict(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "net": self.net.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]
        self.net.load_state_dict(state["net"])
        self._optimizer.load_state_dict(state["optimizer"])


def bootstrap(prompt_N: Tensor, seed: int) -> Tensor:
    """Row indices of a bootstrap over prompts: whole prompts are drawn, with their rows."""
    generator = torch.Generator().manual_seed(seed)
    prompts = int(prompt_N.max()) + 1
    drawn = torch.randint(prompts, (prompts,), generator=generator)
    times_N = torch.bincount(drawn, minlength=prompts)[prompt_N]
    return torch.arange(len(prompt_N)).repeat_interleave(times_N)


def schedule(progress: float) -> float:
    """Factor of the learning rate: a short linear warm-up, then a cosine to zero. `progress` in [0, 1]."""
    return min(progress / WARM_UP, 0.5 * (1 + math.cos(math.pi * progress))) if progress > 0 else 0.0
