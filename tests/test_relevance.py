"""Scales of words: what matters sets workflows apart, what does not brings them together."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import multivariate_normal

from flowtailor.models.relevance import _improbability, alike, relevance


@pytest.fixture(scope="module")
def bags() -> torch.Tensor:
    return torch.randint(0, 2, (120, 5), generator=torch.Generator().manual_seed(0)).float()


def test_alike_falls_with_the_words_between_two_workflows(bags):
    one, word = bags[:1], torch.eye(5)[:1]
    assert alike(one, one).item() == 1
    assert alike(one, one + word).item() == pytest.approx((1 + 3**0.5) * math.exp(-(3**0.5)))
    assert alike(one, one + 2 * word) < alike(one, one + word)


def test_words_that_change_nothing_lie_close_and_those_that_do_far_apart(bags):
    noise = torch.randn(120, 1, generator=torch.Generator().manual_seed(1))
    mean_KO = bags[:, :1] * 2 - 1 + 0.1 * noise
    scale_F, _ = relevance(bags, mean_KO, torch.full((120,), 6), torch.full((5,), 0.5), 0.3)
    assert scale_F[0] > 2 * scale_F[1:].max()
    assert scale_F[1:].max() < 0.4


def test_rows_that_scatter_more_are_trusted_less(bags):
    mean_KO = torch.randn(120, 1, generator=torch.Generator().manual_seed(2))
    _, noise = relevance(bags, mean_KO, torch.ones(120), torch.full((5,), 0.5), 0.3)
    _, less = relevance(bags, bags[:, :1] + 0.01 * mean_KO, torch.ones(120), torch.full((5,), 0.5), 0.3)
    assert less < 0.3 < noise


def test_without_evidence_scales_stay_where_they_start(bags):
    start_F = torch.tensor([0.5, 0.25, 0.5, 0.5, 0.25])
    never_said = torch.cat([bags[:, :4], torch.zeros(120, 1)], dim=1)
    scale_F, _ = relevance(never_said, torch.randn(120, 2), torch.ones(120), start_F, 0.3)
    assert scale_F[4] == pytest.approx(start_F[4].item())
    assert (scale_F > 0).all()


def test_improbability_is_the_density_of_a_gaussian(bags):
    """At the variance that is likeliest: the quadratic term is a constant there."""
    scaled_KF, noise_K = bags[:12].double() * 0.5, torch.linspace(0.1, 0.4, 12).double()
    mean_KO = torch.randn(12, 1, dtype=torch.double)
    covariance = alike(scaled_KF, scaled_KF) + torch.diag(noise_K)
    variance = (mean_KO.T @ torch.linalg.solve(covariance, mean_KO) / 12).item()
    density = multivariate_normal(cov=(variance * covariance).numpy()).logpdf(mean_KO.squeeze(1).numpy())
    constant = 6 * (torch.tensor(2 * torch.pi).log().item() + 1)
    assert _improbability(scaled_KF, mean_KO, noise_K).item() + constant == pytest.approx(-density)
