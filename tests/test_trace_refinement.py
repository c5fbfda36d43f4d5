"""With equal guidances delta is the approximation error; refinement takes it and tau_2 away."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from support.mixtures import COND, MIXTURE, NOISE, UNCOND
from support.traces import EPS, SOLVERS, T
from zigzag import DDIM, FlowEuler, Spherical, Standard, Trace, ZSampling, sample, walk
from zigzag.moves import Denoise, Invert

# Equal guidances: delta is the approximation error ------------------------------------------------


def error_of(solver: object, i: int, refine: int = 0, scale: float = 1.0) -> torch.Tensor:
    path = (Denoise(i, i + 1), Invert(i + 1, i, refine=refine), Denoise(i, i + 1))
    trace = Trace()
    sample(
        MIXTURE.predictor(solver),
        NOISE,
        solver,
        path,
        cond=COND,
        uncond=UNCOND,
        strong=scale,
        weak=scale,
        trace=trace,
    )
    return trace.records[1].delta


def test_with_equal_guidances_delta_is_the_approximation_error() -> None:
    """x~ - x = d (e(x_j, t_i) - e(x_i, t_i)): second order in the step, so that delta falls as h^4.

    On a field that does not depend on the state it is rounding.
    """
    logs = []
    steps = (8, 16, 32, 64)
    for n in steps:
        solver = FlowEuler.uniform(n)
        logs.append(error_of(solver, n // 2).sqrt().log())
    slope = float((logs[-1] - logs[-2]).mean() / math.log(steps[-1] / steps[-2]))
    assert abs(slope + 2) < 0.15, slope
    trace, solver = Trace(), SOLVERS["flow"]
    sample(lambda x, t, c: torch.ones_like(x), NOISE, solver, ZSampling(), cond=None, uncond=None, strong=2.0,
           weak=2.0, trace=trace)  # fmt: skip
    flat = [r.delta for r in trace.records if isinstance(r.move, Invert)]
    assert len(flat) == T - 1 and all(float(d.max()) <= (16 * EPS * 4) ** 2 * 2 for d in flat)
    assert all(float(error_of(solver, i).min()) > 1e-10 for i in range(T - 1))


# Refinement ---------------------------------------------------------------------------------------


def tau2_of(solver: object, i: int, refines: range) -> torch.Tensor:
    """|tau_2| against K, one row a K."""
    found = []
    for k in refines:
        trace, path = Trace(), (Denoise(i, i + 1), Invert(i + 1, i, refine=k), Denoise(i, i + 1))
        sample(MIXTURE.predictor(solver), NOISE, solver, path, cond=COND, uncond=UNCOND, strong=3.0, trace=trace)
        found.append(trace.records[1].tau2)
    return torch.stack(found)


def contraction(solver: object, i: int) -> tuple[torch.Tensor, torch.Tensor]:
    """|d| Lip(e_w) over the iterates' neighbourhood, and |d| times the spectral radius at the fixed point."""
    fn, t, d = MIXTURE.predictor(solver), solver.times[i].expand(1), solver.step(i).d
    visits = list(
        walk(
            fn,
            NOISE,
            solver,
            (Denoise(i, i + 1), Invert(i + 1, i, refine=60)),
            cond=COND,
            uncond=UNCOND,
            strong=3.0,
        )
    )
    down, fixed = visits[0].state, visits[1].state

    def jacobians(x: torch.Tensor) -> torch.Tensor:
        return torch.stack(
            [torch.autograd.functional.jacobian(lambda y: fn(y[None], t, UNCOND[:1])[0], row) for row in x]
        )

    radius = float((fixed - down).norm(dim=1).max())
    rng = torch.Generator().manual_seed(0)
    near = [fixed + radius * (2 * torch.rand(fixed.shape, generator=rng, dtype=fixed.dtype) - 1) for _ in range(40)]
    lip = torch.stack([torch.linalg.matrix_norm(jacobians(x), ord=2) for x in near]).amax(0)
    rho = torch.linalg.eigvals(jacobians(fixed)).abs().amax(-1)
    return abs(d) * lip, abs(d) * rho


def check_geometric(tau2: torch.Tensor, worst: torch.Tensor, rate: torch.Tensor) -> None:
    """tau_2(K + 1) <= q tau_2(K) with q = |d| Lip(e_w) < 1; the slope of log tau_2 over K is log(|d| rho)."""
    assert bool((worst < 1).all()) and bool((tau2 > 1e-11).all())
    assert bool((tau2[1:] <= 1.05 * worst * tau2[:-1]).all())
    k = torch.arange(len(tau2), dtype=tau2.dtype)
    k = k - k.mean()
    slope = (k[:, None] * tau2.log()).sum(0) / k.square().sum()
    print("slope of log tau_2 over K:", slope.tolist(), "log(|d| rho):", rate.log().tolist())
    assert bool(((slope - rate.log()).abs() < 0.1).all())


ANGLES = torch.linspace(1.4, 0, 13, dtype=torch.float64)
GRIDS = {
    "ddim": DDIM(torch.cos(ANGLES), torch.sin(ANGLES), torch.arange(12, 0, -1)),
    "flow": FlowEuler.uniform(12),
    "spherical": Spherical.cosine(12),
}  # fmt: skip


@pytest.mark.parametrize("name", list(GRIDS))
def test_tau_2_falls_geometrically_with_refine(name: str) -> None:
    """Refinement is a fixed-point iteration with the step's |d| Lip(e_w): so many digits an evaluation."""
    solver, i = GRIDS[name], 5
    worst, rate = contraction(solver, i)
    tau2 = tau2_of(solver, i, range(1, 6))
    check_geometric(tau2, worst, rate)
    with pytest.raises(AssertionError):
        check_geometric(tau2[:1].expand(5, -1), worst, rate)
    with pytest.raises(AssertionError):
        check_geometric(tau2, worst, rate * 0.5)


@pytest.mark.parametrize("name", list(GRIDS))
def test_with_equal_guidances_and_enough_refinement_a_zigzag_returns_to_where_it_began(name: str) -> None:
    """|x~ - x| falls as q^K down to rounding, and without refinement it does not go away."""
    solver, i, scale = GRIDS[name], 5, 1.5
    off = [error_of(solver, i, refine=k, scale=scale).sqrt() for k in (0, 2, 4, 80)]
    assert all(bool((two < 0.5 * one).all()) for one, two in itertools.pairwise(off[:3]))
    rounding = 64 * EPS * (1 + float(NOISE.abs().max()))
    assert float(off[3].max()) <= rounding
    assert float(off[0].min()) > 1e-3 > 1e6 * rounding


def test_a_zigzag_everywhere_with_equal_guidances_and_enough_refinement_is_standard_sampling() -> None:
    """Every excursion comes back, so that the path is the plain one; without refinement it is another."""
    solver = GRIDS["flow"]
    fn = MIXTURE.predictor(solver)

    def draw(method: object) -> torch.Tensor:
        return sample(fn, NOISE, solver, method, cond=COND, uncond=UNCOND, strong=1.5, weak=1.5)

    plain = draw(Standard())
    assert float((draw(ZSampling(refine=80)) - plain).abs().max()) <= 1e4 * EPS
    assert float((draw(ZSampling()) - plain).abs().max()) > 1e-3
