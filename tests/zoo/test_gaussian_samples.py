"""GaussianMixture: samples have its moments, and x₀ is their posterior mean by Monte Carlo."""

from typing import Any

import pytest
import torch
from torch import Tensor

from support.gaussians import LABELS, MEANS, STDS, WEIGHTS, mixture, of_class
from zigzag.zoo import GaussianMixture


def check_moments(draws: Tensor, own: list[int]) -> None:
    """Mean and second moments of n draws within five standard errors of the mixture's."""
    w = WEIGHTS[own] / WEIGHTS[own].sum()
    mean = (w[:, None] * MEANS[own]).sum(0)
    within = (w * STDS[own] ** 2).sum() * torch.eye(2)
    second = torch.einsum("k,ki,kj->ij", w, MEANS[own], MEANS[own]) + within
    outer = draws[:, :, None] * draws[:, None, :]
    error = len(draws) ** -0.5
    assert ((draws.mean(0) - mean).abs() <= 5 * error * draws.std(0)).all()
    assert ((outer.mean(0) - second).abs() <= 5 * error * outer.std(0)).all()


@pytest.mark.parametrize("label", [None, 0, 1, 2])
def test_samples_have_the_moments_of_their_class(label: int | None) -> None:
    draws = mixture().sample(40_000, label=label, generator=torch.Generator().manual_seed(0))
    assert draws.shape == (40_000, 2)
    check_moments(draws.double(), of_class(label))
    with pytest.raises(AssertionError):
        check_moments(draws.double(), of_class(1 if label != 1 else 0))


def test_same_generator_same_samples() -> None:
    one, two, other = (mixture().sample(5, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert torch.equal(one, two) and not torch.equal(one, other)


def check_posterior_mean(predict: Any, alpha: float, sigma: float, label: int | None) -> None:
    """E[x₀|x] = E[x₀·N(x; α·x₀, σ²)] / E[N(x; α·x₀, σ²)] over draws of the prior, to five standard errors.

    The error of a ratio estimator with weights r and values x₀ is √(Σ r²(x₀ − x̄)²)/Σ r.
    """
    draws = mixture().sample(200_000, label=label, generator=torch.Generator().manual_seed(1)).double()
    queries = torch.tensor([[0.5, 0.5], [-1.0, 0.3], [0.2, -1.2]], dtype=torch.float64)
    labels = None if label is None else torch.full((3,), label)
    out = predict(queries, alpha, sigma, labels=labels, prediction="x0")
    for x, mean in zip(queries, out, strict=True):
        r = (-((x - alpha * draws) ** 2).sum(1) / (2 * sigma**2)).softmax(0)[:, None]
        estimate = (r * draws).sum(0)
        error = (r**2 * (draws - estimate) ** 2).sum(0).sqrt()
        assert error.max() < 0.05
        assert ((mean - estimate).abs() <= 5 * error).all()


@pytest.mark.parametrize("label", [None, 0, 1])
@pytest.mark.parametrize(("alpha", "sigma"), [(0.8, 0.6), (0.4, 0.9)])
def test_x0_is_the_posterior_mean_by_monte_carlo(alpha: float, sigma: float, label: int | None) -> None:
    check_posterior_mean(mixture().predict, alpha, sigma, label)
    with pytest.raises(AssertionError):  # mutant: equal weights
        check_posterior_mean(GaussianMixture(MEANS, 0.2, None, LABELS).predict, alpha, sigma, label)
