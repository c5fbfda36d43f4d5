"""Grids of continuous schedules: against their differential equations, and against tables of diffusers."""

import math
from typing import Any

import pytest
import torch

from support.tensors import assert_within
from zigzag.solvers import DDIM, DPMSolver, Heun, cosine_grid, ve_grid, vp_grid

EPS = torch.finfo(torch.float64).eps


@pytest.mark.parametrize("t_max", [1.0, 0.7])
def test_the_vp_grid_is_the_product_of_its_noisings(t_max: float) -> None:
    """α(t) = Π √(1 − β(s)·ds), in steps so small that what is left is theirs; σ² = 1 − α²."""
    alphas, sigmas, times = vp_grid(5, t_max=t_max, time_scale=999.0)
    assert_within(times / 999, torch.linspace(t_max, 1e-3, 5, dtype=torch.float64), 4 * EPS)
    for alpha, sigma, t in zip(alphas, sigmas, times / 999, strict=False):
        s = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000 * t
        product = torch.log1p(-(0.1 + s * 19.9) * t / 200_000).sum() / 2
        assert abs(float(product.exp() - alpha)) < 1e-3 * float(alpha)
        assert abs(float(alpha**2 + sigma**2) - 1) < 4 * EPS
    assert (alphas[-1], sigmas[-1]) == (1, 0)


def test_the_vp_grid_is_the_table_of_ddpm_in_a_thousand_steps() -> None:
    """β of DDPM, 1e-4 to 0.02, is β(t)/1000 of this one. Its product is of `1 − β` and not of `exp(−β)`, which makes a
    factor of `exp(−½Σβ²/2)` in α; what is left is of the order of a step."""
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    table = torch.cumprod(1 - beta, 0).sqrt()
    alphas = vp_grid(1000, t_max=1.0, t_min=1e-3).alphas[:-1].flip(0)
    second_order = (beta**2).cumsum(0) / 4
    assert ((table / alphas).log() + second_order).abs().max() < 2e-3 < second_order[-1] / 10


def test_the_ve_grid_is_geometric_and_karras_with_a_large_rho() -> None:
    alphas, sigmas, times = ve_grid(7, sigma_min=0.02, sigma_max=30.0)
    ratios = sigmas[1:-1] / sigmas[:-2]
    assert_within(ratios, torch.full_like(ratios, (0.02 / 30) ** (1 / 6)), 64 * EPS)
    assert torch.equal(times, sigmas[:-1]) and torch.equal(alphas, torch.ones(8, dtype=torch.float64))
    karras = DDIM.karras(7, sigma_min=0.02, sigma_max=30.0, rho=1e6)
    assert_within(sigmas, karras.sigmas, 1e-3 * sigmas)
    assert (sigmas[0], sigmas[-1]) == (pytest.approx(30.0, rel=8 * EPS), 0)


def test_the_cosine_grid_is_the_table_of_diffusers() -> None:
    """ᾱ of `squaredcos_cap_v2`, whose β is f(t + 1/N)/f(t): the product telescopes, up to where β is clipped."""
    diffusers = pytest.importorskip("diffusers")
    table = diffusers.DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2").alphas_cumprod.double()
    alphas, sigmas, _ = cosine_grid(10, t_max=0.99, t_min=0.01)
    for k, t in enumerate(torch.linspace(0.99, 0.01, 10, dtype=torch.float64).tolist()):
        n = t * 1000 - 1  # the table has ᾱ((n + 1)/N)
        if abs(n - round(n)) < 1e-6:
            assert abs(float(alphas[k] ** 2 - table[round(n)])) < 1e-4
    assert_within(alphas**2 + sigmas**2, torch.ones(11, dtype=torch.float64), 8 * EPS)
    assert cosine_grid(3, t_max=1.0).alphas[0] == pytest.approx(0, abs=EPS)


@pytest.mark.parametrize("grid", [vp_grid, ve_grid, cosine_grid])
@pytest.mark.parametrize("steps", [1, 2, 20])
def test_every_solver_of_levels_takes_them(grid: Any, steps: int) -> None:
    for solver in (DDIM(*grid(steps)), DPMSolver(*grid(steps), prediction="v"), Heun(*grid(steps), prediction="x0")):
        assert len(solver) == steps
        assert all(math.isfinite(float(solver.step(i, None, range(i)).a)) for i in range(steps))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: vp_grid(0), "steps"),
        (lambda: vp_grid(5, beta_min=20.0, beta_max=0.1), "beta_min < beta_max"),
        (lambda: vp_grid(5, t_min=0.0), "t_min"),
        (lambda: vp_grid(5, t_min=1.0), "t_min"),
        (lambda: ve_grid(5, sigma_min=0.0), "sigma_min"),
        (lambda: ve_grid(2.5), "steps"),  # type: ignore[arg-type]
        (lambda: cosine_grid(5, t_max=1.01), "t_max <= 1"),
        (lambda: cosine_grid(5, offset=-0.1), "offset"),
    ],
)
def test_what_is_out_of_range_is_refused_by_its_name(make: Any, match: str) -> None:
    with pytest.raises((TypeError, ValueError), match=match):
        make()
