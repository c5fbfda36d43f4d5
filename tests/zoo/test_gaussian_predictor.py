"""GaussianMixture: the predictor of a solver, per sample and on a doubled batch."""

import pytest
import torch

from support.gaussians import mixture, rounding
from support.tensors import assert_within, noise
from zigzag.solvers import DDIM, FlowEuler, Solver, Spherical

EPS = torch.finfo(torch.float64).eps

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
