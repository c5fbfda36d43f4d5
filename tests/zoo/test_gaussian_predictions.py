"""GaussianMixture: exact predictions, against autograd of a log-density written here and in closed form."""

import math
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from support.gaussians import KINDS, LABELS, MEANS, STDS, WEIGHTS, mixture, of_class, rounding, truth
from support.tensors import assert_within, noise
from zigzag.zoo import GaussianMixture

EPS = torch.finfo(torch.float64).eps


# Against autograd ------------------------------------------------------------------------------------------


def check_predictions(mix: Any, x: Tensor, alpha: Any, sigma: Any, labels: list[int] | None) -> None:
    tensor = None if labels is None else torch.tensor(labels)
    expected = truth(x, alpha, sigma, [None] * len(x) if labels is None else list(labels))
    for kind in KINDS:
        out = mix.predict(x, alpha, sigma, labels=tensor, prediction=kind)
        assert out.dtype == x.dtype
        assert_within(out, expected[kind], rounding(x, alpha, sigma))
    assert torch.equal(
        mix.predict(x, alpha, sigma, labels=tensor),
        mix.predict(x, alpha, sigma, labels=tensor, prediction="epsilon"),
    )


levels = st.sampled_from([(0.999, 0.04), (0.8, 0.6), (0.3, 0.95), (0.1, 0.9), (1.0, 0.1), (1.0, 20.0)])


@given(levels, st.integers(0, 2**31 - 1), st.sampled_from([None, [0, 1, 2, -1], [-1, -1, 0, -7]]))
def test_predictions_are_the_score_of_the_noised_mixture(
    level: tuple[float, float], seed: int, labels: list[int] | None
) -> None:
    """score = −ε/σ, class-conditional or not, within the rounding of a softmax."""
    alpha, sigma = level
    x = noise(seed, 4, 2) * (alpha**2 * 4 + sigma**2) ** 0.5
    check_predictions(mixture(), x, alpha, sigma, labels)


def test_alpha_and_sigma_may_differ_per_sample() -> None:
    x = 2 * noise(0, 4, 2)
    alpha = torch.tensor([0.9, 0.2, 1.0, 0.5], dtype=torch.float64)
    sigma = torch.tensor([0.1, 0.98, 3.0, 0.5], dtype=torch.float64)
    for labels in (None, [0, 2, -1, 1]):
        check_predictions(mixture(), x, alpha, sigma, labels)
    check_predictions(mixture(), x, alpha[0], sigma[0], None)


def test_the_check_refuses_other_weights_stds_labels_and_a_changed_sign() -> None:
    x = 2 * noise(0, 4, 2)
    labels = [0, 1, 2, -1]
    check_predictions(mixture(), x, 0.8, 0.6, labels)

    class Negated(GaussianMixture):
        def predict(self, *args: Any, **kwargs: Any) -> Tensor:
            return -super().predict(*args, **kwargs)

    for mutant in (
        GaussianMixture(MEANS, STDS, None, LABELS),
        GaussianMixture(MEANS, 0.3, WEIGHTS, LABELS),
        GaussianMixture(MEANS, STDS, WEIGHTS, LABELS.roll(1)),
        Negated(MEANS, STDS, WEIGHTS, LABELS),
    ):
        with pytest.raises(AssertionError):
            check_predictions(mutant, x, 0.8, 0.6, labels)


# Identities ------------------------------------------------------------------------------------------------


@given(st.floats(0.0, math.pi / 2), st.integers(0, 2**31 - 1))
def test_the_four_predictions_are_of_one_x0_and_one_epsilon(phi: float, seed: int) -> None:
    """α·x₀ + σ·ε = x; v = α·ε − σ·x₀; u = ε − x₀; at both ends too."""
    alpha, sigma = math.cos(phi), math.sin(phi)
    x = 2 * noise(seed, 4, 2)
    p = {kind: mixture().predict(x, alpha, sigma, prediction=kind) for kind in KINDS}
    assert all(torch.isfinite(v).all() for v in p.values())
    variance = alpha**2 * STDS.min() ** 2 + sigma**2
    reach = x.norm(dim=1, keepdim=True) + MEANS.norm(dim=1).max()
    size = 32 * EPS * (1 + reach) * (1 + reach / variance) * (1 + reach**2 / variance)
    assert_within(alpha * p["x0"] + sigma * p["epsilon"], x, size)
    assert_within(p["v"], alpha * p["epsilon"] - sigma * p["x0"], size)
    assert_within(p["flow"], p["epsilon"] - p["x0"], size)


@pytest.mark.parametrize("label", [None, 0, 1, 2])
def test_from_pure_noise_x0_is_the_mean_of_the_class(label: int | None) -> None:
    """α = 0, σ = 1: x₀ = Σ w_k·μ_k / Σ w_k, ε = x, u = x − x₀, v = −x₀: all finite."""
    x = noise(0, 3, 2)
    own = of_class(label)
    mean = (WEIGHTS[own, None] * MEANS[own]).sum(0) / WEIGHTS[own].sum()
    labels = None if label is None else torch.full((3,), label)
    expected = {"x0": mean.expand(3, 2), "epsilon": x, "flow": x - mean, "v": -mean.expand(3, 2)}
    for kind in KINDS:
        out = mixture().predict(x, 0.0, 1.0, labels=labels, prediction=kind)
        assert_within(out, expected[kind], 64 * EPS * (1 + x.abs()))


def test_at_no_noise_x0_is_the_state_and_epsilon_is_zero() -> None:
    """α = 1, σ = 0: E[x₀|x] = x, and ε = −σ·score = 0."""
    x = noise(0, 3, 2)
    assert_within(mixture().predict(x, 1.0, 0.0, prediction="x0"), x, 64 * EPS * (2 + x.abs()))
    assert_within(mixture().predict(x, 1.0, 0.0), torch.zeros_like(x), 0.0)


def test_one_component_is_the_linear_gaussian_posterior() -> None:
    """x₀ = μ + α·s²/(α²s² + σ²)·(x − α·μ)."""
    alpha, sigma, s = 0.6, 0.7, 0.4
    x, mu = noise(0, 3, 2), MEANS[:1]
    expected = mu + alpha * s**2 / (alpha**2 * s**2 + sigma**2) * (x - alpha * mu)
    out = GaussianMixture(mu, s).predict(x, alpha, sigma, prediction="x0")
    assert_within(out, expected, 16 * EPS * (1 + x.abs()))


def test_far_away_states_and_a_single_component_left_give_no_nan() -> None:
    """The responsibilities are a softmax: exp(−|x|²/var) underflows, the prediction does not."""
    x = 1e3 * noise(0, 3, 2)
    for label in (-1, 0, 2):
        out = mixture().predict(x, 0.999, 0.01, labels=torch.full((3,), label))
        assert torch.isfinite(out).all()


def test_the_ways_of_asking_for_no_class_agree() -> None:
    x = noise(0, 2, 2)
    for kind, labels in product(KINDS, (torch.tensor([-1, -1]), torch.tensor([-3, -1]))):
        with_labels = mixture().predict(x, 0.6, 0.8, labels=labels, prediction=kind)
        assert_within(with_labels, mixture().predict(x, 0.6, 0.8, prediction=kind), rounding(x, 0.6, 0.8))
