"""What the strength of guidance does: designs at several w, what the ensemble expects, what renders.

The sweep is on validation prompts, so that the strength chosen from it owes nothing to the prompts that
methods are compared on. Where the rendered score falls behind the predicted one as w grows, the policy has
found the ensemble's errors instead of better workflows; where designs stop differing, it has collapsed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..datasets.prompts import Prompt
from .methods import Materials
from .statistics import bootstrap_mean

if TYPE_CHECKING:
    from ..models.designing import Design


@dataclass(frozen=True)
class Sweep:
    """Designs at one guidance: a list per prompt, in the prompts' order."""

    guidance: float
    prompts: tuple[str, ...]
    designs: list[list[Design]]

    @property
    def method(self) -> str:
        """The name under which rows of these designs stand beside the methods' rows."""
        return f"w={self.guidance:g}"


def sweep_designs(materials: Materials, prompts: Sequence[Prompt]) -> list[Sweep]:
    """`evaluate.sweep_designs` designs per prompt at each w of `evaluate.guidance_sweep`."""
    config = materials.config
    texts = [prompt.text for prompt in prompts]
    sweeps = []
    for guidance in config.evaluate.guidance_sweep:
        designs = materials.designer.design(
            texts,
            n=config.evaluate.sweep_designs,
            guidance=guidance,
            temperature=config.design.temperature,
            seed=config.run.seed,
        )
        sweeps.append(Sweep(guidance, tuple(texts), designs))
        print(f"evaluate: guidance {guidance:g} swept", flush=True)
    return sweeps


def guidance_report(sweeps: Sequence[Sweep], rows: pd.DataFrame, materials: Materials) -> dict[str, Any]:
    """`guidance.json`; `rows` are the sweep's measured rows, none if it was not rendered."""
    config = materials.config
    points = [_point(sweep, rows, materials) for sweep in sweeps]
    return {
        "chosen": best_guidance(points)
        if points and config.design.choose_guidance
        else config.design.guidance,
        "prompts": len(sweeps[0].prompts) if sweeps else 0,
        "designs_per_prompt": config.evaluate.sweep_designs,
        "temperature": config.design.temperature,
        "rendered": config.evaluate.render_sweep,
        "points": points,
    }


def best_guidance(points: Sequence[Mapping[str, Any]]) -> float:
    """The strength nearest to 1, the plain GRPO policy, of those whose designs render as well as any, as far
    as the validation prompts can tell; where nothing was rendered, the one that the ensemble rewards most.

    The ensemble has no say about what was rendered, because it is GRPO that finds its errors.
    """
    if rendered := [point for point in points if point["rendered_by_prompt"]]:
        level = level_with_best([point["rendered_by_prompt"] for point in rendered])
        good = [point["guidance"] for point, as_good in zip(rendered, level, strict=True) if as_good]
    else:
        best = max(point["predicted_reward"] for point in points)
        good = [point["guidance"] for point in points if point["predicted_reward"] > best - 1e-9]
    return min(good, key=lambda w: (abs(w - 1), w))


def level_with_best(score_MP: Sequence[Sequence[float]]) -> list[bool]:
    """Which of M strengths score less than the best one by no more than two standard errors of the difference
    over P prompts, which is what 19 of 20 differences of nothing stay within where P is not small. One prompt
    tells nothing."""
    scores_MP = np.asarray(score_MP)
    if scores_MP.shape[1] < 2:
        return [True] * len(scores_MP)
    behind_MP = scores_MP[scores_MP.mean(axis=1).argmax()] - scores_MP
    error_M = behind_MP.std(axis=1, ddof=1) / math.sqrt(behind_MP.shape[1])
    return list(behind_MP.mean(axis=1) <= 2 * error_M + 1e-9)


def _point(sweep: Sweep, rows: pd.DataFrame, materials: Materials) -> dict[str, Any]:
    config, designs = materials.config, [design for group in sweep.designs for design in group]
    said = [tuple(design.tokens) for design in designs]
    prompts = [text for text, group in zip(sweep.prompts, sweep.designs, strict=True) for _ in group]
    predictions = materials.ensemble.predict(prompts, [design.tokens for design in designs])
    mean_r, std_r = predictions.score(config.scorers.weights)
    reward_r = predictions.reward(config.scorers.weights, config.reward.kappa, config.reward.lambda_seconds)
    alike = {words: materials.known.nearest(words)[0] for words in set(said)}
    mine = rows.loc[rows["method"] == sweep.method]
    rendered = [float(np.mean(group["score"])) for _, group in mine.groupby("prompt")]
    return {
        "guidance": sweep.guidance,
        "predicted_score": list(bootstrap_mean(mean_r.reshape(len(sweep.prompts), -1).mean(axis=1))),
        "predicted_std": float(std_r.mean()),
        "predicted_reward": float(reward_r.mean()),
        "predicted_seconds": float(predictions.seconds.mean()),
        "rendered_score": list(bootstrap_mean(np.array(rendered))) if rendered else None,
        "rendered_by_prompt": rendered,
        "unique_workflows": len(alike),
        "unique_share": len(alike) / len(designs),
        "nearest_training_similarity": float(np.mean([alike[words] for words in said])),
        "logprob": float(np.mean([design.logprob for design in designs])),
        "tokens": float(np.mean([len(design.tokens) for design in designs])),
    }
