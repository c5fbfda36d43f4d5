"""GaussianMixture: exact predictions, against autograd of a log-density written here and against sampling."""

import math
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from zigzag.solvers import DDIM, FlowEuler, Solver, Spherical
from zigzag.zoo import GaussianMixture

EPS = torch.finfo(torch.float64).eps
KINDS = ("epsilon", "x0", "v", "flow")
K = 5
MEANS = torch.tensor([[1.0, 0.5], [-1.5, 0.2], [0.3, -2.0], [2.0, 2.0], [-0.4, 1.1]], dtype=torch.float64)
STDS = torch.tensor([0.3, 0.5, 0.2, 0.8, 0.4], dtype=torch.float64)
WEIGHTS = torch.tensor([0.1, 0.3, 0.2, 0.25, 0.15], dtype=torch.float64)
LABELS = torch.tensor([0, 1, 0, 2, 1])


def mixture() -> GaussianMixture:
    return GaussianMixture(MEANS, STDS, WEIGHTS, LABELS)


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def left(c: Any, x: Tensor) -> Tensor:
    c = torch.as_tensor(c, dtype=torch.float64)
    return c.reshape(c.shape + (1,) * (x.ndim - c.ndim))


def of_class(label: int | None) -> list[int]:
    """The components of a class; all of them for None and for a negative label."""
    return [k for k in range(K) if label is None or label < 0 or LABELS[k] == label]


def log_density(x: Tensor, alpha: float, sigma: float, label: int | None) -> Tensor:
    """log Σ_k w_k·N(x; α·μ_k, (α²s_k² + σ²)·I) of one state x, over the components of its class."""
    terms = []
    for k in of_class(label):
        normal = torch.distributions.Normal(alpha * MEANS[k], (alpha**2 * STDS[k] ** 2 + sigma**2).sqrt())
        terms.append(WEIGHTS[k].log() + normal.log_prob(x).sum())
    return torch.stack(terms).logsumexp(0)


def truth(x: Tensor, alpha: Any, sigma: Any, labels: list[int | None]) -> dict[str, Tensor]:
    """ε = −σ·∇log p, x₀ = (x + σ²·∇log p)/α, v = α·ε − σ·x₀, u = ε − x₀ (α > 0)."""
    a, s = left(alpha, x).expand(len(x), 1), left(sigma, x).expand(len(x), 1)
    scores = []
    for row, al, si, label in zip(x, a.flatten().tolist(), s.flatten().tolist(), labels, strict=True):
        point = row.clone().requires_grad_()
        scores.append(torch.autograd.grad(log_density(point, al, si, label), point)[0])
    score = torch.stack(scores)
    eps, x0 = -s * score, (x + s**2 * score) / a
    return {"epsilon": eps, "x0": x0, "v": a * eps - s * x0, "flow": eps - x0}


def rounding(x: Tensor, alpha: Any, sigma: Any) -> Tensor:
    """A bound on the rounding of any of the four predictions of either side, per sample.

    A log-weight is rounded at L = (|x| + α|μ|)²/min var + the rest, so a responsibility is good to L·eps, and
    it weighs terms no larger than σ·(|x| + α|μ|)/var; x₀ and u divide ε by α once, of which 1 + 1/α.
    """
    a, s = left(alpha, x).expand(len(x), 1), left(sigma, x).expand(len(x), 1)
    variance = a**2 * STDS.min() ** 2 + s**2
    reach = x.norm(dim=1, keepdim=True) + a * MEANS.norm(dim=1).max()
    logits = reach**2 / variance + 10
    return 16 * EPS * logits * (1 + s * reach / variance + x.abs()) * (1 + s / a) * (1 + 1 / a)


def assert_within(actual: Tensor, expected: Tensor, bound: Tensor | float) -> None:
    assert actual.shape == expected.shape
    gap = (actual.double() - expected.double()).abs()
    assert (gap <= torch.as_tensor(bound, dtype=torch.float64)).all(), gap.max()


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


# Shapes and dtypes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", [(1,), (6,), (1, 2, 3), (2, 3)], ids=str)
def test_any_event_shape_is_the_flattened_mixture(event: tuple[int, ...]) -> None:
    means, x = noise(0, 3, *event), noise(1, 4, *event)
    labels, query = torch.tensor([0, 1, 1]), torch.tensor([1, 0, -1, 1])
    shaped = GaussianMixture(means, 0.5, labels=labels)
    flat = GaussianMixture(means.flatten(1), 0.5, labels=labels)
    for kind in KINDS:
        out = shaped.predict(x, 0.6, 0.8, labels=query, prediction=kind)
        assert out.shape == x.shape
        expected = flat.predict(x.flatten(1), 0.6, 0.8, labels=query, prediction=kind)
        assert_within(out.flatten(1), expected, 256 * EPS * (1 + x.flatten(1).abs()))


def test_one_std_for_all_is_that_std_for_each_and_no_weights_are_equal_weights() -> None:
    x = noise(0, 4, 2)
    one = GaussianMixture(MEANS, 0.5).predict(x, 0.6, 0.8)
    spelt = GaussianMixture(MEANS, torch.full((K,), 0.5).double(), torch.full((K,), 1 / K).double())
    assert_within(one, spelt.predict(x, 0.6, 0.8), 256 * EPS * (1 + x.abs()))


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
def test_the_prediction_has_the_states_dtype_and_its_precision(dtype: torch.dtype) -> None:
    """float32 in, float32 out, within float32's rounding of the float64 answer on the same state."""
    x = noise(0, 6, 2).to(dtype)
    for kind in KINDS:
        out = mixture().predict(x, 0.6, 0.8, prediction=kind)
        assert out.dtype == dtype
        expected = mixture().predict(x.double(), 0.6, 0.8, prediction=kind)
        bound = rounding(x.double(), 0.6, 0.8) * (torch.finfo(dtype).eps / EPS)
        assert_within(out, expected, bound)


def test_predictions_are_differentiable_in_the_state() -> None:
    x = noise(0, 3, 2).requires_grad_()
    for kind in KINDS:
        assert torch.autograd.gradcheck(partial(mixture().predict, prediction=kind), (x, 0.6, 0.8))


# The predictor of a solver ---------------------------------------------------------------------------------

SOLVERS: dict[str, Solver] = {
    "sd": DDIM.stable_diffusion(6),
    "edm": DDIM.karras(6, sigma_min=0.1, sigma_max=10.0),
    "flow": FlowEuler.uniform(5, time_scale=1000.0),
    "spherical": Spherical.cosine(5),
}


@pytest.mark.parametrize("name", list(SOLVERS))
def test_a_solvers_predictor_is_predict_at_the_knot_of_each_samples_time(name: str) -> None:
    """eps_fn(x, t, cond): t per sample, cond int64 labels, negative ones unconditional, or None."""
    solver, mix = SOLVERS[name], mixture()
    fn = mix.predictor(solver)
    x = 2 * noise(0, 4, 2)
    rows = torch.tensor([0, len(solver) - 1, 2, 2])
    t, alpha, sigma = solver.times[rows], solver.alphas[rows], solver.sigmas[rows]
    for cond in (None, torch.tensor([0, 2, -1, 1])):
        expected = mix.predict(x, alpha, sigma, labels=cond, prediction=solver.prediction)
        out = fn(x, t, cond)
        # α and σ are looked up or computed from t: a few eps of them, magnified as their rounding is
        assert_within(out, expected, rounding(x, alpha.clamp_min(0.05), sigma) + 64 * EPS * (1 + x.abs()))
    assert torch.equal(fn(x, t, None), fn(x, t, torch.full((4,), -1)))
    conditional, unconditional = fn(x, t, torch.zeros(4, dtype=torch.int64)), fn(x, t, None)
    assert (conditional - unconditional).abs().max() > 1e-3
    single = fn(x.float(), t if t.dtype == torch.int64 else t.float(), None)
    assert single.dtype == torch.float32 and torch.isfinite(single).all()


@pytest.mark.parametrize("name", list(SOLVERS))
def test_a_doubled_batch_is_the_two_batches(name: str) -> None:
    """Rows do not see each other: unconditional rows first, conditional ones after them."""
    solver, x = SOLVERS[name], 2 * noise(0, 3, 2)
    fn, t = mixture().predictor(solver), solver.times[1].expand(3)
    cond, uncond = torch.tensor([0, 1, 2]), torch.full((3,), -1)
    doubled = fn(torch.cat([x, x]), torch.cat([t, t]), torch.cat([uncond, cond]))
    apart = torch.cat([fn(x, t, uncond), fn(x, t, cond)])
    alpha, sigma = (torch.cat([v, v]) for v in solver.alpha_sigma(t))
    assert_within(doubled, apart, rounding(torch.cat([x, x]), alpha, sigma))


# Sampling and Monte Carlo ----------------------------------------------------------------------------------


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


# Errors ----------------------------------------------------------------------------------------------------

ERRORS: dict[str, tuple[tuple[Any, ...], str]] = {
    "std 0": ((MEANS, 0.0), "stds"),
    "std below 0": ((MEANS, -STDS), "stds"),
    "std nan": ((MEANS, math.nan), "stds"),
    "stds per something else": ((MEANS, STDS[:-1]), "stds"),
    "weights short": ((MEANS, STDS, WEIGHTS[:-1]), "weights"),
    "weights below 0": ((MEANS, STDS, -WEIGHTS), "weights"),
    "labels short": ((MEANS, STDS, WEIGHTS, LABELS[:-1]), "labels"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_a_bad_mixture_is_refused_by_the_name_of_its_argument(case: str) -> None:
    args, word = ERRORS[case]
    with pytest.raises(ValueError, match=word):
        GaussianMixture(*args)


def test_an_unknown_prediction_is_refused() -> None:
    with pytest.raises(ValueError, match="prediction"):
        mixture().predict(noise(0, 2, 2), 0.6, 0.8, prediction="noise")  # type: ignore[arg-type]


def test_the_ways_of_asking_for_no_class_agree() -> None:
    x = noise(0, 2, 2)
    for kind, labels in product(KINDS, (torch.tensor([-1, -1]), torch.tensor([-3, -1]))):
        with_labels = mixture().predict(x, 0.6, 0.8, labels=labels, prediction=kind)
        assert_within(with_labels, mixture().predict(x, 0.6, 0.8, prediction=kind), rounding(x, 0.6, 0.8))
