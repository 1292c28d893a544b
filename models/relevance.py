"""How far each word sets workflows apart, and how far pictures scatter, by a Gaussian process's own evidence.

Shape legend: K workflows, F features (how often a word occurs), O outputs.

Whether a picture has 12 or 16 steps matters less than whether it has one, and no one can say for all
installed models and nodes how much less. The rows can: the marginal likelihood of the workflows' means is
largest where words that change little lie close together (automatic relevance determination; Rasmussen and
Williams 2006, section 5.4.1). So the variance about a workflow that nobody rendered is small where it
differs from known ones in nothing that matters, and large where it does.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

PRIOR_STD = 0.5  # of the logarithm of a scale around where it starts
EVALUATIONS = 40
TINY = 1e-12  # a square root has no gradient at zero


def alike(one_WF: Tensor, other_KF: Tensor) -> Tensor:
    """(W, K) in (0, 1]: how alike two workflows are, each feature in its own scale.

    The Matern kernel of order 3/2, because a smoother one believes in what lies beyond all that was seen.
    """
    return matern(torch.cdist(one_WF, other_KF))


def matern(distance: Tensor) -> Tensor:
    """Rasmussen and Williams 2006, equation 4.17."""
    far = math.sqrt(3) * distance
    return (1 + far) * torch.exp(-far)


def relevance(
    features_KF: Tensor, mean_KO: Tensor, count_K: Tensor, start_F: Tensor, noise: float
) -> tuple[Tensor, float]:
    """scale_F and noise with which workflows' means are likeliest.

    mean_KO: of the `count_K` rows of each workflow, around zero; start_F: the median of a log-normal prior;
    noise: where the search starts for the variance of a row, in units of the workflows' own variance, which
    is solved for, an output each.
    """
    features_KF, mean_KO, count_K = features_KF.double(), mean_KO.double(), count_K.double()
    # The logarithms of scale / start, and then of noise / its start.
    change = torch.zeros(len(start_F) + 1, dtype=torch.double, requires_grad=True)
    solver = torch.optim.LBFGS(
        [change], max_iter=EVALUATIONS, tolerance_change=1e-2, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        solver.zero_grad()
        factor = change.exp()
        scaled_KF, noise_K = features_KF * start_F * factor[:-1], noise * factor[-1] / count_K
        improbability = _improbability(scaled_KF, mean_KO, noise_K)
        total = improbability + change[:-1].square().sum() / (2 * PRIOR_STD**2)
        total.backward()
        return total

    solver.step(loss)  # type: ignore[arg-type]
    factor = change.detach().exp()
    return (start_F * factor[:-1]).to(start_F.dtype), noise * factor[-1].item()


def _improbability(scaled_KF: Tensor, mean_KO: Tensor, noise_K: Tensor) -> Tensor:
    """Negative log marginal likelihood less a constant (Rasmussen and Williams 2006, equation 5.8)."""
    squares_K = scaled_KF.square().sum(1)
    # Not cdist, whose gradient is infinite between equal workflows.
    distance_KK = squares_K[:, None] + squares_K - 2 * scaled_KF @ scaled_KF.T
    alike_KK = matern((distance_KK.clamp(min=0) + TINY).sqrt())
    factor_KK = torch.linalg.cholesky(alike_KK + torch.diag(noise_K))
    white_KO = torch.linalg.solve_triangular(factor_KK, mean_KO, upper=False)
    outputs, workflows = mean_KO.shape[1], len(mean_KO)
    variance_O = white_KO.square().mean(0).clamp(min=math.ulp(1.0))
    return outputs * factor_KK.diagonal().log().sum() + workflows / 2 * variance_O.log().sum()
