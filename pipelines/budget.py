"""Does `--budget-s` hold, and what does a second buy? Designs within budgets, rendered and compared.

For each budget the guided policy designs for the held-out prompts as the design command does, and the
pictures stand in the evaluation's rows under a name of their own. Budgets are quantiles of the seconds that
training rows took, so that they ask for something on any machine. Seconds are the engine's own, and a
machine is not always as fast as when the rows were made: what the methods' renders took against what was
foreseen says how fast it is now (`engine_pace`), and the policy is asked for so much less or more.
`budget_report` makes `budgets.json` of them, with what fixed workflows score and take on the training
rows beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from ..datasets.prompts import Prompt
from ..workflows.codec import decode
from ..workflows.summary import summary
from .methods import Choice, Materials, best_design, timed
from .statistics import Interval, bootstrap_mean, workflow_effects

Z95 = 1.96
FEWEST_RENDERS = 3  # behind a fixed workflow's point


def method_name(budget_s: float) -> str:
    """Under which rows of a budget's designs stand beside the methods' rows."""
    return f"budget={budget_s:g}"


def budgets(materials: Materials) -> list[float]:
    """Seconds to two digits, as policies read them, the narrowest first."""
    quantiles = materials.config.evaluate.budget_quantiles
    return sorted({float(f"{materials.rows['seconds'].quantile(share):.2g}") for share in quantiles})


def engine_pace(rows: pd.DataFrame) -> float:
    """Seconds that renders take now for one that was foreseen: the median over workflows; 1 without renders.

    rows: measured rows; each workflow counts once, with the median of its pictures.
    """
    by_workflow = (rows["seconds"] / rows["predicted_seconds"]).groupby(rows["workflow_key"]).median()
    pace = float(by_workflow.median())
    return pace if math.isfinite(pace) else 1.0


def budget_choices(materials: Materials, prompts: Sequence[Prompt], pace: float) -> dict[str, list[Choice]]:
    """One design per prompt for each budget of the configuration, on an engine of that pace."""
    chosen = {}
    for budget_s in budgets(materials):
        pick = partial(best_design, materials=materials, n=1, budget_s=budget_s / pace)
        chosen[method_name(budget_s)] = timed(pick, prompts)
        print(f"evaluate: designed within {budget_s:g} s", flush=True)
    return chosen


def budget_report(
    rows: pd.DataFrame, budgeted: pd.DataFrame, pace: float, materials: Materials
) -> dict[str, Any]:
    """`budgets.json` from the measured rows of the methods and of the budgets' designs.

    Intervals are over prompts. `pace`: of the engine (see `engine_pace`). `unlimited`: the best of several
    without a budget (`guided_best_of_n`). `fixed`: workflows of the training rows, what they score on an
    average prompt and take.
    """
    asked = budgets(materials)
    if not asked:
        return {"points": [], "unlimited": None, "fixed": []}

    def point(budget_s: float) -> dict[str, Any]:
        mine = budgeted.loc[budgeted["method"] == method_name(budget_s)]
        return {"budget_s": budget_s} | _point(mine, budget_s)

    return {
        "guidance": materials.config.design.guidance,
        "pace": pace,
        "points": [point(budget_s) for budget_s in asked],
        "unlimited": _point(rows.loc[rows["method"] == "guided_best_of_n"], math.inf),
        "fixed": fixed_points(materials),
    }


def _point(mine: pd.DataFrame, budget_s: float) -> dict[str, Any]:
    """What one budget brought. A failed render keeps no budget and scores 0."""
    by_prompt = mine.assign(kept=mine["seconds"].le(budget_s)).groupby("prompt")  # NaN is not kept
    drawn = mine["seconds"].notna()
    times = mine.loc[drawn].groupby("prompt")["seconds"].mean().to_numpy()
    return {
        "prompts": by_prompt.ngroups,
        "pictures": len(mine),
        "kept": list(share_interval(by_prompt["kept"].mean().to_numpy(dtype=float))),
        "score": list(bootstrap_mean(by_prompt["score"].mean().to_numpy(dtype=float))),
        "seconds": list(bootstrap_mean(times)) if len(times) else None,
        "foreseen_seconds": float(mine["predicted_seconds"].mean()),
        "unique_workflows": int(mine["workflow_key"].nunique()),
    }


def share_interval(share_p: np.ndarray) -> Interval:
    """The mean of shares per prompt with Wilson's 95% interval: unlike a bootstrap's it has a width
    where all prompts agree, for twelve of twelve do not prove a hundred percent."""
    n, p = len(share_p), float(share_p.mean())
    middle = (p + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n * n))
    return Interval(p, max(middle - half, 0.0), min(middle + half, 1.0))


def fixed_points(materials: Materials) -> list[dict[str, Any]]:
    """Score and seconds of each workflow of the training rows that was rendered often enough.

    The score is that of an average training prompt: workflows met different prompts, and one that
    met easy ones is no better for it.
    """
    by_workflow = materials.rows.groupby("workflow_key")
    fixed = workflow_effects(materials.rows).assign(
        seconds=by_workflow["seconds"].mean(), tokens=by_workflow["tokens"].first()
    )
    often = fixed.loc[(fixed["renders"] >= FEWEST_RENDERS) & fixed["seconds"].notna()]
    return [
        {
            "summary": summary(decode(row["tokens"].split(), materials.space)),
            "score": float(row["score"]),
            "seconds": float(row["seconds"]),
            "renders": int(row["renders"]),
        }
        for _, row in often.iterrows()
    ]
