"""Error bars made honest: three factors from rows that were not fitted. Pure functions.

Shape legend: N rows, M pairs of rows, S scorers, O outputs.

The variance of a prediction has three parts: the scatter of single pictures around their mean, as the members
learned it, which is aleatoric; and two that are epistemic, how far the members disagree, and the posterior
deviation of the Gaussian process, which is large for workflows unlike all that were rendered. The latter two
go by measures of their own; how much they must count is read off rows of new prompts and workflows.
About a prompt of the training rows the members disagree because each saw its own draw of these prompts,
which tells of nothing unknown, so that it counts at face value there.

Scorers partly err together, so the bar of their weighted mean also needs how far they do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

WITHIN_ONE_DEVIATION = 0.6827
IN_TIME = 0.95  # of the renders take no longer than the seconds that a budget is held against
NORMALLY_LATE = 1.645  # deviations that 19 of 20 normal errors stay below
FACTORS = np.geomspace(0.25, 16, 19)
FEWEST = 10  # rows of a kind before its coverage counts


@dataclass(frozen=True)
class Bars:
    """Variance = `scale`^2 * (scatter^2 + (`disagreement` * spread)^2 + (`process` * posterior)^2).

    For prompts that members were trained on, `disagreement` is 1 and `scale` at least 1: below 1 it pays
    back what the disagreement about others counts too much.
    """

    scale: float = 1.0
    disagreement: float = 1.0
    process: float = 1.0

    def std(
        self,
        scatter_N: np.ndarray,
        spread_N: np.ndarray,
        posterior_N: np.ndarray,
        known_N: np.ndarray | bool = False,
    ) -> np.ndarray:
        """Standard deviations; so are the inputs: of single pictures, of the members, of the process.

        known_N: whether members were trained on the prompt.
        """
        spread_N = np.where(known_N, 1.0, self.disagreement) * spread_N
        scale_N = np.where(known_N, max(self.scale, 1.0), self.scale)
        return scale_N * np.sqrt(scatter_N**2 + spread_N**2 + (self.process * posterior_N) ** 2)

    def doubt(self, posterior_N: np.ndarray) -> np.ndarray:
        """The part of them about the workflow."""
        return self.scale * self.process * posterior_N


def fit_bars(
    error_N: np.ndarray,
    scatter_N: np.ndarray,
    spread_N: np.ndarray,
    posterior_N: np.ndarray,
    new_N: np.ndarray,
    prompt_N: np.ndarray,
) -> Bars:
    """The bars that cover 68.27% of the errors, wide where errors are large and narrow where they are small.

    Of all factors those with the best interval score (Gneiting and Raftery 2007, equation 43); rows count as
    by `row_weights`. With too few rows of either kind, disagreement and process count at face value.
    """
    weight_N = row_weights(new_N, prompt_N)
    parts = (scatter_N, spread_N, posterior_N)
    factors = FACTORS if _both_kinds(new_N) else [1.0]
    options = [_scaled(error_N, parts, d, n, weight_N) for d in factors for n in factors]
    return min(options, key=lambda bars: _interval_score(error_N, bars.std(*parts)) @ weight_N)


def row_weights(new_N: np.ndarray, prompt_N: np.ndarray) -> np.ndarray:
    """weight_N: new workflows (`new_N`) count as much as known ones, where there are enough of both.

    Each prompt counts once, however many rows it has, because the errors of one prompt go together.
    """
    if not _both_kinds(new_N):
        return _once(prompt_N)
    weight_N = np.empty(len(new_N))
    for kind_N in (new_N, ~new_N):
        weight_N[kind_N] = _once(prompt_N[kind_N]) / 2
    return weight_N


def pairs_within_prompts(prompt_N: np.ndarray, tokens_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """one_M and other_M: each row beside the next one of its prompt, where that has another workflow."""
    order_N = np.argsort(prompt_N, kind="stable")
    prompt_N, tokens_N = prompt_N[order_N], tokens_N[order_N]
    pair_M = (prompt_N[1:] == prompt_N[:-1]) & (tokens_N[1:] != tokens_N[:-1])
    return order_N[1:][pair_M], order_N[:-1][pair_M]


def difference_widths(error_MO: np.ndarray, spread_MO: np.ndarray) -> np.ndarray:
    """(O,): by how much the doubt about a difference must be widened to cover 68.27%.

    error_MO: of M differences between two rows of one prompt, foreseen less measured; spread_MO: the
    members' disagreement about them and what no rendered workflow tells. Unmeasured ones (NaN) do not count;
    1 where none is measured.
    """
    width_O, measured_O = np.ones(error_MO.shape[1]), ~np.isnan(error_MO).all(axis=0)
    distance_MO = np.abs(error_MO[:, measured_O]) / np.maximum(spread_MO[:, measured_O], 1e-12)
    width_O[measured_O] = np.nanquantile(distance_MO, WITHIN_ONE_DEVIATION, axis=0)
    return width_O


def late_deviations(distance_N: np.ndarray, weight_N: np.ndarray) -> float:
    """By how many of its bars a value exceeds the foreseen one at most, in 19 of 20 rows.

    distance_N: foreseen less measured, in bars, as `error_correlation` has it. It would be `NORMALLY_LATE` of
    a normal error; seconds have a longer tail where an engine now and then reads a model from disk.
    """
    return float(np.quantile(-distance_N, IN_TIME, weights=weight_N, method="inverted_cdf"))


def error_correlation(distance_NS: np.ndarray, weight_N: np.ndarray) -> np.ndarray:
    """(S, S): how far the scorers err together; `distance_NS` holds errors in units of their own bars.

    By the estimator of Gnanadesikan and Kettenring (Biometrics, 1972) with the quantile of the bars: the sum
    of two errors is wide where they go together, their difference where they do not. All are then moved alike
    so that the sum of all scorers' errors is as wide as the matrix says.
    """
    scorers = distance_NS.shape[1]
    correlation_SS = np.eye(scorers)
    for i in range(scorers):
        for j in range(i):
            sums = _width(distance_NS[:, i] + distance_NS[:, j], weight_N)
            differences = _width(distance_NS[:, i] - distance_NS[:, j], weight_N)
            both = sums**2 + differences**2
            correlation_SS[i, j] = correlation_SS[j, i] = (sums**2 - differences**2) / both if both else 1.0
    if scorers > 1:
        missing = _width(distance_NS.sum(1), weight_N) ** 2 - correlation_SS.sum()
        correlation_SS += missing / (scorers * (scorers - 1)) * (1 - np.eye(scorers))
    return correlation_SS.clip(-1, 1)


def shares(weights: Mapping[str, float], scorers: Sequence[str]) -> np.ndarray:
    """share_S of each scorer in the score: its weight, brought to a sum of 1."""
    return np.array([weights.get(name, 0.0) for name in scorers]) / sum(weights.values())


def weighted_std(std_NS: np.ndarray, share_S: np.ndarray, correlation_SS: np.ndarray) -> np.ndarray:
    """std_N of the weighted mean of scorers whose errors have that correlation."""
    parts_NS = std_NS * share_S
    return np.sqrt(np.einsum("ns,st,nt->n", parts_NS, correlation_SS, parts_NS).clip(min=0))


def _both_kinds(new_N: np.ndarray) -> bool:
    return min(new_N.sum(), (~new_N).sum()) >= FEWEST


def _width(error_N: np.ndarray, weight_N: np.ndarray) -> float:
    """What 68.27% of the errors stay within."""
    within = np.quantile(np.abs(error_N), WITHIN_ONE_DEVIATION, weights=weight_N, method="inverted_cdf")
    return float(within)


def _once(prompt_N: np.ndarray) -> np.ndarray:
    """weight_N with a sum of 1, the same for each prompt."""
    _, place_N, count_P = np.unique(prompt_N, return_inverse=True, return_counts=True)
    return 1 / (count_P[place_N] * len(count_P))


def _scaled(
    error_N: np.ndarray,
    parts: tuple[np.ndarray, np.ndarray, np.ndarray],
    disagreement: float,
    process: float,
    weight_N: np.ndarray,
) -> Bars:
    # A quantile rather than a root mean square: a few wild rows must not widen all bars.
    std_N = np.maximum(Bars(1.0, disagreement, process).std(*parts), 1e-12)
    return Bars(max(_width(error_N / std_N, weight_N), 1e-3), float(disagreement), float(process))


def _interval_score(error_N: np.ndarray, std_N: np.ndarray) -> np.ndarray:
    """(N,): the width of each interval, and a fine for how far the error lies outside it; less is better."""
    return 2 * std_N + 2 / (1 - WITHIN_ONE_DEVIATION) * np.maximum(np.abs(error_N) - std_N, 0)
