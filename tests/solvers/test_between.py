"""`DPM2.on` and `TCD.on`: levels between the knots of a grid, where it tells them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from support.convergence import affine, exact, regressed
from zigzag import Standard, sample
from zigzag.solvers import (
    DDIM,
    DPM2,
    TCD,
    DPMSolver,
    FlowEuler,
    Heun,
    Solver,
    Spherical,
    adapt_prediction,
    cosine_grid,
    ve_grid,
    vp_grid,
)
from zigzag.solvers.schedules import VP, Cosine
from zigzag.zoo import GaussianMixture

X = torch.linspace(-2.0, 2.0, 9, dtype=torch.float64)[:, None]
EPS = torch.finfo(torch.float64).eps


def same(one: Solver, other: Solver) -> None:
    """The same grid, told the same, and the same steps."""
    for name in ("alphas", "sigmas", "times", "inner_times"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=4 * EPS, atol=0)
    for i in range(len(one)):
        a, b = one.step(i), other.step(i)
        assert (a.a, a.b, a.noise) == pytest.approx((b.a, b.b, b.noise), rel=1e-12)
        assert (one.inner(i, i + 1) is None) == (other.inner(i, i + 1) is None)


@pytest.mark.parametrize("cls", [DDIM, Heun, DPMSolver])
def test_dpm2_on_the_grid_of_karras_is_its_own(cls: Any) -> None:
    plain = DDIM.karras(7)
    same(DPM2.on(plain if cls is DDIM else cls.on(plain)), DPM2.karras(7))


# Grids of smooth levels, told by each rule that is known: `(α, σ)` of a share of the way, and the time of a level.
RULES: dict[str, tuple[Callable[[int], Solver], Callable[[float, float], float]]] = {
    "σ": (lambda T: edm(T, lambda sigma: sigma), lambda alpha, sigma: sigma),
    "log σ / 4": (lambda T: edm(T, lambda sigma: sigma.log() / 4), lambda alpha, sigma: torch.tensor(sigma).log() / 4),
    "flow": (lambda T: FlowEuler(falling(0.85, 0.1, T), 1000 * falling(0.85, 0.1, T)[:-1]), lambda a, s: 1000 * s),
    "flow, rising": (lambda T: FlowEuler(falling(0.85, 0.1, T), 1 - falling(0.85, 0.1, T)[:-1]), lambda a, s: 1 - s),
    "angle": (lambda T: Spherical(falling(1.3, 0.2, T)), lambda a, s: torch.atan2(torch.tensor(s), torch.tensor(a))),
    "VP": (lambda T: told_by(VP(4.975, 0.05), T), lambda a, s: linear_beta(a, 0.1, 20.0)),
    "VP, 999": (
        lambda T: told_by(VP(4.975 / 999**2, 0.05 / 999), T, 999),
        lambda a, s: 999 * linear_beta(a, 0.1, 20.0),
    ),
    "cosine": (lambda T: told_by(Cosine(math.pi / 2.4, math.pi / 12), T), lambda a, s: cosine(a, 0.2)),
    "cosine, no offset": (lambda T: told_by(Cosine(math.pi / 2, 0.0), T), lambda a, s: cosine(a, 0.0)),
}


def told_by(schedule: VP | Cosine, steps: int, unit: float = 1.0) -> Solver:
    t = unit * falling(0.9, 0.1, steps)
    return DDIM(*schedule.levels(t), t[:-1])


def linear_beta(alpha: float, low: float, high: float) -> float:
    """The time at which `∫β/2 = −log α`, `β` from `low` to `high`: the larger root, of Song et al. 2021, eq. 33."""
    a, b, c = (high - low) / 4, low / 2, math.log(alpha)
    return (-b + math.sqrt(b * b - 4 * a * c)) / (2 * a)


def cosine(alpha: float, s: float) -> float:
    """Nichol & Dhariwal 2021, eq. 17, for the time."""
    return math.acos(alpha * math.cos(s / (1 + s) * math.pi / 2)) * 2 / math.pi * (1 + s) - s


def falling(high: float, low: float, steps: int) -> Tensor:
    return low + (high - low) * (1 - torch.arange(steps + 1, dtype=torch.float64) / steps)


def edm(steps: int, told: Callable[[Tensor], Tensor]) -> Solver:
    sigma = falling(1.6, 0.4, steps) ** 3
    return DDIM(torch.ones_like(sigma), sigma, told(sigma)[:-1])


def levels(solver: DPM2) -> list[tuple[float, float]]:
    return solver._levels


@pytest.mark.parametrize("name", RULES)
def test_the_levels_are_geometric_means_and_told_as_the_knots_are(name: str) -> None:
    build, told = RULES[name]
    grid = build(6)
    solver, k = DPM2.on(grid), grid.sigmas / grid.alphas
    assert len(levels(solver)) == 6 and solver.prediction == grid.prediction
    for i, (alpha, sigma) in enumerate(levels(solver)):
        assert sigma / alpha == pytest.approx(float((k[i] * k[i + 1]).sqrt()), rel=1e-12)
        assert float(solver.inner_times[i]) == pytest.approx(float(told(alpha, sigma)), rel=1e-6)
        circle = alpha**2 + sigma**2
        shape = alpha + sigma if isinstance(grid, FlowEuler) else alpha if grid.alphas[0] == 1 else circle
        assert shape == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("name", RULES)
def test_it_is_of_order_two_on_a_gaussian_told_by_the_time_alone(name: str) -> None:
    """The predictor finds the level from what it is told, so that a wrong time of a right level shows."""
    build, _ = RULES[name]

    def error(steps: int) -> float:
        grid = build(steps)
        solver = DPM2.on(grid)
        truth = exact(grid, X, slice(None)).T[:, :, None]
        alphas, sigmas, _ = solver.knots
        known = dict(zip(solver.all_times, [*zip(alphas, sigmas, strict=True)][:-1] + levels(solver), strict=True))

        def eps_fn(x: Tensor, t: Tensor, cond: Any) -> Tensor:
            g, c = affine(grid.prediction, *known[float(t[0])])
            return g * x + c

        found = sample(eps_fn, truth[0], solver, Standard(), cond=None, strong=1.0)
        return float((found - truth[-1]).abs().max())

    assert regressed((32, 64, 128), error) == pytest.approx(2, abs=0.3)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_a_training_table_is_asked_at_its_nearest_time(spacing: Any) -> None:
    grid = DDIM.stable_diffusion(8, spacing=spacing)
    solver, table = DPM2.on(grid), grid.alphas_cumprod
    assert table is not None and not solver.inner_times.is_floating_point()
    k = ((1 - table) / table).sqrt()
    for i, ((alpha, sigma), t) in enumerate(zip(levels(solver), solver.inner_times.tolist(), strict=True)):
        assert (alpha, sigma) == (float(table[t].sqrt()), float((1 - table[t]).sqrt()))
        middle = float((grid.sigmas[i] / grid.alphas[i] * grid.sigmas[i + 1] / grid.alphas[i + 1]).sqrt())
        off = (k / middle).log().abs()
        assert float(off[t]) == float(off.min())
    assert len(solver.inner_times) == 8 - (spacing != "trailing")  # below time 1 no time is left, and 0 is clean


def test_a_schedule_that_most_knots_follow_is_none() -> None:
    """It is found by two of the knots, and held against all."""
    alphas, sigmas, times = vp_grid(6)
    off = times.clone()
    off[4] *= 1 + 1e-7
    with pytest.raises(ValueError, match="do not tell what it is told there"):
        DPM2.on(DDIM(alphas, sigmas, off))
    assert len(DPM2.on(DDIM(alphas, sigmas, times)).inner_times) == 5  # the last step ends on clean data


def test_pure_noise_of_a_flow_is_left_by_the_mean_of_sigma() -> None:
    solver = DPM2.on(FlowEuler.uniform(4, time_scale=1000.0))
    assert levels(solver)[0] == pytest.approx((0.125, 0.875)) and solver.inner_times[0] == pytest.approx(875.0)
    same(DPM2.on(FlowEuler([1, 0.75, 0.5, 0.25, 0], [1000, 750, 500, 250])), solver)  # integers become floats


@pytest.mark.parametrize(
    ("grid", "says"),
    [
        (
            DDIM(*vp_grid(6)[:2], vp_grid(6).times ** 2),
            "the times of DDIM.* do not tell what it is told there.*pass the",
        ),
        (DDIM(*vp_grid(2)), "too few of them to tell"),
        (FlowEuler.uniform(2, rising=True), "too few of them to tell"),
        (DDIM.stable_diffusion(600), "the training table has no time between 600 and 599, knots 0 and 1"),
        (DDIM([0.1, 0.7, 0.8], [0.9, 0.6, 0.1], [0.9, 0.6]), "keep neither alpha = 1 nor"),
        (DPMSolver.on(DDIM.stable_diffusion(6)), "do not tell what it is told there"),
    ],
    ids=["squares", "two of VP", "two", "dense", "shape", "no table"],
)
def test_a_grid_that_does_not_tell_is_refused(grid: Solver, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        DPM2.on(grid)


# TCD ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0])
def test_tcd_on_a_grid_of_a_table_is_that_of_the_table(gamma: float) -> None:
    grid = DDIM.stable_diffusion(5)
    assert grid.alphas_cumprod is not None
    table = grid.alphas_cumprod
    want = TCD.from_alphas_cumprod(table, grid.times, gamma=gamma, final_alpha_cumprod=float(table[0]))
    same(TCD.on(grid, gamma=gamma), want)


@pytest.mark.parametrize(
    ("grid", "of"),
    [
        (FlowEuler.uniform(5, time_scale=1000.0), lambda alpha, sigma: sigma),
        (DDIM(*ve_grid(5)), lambda alpha, sigma: sigma),
        (Spherical.cosine(5), lambda alpha, sigma: torch.atan2(torch.tensor(sigma), torch.tensor(alpha))),
        (DDIM(*vp_grid(5, beta_min=0.2, beta_max=5.0)), lambda alpha, sigma: linear_beta(alpha, 0.2, 5.0)),
        (DPMSolver.on(DDIM(*cosine_grid(5))), lambda alpha, sigma: cosine(alpha, 0.008)),
    ],
    ids=["flow", "ve", "angle", "vp", "cosine"],
)
def test_elsewhere_its_levels_are_those_of_the_share_of_the_time(grid: Solver, of: Any) -> None:
    solver, (alphas, sigmas, _) = TCD.on(grid, gamma=0.4), grid.knots
    for j, (alpha, sigma) in enumerate(solver._inner[:-1], start=1):
        assert float(of(alpha, sigma)) == pytest.approx(0.6 * float(of(alphas[j], sigmas[j])), rel=1e-6)
    assert solver._inner[-1] == (alphas[-1], sigmas[-1])
    assert TCD.on(FlowEuler.uniform(1)).step(0).noise == 0


def test_tcd_is_refused_on_a_grid_that_does_not_tell_the_levels() -> None:
    for grid in (DDIM(*vp_grid(2)), FlowEuler.uniform(5, rising=True), DPMSolver.on(DDIM.stable_diffusion(5))):
        with pytest.raises(ValueError, match=r"TCD\.on needs the levels.*TCD\.from_alphas_cumprod"):
            TCD.on(grid)
    with pytest.raises(ValueError, match="gamma must lie in"):
        TCD.on(FlowEuler.uniform(5), gamma=1.5)


# Predictors that find the level by the time --------------------------------------------------------------------------


def test_a_predictor_that_knows_the_knots_alone_is_refused_before_it_is_called() -> None:
    """It would take the level of the nearest knot."""
    grid, mixture = DDIM.karras(6), GaussianMixture(torch.zeros(2, 3), 0.5)
    with pytest.raises(ValueError, match=r"eps_fn was made for DDIM.*has no time .* between its knots; use Heun"):
        sample(mixture.predictor(grid), torch.randn(2, 3), DPM2.on(grid), Standard(), cond=None, strong=1.0)
    for make in (lambda: mixture.predictor(DPM2.on(grid)), lambda: adapt_prediction(affine_of, DPM2.on(grid), "x0")):
        with pytest.raises(ValueError, match=r"but DPM2.* also asks the model between its knots; use Heun"):
            make()
    sample(mixture.predictor(grid), torch.randn(2, 3), Heun.on(grid), Standard(), cond=None, strong=1.0)


def affine_of(x: Tensor, t: Tensor, cond: Any) -> Tensor:
    return x * 0.1
