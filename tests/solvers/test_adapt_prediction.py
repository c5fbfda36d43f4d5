"""Predictors of another quantity, adapted, sample as those of the solver's own do."""

from typing import Any

import pytest
import torch
from torch import Tensor

from support.predictions import SAID, truth
from support.tensors import assert_within, noise
from zigzag import DDIM, FlowEuler, Solver, Spherical, Standard, Z2Sampling, adapt_prediction, sample
from zigzag.solvers import ve_grid, vp_grid
from zigzag.zoo import GaussianMixture

EPS = torch.finfo(torch.float64).eps


@pytest.mark.parametrize("source", SAID)
@pytest.mark.parametrize("name", ["sd", "edm", "flow", "spherical"])
def test_an_adapted_predictor_predicts_what_the_solver_wants(name: str, source: Any) -> None:
    """A mixture's predictor of `source`, adapted, is its predictor of `solver.prediction` at every time."""
    solver: Solver = {
        "sd": DDIM.stable_diffusion(5),
        "edm": DDIM.karras(5, sigma_min=0.1, sigma_max=10.0),
        "flow": FlowEuler(torch.tensor([0.95, 0.6, 0.3, 0.0], dtype=torch.float64)),
        "spherical": Spherical.cosine(5, phi_max=1.5),
    }[name]
    mixture = GaussianMixture(noise(0, 3, 2), 0.5)
    seen: list[object] = []
    row = {t: k for k, t in enumerate(solver.times.tolist())}

    def predict(x: Tensor, t: Tensor, cond: object) -> Tensor:
        seen.append(cond)
        k = [row[v] for v in t.tolist()]
        levels = solver.alphas[k], solver.sigmas[k]
        x0, eps = (mixture.predict(x, *levels, prediction=kind) for kind in ("x0", "epsilon"))
        return truth(source, x0, eps, *levels)

    adapted = adapt_prediction(predict, solver, source)
    n = len(solver)
    order = torch.tensor([n - 1, 0, 1])
    x, t = 3 * noise(1, 3, 2), solver.times[order]
    alpha, sigma = solver.alphas[order], solver.sigmas[order]
    cond = object()
    out = adapted(x, t, cond)
    wanted = mixture.predict(x, alpha, sigma, prediction=solver.prediction)
    floor = torch.minimum(alpha, sigma).clamp_max(1.0)[:, None]
    size = (1 + x.abs() + wanted.abs()).amax() * ((1 + sigma[:, None]) / floor) ** 2
    assert_within(out, wanted, 32 * EPS * size)
    assert seen == [cond]


@pytest.mark.parametrize("source", ["x0", "v", "flow"])
@pytest.mark.parametrize("solver", [FlowEuler.uniform(4), Spherical.cosine(4)], ids=["flow", "spherical"])
def test_predictors_of_x0_v_and_flow_adapt_also_at_pure_noise(solver: Solver, source: Any) -> None:
    """At knot 0, α = 0 and σ = 1: u = x − x₀ and v = −x₀ need no division by α."""
    x, x0 = noise(0, 2, 3), noise(1, 2, 3)

    def predict(x: Tensor, t: Tensor, cond: object) -> Tensor:
        return truth(source, x0, x, 0.0, 1.0)

    out = adapt_prediction(predict, solver, source)(x, solver.times[0].expand(2), None)
    assert_within(out, truth(solver.prediction, x0, x, 0.0, 1.0), 8 * EPS * (x.abs() + x0.abs()))


def test_a_score_model_is_sampled_as_the_noise_model_of_the_same_mixture() -> None:
    """∇log p of the mixture, by autograd of its log-density alone, on the grid of the VP and the VE SDE."""
    means = torch.tensor([[1.0, 0.5], [-1.5, 0.2]], dtype=torch.float64)
    mixture = GaussianMixture(means, 0.4)
    for solver in (DDIM(*vp_grid(6)), DDIM(*ve_grid(6, sigma_max=5.0))):
        row = {t: k for k, t in enumerate(solver.times.tolist())}

        def score(x: Tensor, t: Tensor, cond: object, solver: Solver = solver, row: Any = row) -> Tensor:
            k = row[float(t[0])]
            alpha, sigma = solver.alphas[k], solver.sigmas[k]
            with torch.enable_grad():
                point = x.detach().requires_grad_()
                square = ((point[:, None] - alpha * means) ** 2).sum(-1)
                log_p = torch.logsumexp(-square / (2 * (0.4**2 * alpha**2 + sigma**2)), 1)
                return torch.autograd.grad(log_p.sum(), point)[0]

        x = solver.noise((5, 2), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        adapted = adapt_prediction(score, solver, "score")
        ours = sample(adapted, x, solver, Z2Sampling(warmup=1), cond=None, strong=1.0, weak=1.0)
        theirs = sample(mixture.predictor(solver), x, solver, Standard(), cond=None, strong=1.0)
        assert_within(ours, theirs, 1e4 * EPS * (1 + theirs.abs()))


def test_a_flow_model_whose_time_1_is_data_is_sampled_as_the_other_with_the_direction_turned() -> None:
    """It is told 1 − σ and predicts x₀ − ε; no time is looked up, so that times may even be shared."""
    solver, rising = FlowEuler.uniform(6, shift=2.0), FlowEuler.uniform(6, shift=2.0, rising=True)
    assert_within(rising.times, 1 - solver.times, EPS)

    def flow(x: Tensor, t: Tensor, cond: object) -> Tensor:
        return torch.sin(3 * x + t[:, None])

    def to_data(x: Tensor, t: Tensor, cond: object) -> Tensor:
        return -flow(x, 1 - t, cond)

    x = noise(0, 4, 3)
    plain = sample(flow, x, solver, Standard(), cond=None, strong=1.0)
    turned = sample(adapt_prediction(to_data, rising, "flow_to_data"), x, rising, Standard(), cond=None, strong=1.0)
    assert_within(turned, plain, 256 * EPS * (1 + plain.abs()))
    with pytest.raises(AssertionError):  # mutant: the direction as it is
        assert_within(sample(to_data, x, rising, Standard(), cond=None, strong=1.0), plain, 1e-3)
    one_time = FlowEuler([1.0, 0.5, 0.0], [1, 1])
    assert torch.equal(
        adapt_prediction(flow, one_time, "flow_to_data")(x, torch.ones(4), None), -flow(x, torch.ones(4), None)
    )


@pytest.mark.parametrize("source", ["score", "epsilon"])
def test_what_says_nothing_of_the_data_at_pure_noise_is_refused_there(source: Any) -> None:
    solver = FlowEuler.uniform(3)
    with pytest.raises(ValueError, match=f"source='{source}' says nothing .* at knot 0"):
        adapt_prediction(lambda x, t, cond: x, solver, source)
