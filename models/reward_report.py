"""How good the reward ensemble is on rows it has not seen, split by split, beside its baselines.

Splits: `held_out_prompt` (known workflows), `held_out_workflow` (known prompts), `both`, and
`training` for comparison. Numbers are about the weighted score that designs are judged by; each
scorer follows under `scorers`. A number that the rows cannot give is null.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ..datasets.rows import score_column, weighted_score
from . import metrics
from .baselines import baselines
from .predictions import Predictions
from .reward import RewardEnsemble


def splits(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of each split; rows of validation prompts, which calibrated the bars, are in none."""
    known_prompt, new_prompt = frame["prompt_split"] == "train", frame["prompt_split"] == "test"
    known_flow, new_flow = frame["workflow_split"] == "train", frame["workflow_split"] == "test"
    return {
        "training": frame[known_prompt & known_flow],
        "held_out_prompt": frame[new_prompt & known_flow],
        "held_out_workflow": frame[known_prompt & new_flow],
        "both": frame[new_prompt & new_flow],
    }


def report(
    ensemble: RewardEnsemble, frame: pd.DataFrame, weights: Mapping[str, float]
) -> dict[str, dict[str, Any]]:
    """Metrics per split, ready for JSON, of the rendered rows in `frame` that have every score; under
    `all_rows` of all of them, by the scorers that saw each.

    The baselines learn from as many rows as the ensemble did: where a score is missing, from its word.
    """
    training = ensemble.filled(splits(frame)["training"])
    complete = frame.dropna(subset=[score_column(name) for name in weights])
    told = _told(ensemble, splits(complete), training, weights)
    older = {name: weight for name, weight in weights.items() if frame[score_column(name)].notna().all()}
    if 0 < len(older) < len(weights):
        for split, numbers in _told(ensemble, splits(frame), training, older).items():
            told[split]["all_rows"] = {"weights": older, **numbers}
    return told


def _told(
    ensemble: RewardEnsemble,
    parts: Mapping[str, pd.DataFrame],
    training: pd.DataFrame,
    weights: Mapping[str, float],
) -> dict[str, dict[str, Any]]:
    """Metrics of each part, whose rows have all scores, and of the baselines that `training` teaches."""
    prompts, tokens = list(training["prompt"]), list(training["tokens"])
    guesses = baselines(prompts, tokens, weighted_score(training, weights), ensemble.encoder)
    told: dict[str, dict[str, Any]] = {}
    for name, rows in parts.items():
        if rows.empty:
            told[name] = {"rows": 0}
            continue
        predictions = ensemble.predict_rows(rows)
        told[name] = _of_rows(rows, predictions, weights)
        for baseline, guess in guesses.items():
            guessed = guess(list(rows["prompt"]), list(rows["tokens"]))
            prompt, measured = _labels(rows), weighted_score(rows, weights)
            ranked = metrics.spearman_within(prompt, measured, guessed)
            told[name][f"{baseline}_spearman_within_prompt"] = _number(ranked)
            told[name][f"{baseline}_regret"] = _number(metrics.regret(prompt, measured, guessed))
    return told


def _of_rows(rows: pd.DataFrame, predictions: Predictions, weights: Mapping[str, float]) -> dict[str, Any]:
    prompt, measured = _labels(rows), weighted_score(rows, weights)
    mean, std = predictions.score(weights)
    seconds = rows["seconds"].to_numpy(dtype=float)
    numbers = _compare(prompt, measured, mean, std)
    numbers["noise_ceiling"] = _number(metrics.noise_ceiling(prompt, rows["tokens"].to_numpy(), measured))
    numbers["seconds_median_relative_error"] = _number(
        metrics.median_relative_error(seconds, predictions.seconds)
    )
    numbers["seconds_in_time"] = _number(float(np.mean(seconds <= predictions.seconds_latest)))
    numbers["scorers"] = {
        name: _compare(
            prompt,
            rows[score_column(name)].to_numpy(dtype=float),
            predictions.mean[:, i],
            predictions.std[:, i],
        )
        for i, name in enumerate(predictions.scorers)
    }
    return {"rows": len(rows), "prompts": len(np.unique(prompt)), **numbers}


def _compare(prompt: np.ndarray, measured: np.ndarray, mean: np.ndarray, std: np.ndarray) -> dict[str, Any]:
    return {
        "spearman_within_prompt": _number(metrics.spearman_within(prompt, measured, mean)),
        "spearman_overall": _number(metrics.spearman(measured, mean)),
        "regret": _number(metrics.regret(prompt, measured, mean)),
        "pair_accuracy": _number(metrics.pair_accuracy(prompt, measured, mean)),
        "coverage_68": _number(metrics.coverage(measured, mean, std)),
        "rmse": _number(metrics.rmse(measured, mean)),
    }


def _labels(rows: pd.DataFrame) -> np.ndarray:
    return rows["prompt"].astype(str).to_numpy(dtype=str)


def _number(value: float) -> float | None:
    """JSON has no NaN: what cannot be told is null."""
    return None if np.isnan(value) else round(float(value), 4)
