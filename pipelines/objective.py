"""What a design is worth where it must keep a time budget: the one objective of SFT's teacher and of GRPO."""

from __future__ import annotations

import numpy as np


def fined(
    reward_N: np.ndarray, latest_N: np.ndarray, budget_N: np.ndarray | float, penalty: float
) -> np.ndarray:
    """reward_N less `penalty` times the share by which a design passes its budget, at most one penalty.

    latest_N: the predicted seconds plus their deviation. budget_N: seconds, infinite for none.
    """
    over_N = np.clip(latest_N / budget_N - 1.0, 0.0, 1.0)
    return reward_N - penalty * over_N
