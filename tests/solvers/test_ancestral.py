"""Ancestral steps on every prediction: DDIM's η, DDPM's variances and the η of flows, against their equations."""

from __future__ import annotations

import math

import pytest
import torch

from support.held import PRESETS
from support.steps import EPS
from zigzag.solvers import DDIM, DDPM, Ancestral, DPMSolver, FlowAncestral, FlowEuler, Solver, cosine_grid, vp_grid
from zigzag.testing import check_solver

GRIDS = {
    **{name: make(5) for name, make in PRESETS.items()},
    "vp": DDIM(*vp_grid(5)),
    "cosine vp": DDIM(*cosine_grid(5)),
}
HELD = [name for name, grid in GRIDS.items() if grid.alphas[0] > 1e-6]  # where ε says something of x₀
PAIRS = [(i, j) for j in range(1, 6) for i in range(j)]


def check_same(ours: Solver, theirs: Solver) -> None:
    """Every step between any two knots, in roundings of the terms that `b` is the difference of."""
    for i, j in PAIRS:
        one, two = ours.step(i, j), theirs.step(i, j)
        terms = 1 + abs(two.a) + abs(two.b) + float(ours.sigmas[i] / max(ours.alphas[i], 1e-3))
        assert one.a == pytest.approx(two.a, abs=16 * EPS * terms), (i, j)
        assert one.b == pytest.approx(two.b, abs=16 * EPS * terms), (i, j)
        # √(1 − (k_j/k_i)²) is rounded at the 1.
        assert one.noise == pytest.approx(two.noise, rel=64 * EPS), (i, j)


@pytest.mark.parametrize("name", HELD)
def test_on_epsilon_it_is_ddim_and_ddpm(name: str) -> None:
    grid = GRIDS[name]
    levels = grid.alphas, grid.sigmas, grid.times
    for eta in (0.0, 0.4, 1.0):
        check_same(Ancestral(*levels, eta=eta), DDIM(*levels, eta=eta))
        with pytest.raises(AssertionError):
            check_same(Ancestral(*levels, eta=0.999 * eta + 0.0005), DDIM(*levels, eta=eta))
    check_same(Ancestral(*levels), DDPM(*levels))
    check_same(Ancestral(*levels, variance="large"), DDPM(*levels, variance="large"))


@pytest.mark.parametrize("name", GRIDS)
def test_without_noise_it_is_the_grids_own_step_and_with_all_of_it_the_sde(name: str) -> None:
    grid = GRIDS[name]
    check_same(Ancestral.on(grid, eta=0.0), grid)
    check_same(Ancestral.on(grid), DPMSolver.on(grid, order=1, sde=True))


@pytest.mark.parametrize("kind", ["x0", "v", "flow"])
@pytest.mark.parametrize("name", GRIDS)
def test_the_noise_knows_no_prediction(name: str, kind: str) -> None:
    """Nor does what is kept of the state beside x₀: `a − Q·p = P` and `b = Q·q` of the equation, at any level."""
    grid = GRIDS[name]
    solver = Ancestral(grid.alphas, grid.sigmas, grid.times, prediction=kind, eta=0.4)  # type: ignore[arg-type]
    alphas, sigmas, _ = solver.knots
    for i, j in PAIRS:
        step, k = solver.step(i, j), sigmas[j] * alphas[i] / (alphas[j] * sigmas[i])
        s = 0.4 * sigmas[j] * math.sqrt(1 - k**2)
        P = math.sqrt(sigmas[j] ** 2 - s**2) / sigmas[i]
        Q = alphas[j] - P * alphas[i]
        p, q = {
            "x0": (0.0, 1.0),
            "v": (alphas[i] / (alphas[i] ** 2 + sigmas[i] ** 2), -sigmas[i] / (alphas[i] ** 2 + sigmas[i] ** 2)),
            "flow": (1 / (alphas[i] + sigmas[i]), -sigmas[i] / (alphas[i] + sigmas[i])),
        }[kind]
        assert (step.a, step.b, step.noise) == pytest.approx((P + Q * p, Q * q, s), rel=1e-12, abs=1e-13)


# Of flows ------------------------------------------------------------------------------------------------------------

FLOW = FlowEuler.uniform(6, shift=3.0)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_a_flow_goes_below_the_next_knot_and_up_again(eta: float) -> None:
    """Euler's own step to σ↓, and then the noise that leads up from there, which `noise_step` of such a grid has."""
    solver = FlowAncestral.on(FLOW, eta=eta)
    check_solver(solver)
    sigmas = FLOW.sigmas.tolist()
    for i in range(5):
        down = sigmas[i + 1] * (1 + eta * (sigmas[i + 1] / sigmas[i] - 1))
        step = solver.step(i)
        if eta == 0:
            assert (step.a, step.b) == pytest.approx((1, FLOW.step(i).b), rel=8 * EPS) and not step.noisy
            continue
        euler, up = FlowEuler([sigmas[i], down]).step(0), FlowEuler([sigmas[i + 1], down]).noise_step(1, 0)
        assert (step.a, step.b) == pytest.approx((up.a * euler.a, up.a * euler.b), rel=64 * EPS)
        assert step.noise == pytest.approx(up.b, rel=64 * EPS)
    assert not solver.step(5).noisy


def test_the_eta_of_flows_is_not_that_of_ddim() -> None:
    """But for a step from pure noise at η = 1, where the one keeps none of the noise, and the other some."""
    ours, other = FlowAncestral.on(FLOW), Ancestral.on(FLOW)
    assert other.step(0).noise == FLOW.sigmas[1] > ours.step(0).noise
    for i in range(5):
        assert ours.step(i).noise != pytest.approx(other.step(i).noise, rel=1e-3)


def test_pure_noise_is_left_with_x0_alone() -> None:
    """At η = 1 nothing is kept of a state of pure noise: `x_j = α_j·x₀ + σ_j·z`, and `+ z` for the large variance."""
    for variance, s in (("small", float(FLOW.sigmas[1])), ("large", 1.0)):
        step = Ancestral.on(FLOW, variance=variance).step(0)
        x0, eps = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        found = step.forward(eps, eps - x0)
        torch.testing.assert_close(found, FLOW.alphas[1] * x0, rtol=16 * EPS, atol=16 * EPS)
        assert step.noise == pytest.approx(s)
