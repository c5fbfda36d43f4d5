"""The weak order of stochastic solvers: mean and variance of their end, exactly, on a Gaussian.

The true predictions are affine in the state, and so is every step in the state, in what it remembers and in its noise:
mean and covariance of all of them are carried along in closed form, and nothing is sampled. The true law is that of the
forward process, whose reversal with the true score these solvers integrate: it also gives the memory to start with.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from support.convergence import MEAN, STD, affine, regressed
from support.held import DETERMINISTIC, ON_EPSILON, STOCHASTIC
from support.steps import EPS
from zigzag.solvers import DDIM, FlowEuler, Solver

STEPS = (64, 128, 256)


def falling(high: float, low: float, steps: int) -> Tensor:
    return low + (high - low) * (1 - torch.arange(steps + 1, dtype=torch.float64) / steps)


def edm(steps: int) -> Solver:
    sigma = falling(1.6, 0.4, steps) ** 3
    return DDIM(torch.ones_like(sigma), sigma, sigma[:-1])


def vp(steps: int) -> Solver:
    phi = falling(1.3, 0.2, steps)
    return DDIM(phi.cos(), phi.sin(), phi[:-1])


GRIDS: dict[str, Callable[[int], Solver]] = {
    "edm": edm,
    "vp": vp,
    "flow": lambda steps: FlowEuler(falling(0.85, 0.1, steps)),
}


class Law:
    """Mean and covariance of `(x_i, m_{i−1}, m_{i−2}, …)`, begun at knot `first` from the forward process."""

    def __init__(self, solver: Solver, first: int, fixed: float | None = None) -> None:
        self.solver, self.first = solver, first
        self.alphas, self.sigmas, _ = solver.knots
        knots = [*range(first, -1, -1)]
        mean = np.array([self.alphas[k] * MEAN for k in knots])
        cov = np.array([[self.joint(i, j) for j in knots] for i in knots])
        if fixed is not None:  # given x_0
            onto = cov[:, -1] / cov[-1, -1]
            mean, cov = mean + onto * (fixed - mean[-1]), cov - np.outer(onto, cov[-1])
        left = np.array([(1.0, 0.0), *(self.remembered(k) for k in knots[1:])])
        self.mean, self.cov = left[:, 0] * mean + left[:, 1], left[:, :1] * cov * left[:, 0]

    def joint(self, i: int, j: int) -> float:
        """Cov(x_i, x_j): the noisier of the two is α/α times the other, and noise of its own."""
        noisy, clean = min(i, j), max(i, j)
        return self.alphas[noisy] / self.alphas[clean] * (self.alphas[clean] ** 2 * STD**2 + self.sigmas[clean] ** 2)

    def given(self, i: int, fixed: float) -> tuple[float, float]:
        """Mean and variance of x_i, given x_0."""
        onto = self.joint(i, 0) / self.joint(0, 0)
        mean = self.alphas[i] * MEAN + onto * (fixed - self.alphas[0] * MEAN)
        return mean, self.joint(i, i) - onto * self.joint(i, 0)

    def predicted(self, i: int) -> tuple[float, float]:
        return affine(self.solver.prediction, self.alphas[i], self.sigmas[i])

    def remembered(self, i: int) -> tuple[float, float]:
        """What is left at knot i as an affine function of x_i."""
        g, c = self.predicted(i)
        x = torch.tensor([0.0, 1.0], dtype=torch.float64)
        c, end = self.solver.remember(i, x, g * x + c).tolist()
        return end - c, c

    def step(self, i: int) -> None:
        step, (g, c), n = self.solver.step(i, None, range(i)), self.predicted(i), len(self.mean)
        rows = [np.array([step.a + step.b * g, *step.memory, *[0.0] * (n - step.order)])]
        shift = [step.b * c]
        if self.solver.memory:
            left, offset = self.remembered(i)
            kept = min(self.solver.memory - 1, n - 1)
            rows += [left * np.eye(n)[0], *np.eye(n)[1 : 1 + kept]]
            shift += [offset] + [0.0] * kept
        a = np.stack(rows)
        self.mean, self.cov = a @ self.mean + np.array(shift), a @ self.cov @ a.T
        self.cov[0, 0] += step.noise**2


def solver_of(name: str, grid: str, steps: int) -> Solver:
    base = GRIDS[grid](steps)
    return {**STOCHASTIC, **DETERMINISTIC}[name](base, base.prediction)


@cache
def variance_order(name: str, grid: str) -> float:
    """Of the largest error of the variance over the knots, begun in the true law."""

    def error(steps: int) -> float:
        solver = solver_of(name, grid, steps)
        law, worst = Law(solver, solver.memory), 0.0
        for i in range(law.first, steps):
            law.step(i)
            worst = max(worst, abs(float(law.cov[0, 0]) - law.joint(i + 1, i + 1)))
        return worst

    return regressed(STEPS, error)


ANCESTRAL = ("ancestral", "ancestral 0.4", "ancestral, large")
WEAK = dict.fromkeys([*ON_EPSILON, *ANCESTRAL], 1) | {"SDE-1": 1, "SDE-2M": 2, "SDE-2M, heun": 2}


@pytest.mark.parametrize(("name", "grid"), [(n, g) for n in WEAK for g in GRIDS if g != "flow" or n not in ON_EPSILON])
def test_the_variance_converges_with_the_weak_order_of_the_solver(name: str, grid: str) -> None:
    assert variance_order(name, grid) == pytest.approx(WEAK[name], abs=0.1)


@pytest.mark.parametrize("grid", GRIDS)
def test_the_third_order_of_the_sde_is_weakly_of_order_two(grid: str) -> None:
    """Differences of what is remembered hold noise of √h each: the third node gains a constant and no order."""
    assert 1.9 < variance_order("SDE-3M", grid) < 2.5


@pytest.mark.parametrize(
    "name", ["eta 1", "DDPM", "DDPM, large", "ancestral, large", "SDE-1", "SDE-2M", "SDE-2M, heun", "SDE-3M"]
)
@pytest.mark.parametrize("grid", ["edm", "vp"])
def test_the_mean_from_any_state_is_exact_at_any_number_of_steps(name: str, grid: str) -> None:
    """Given x_0: the true x₀ prediction is a martingale of the reverse SDE, so its differences have mean 0."""
    for steps in (3, 10):
        solver = solver_of(name, grid, steps)
        fixed = 1.5 * float(solver.sigmas[0])
        law = Law(solver, solver.memory, fixed)
        for i in range(law.first, steps):
            law.step(i)
            want, _ = law.given(i + 1, fixed)
            assert math.isclose(float(law.mean[0]), want, abs_tol=64 * EPS * (i + 1) * (abs(fixed) + 1))


def test_moments_are_told_apart() -> None:
    """Mutants: the flow from a fixed state has another mean, and the orders of two solvers differ."""
    solver = solver_of("2M", "edm", 10)
    fixed = 1.5 * float(solver.sigmas[0])
    law = Law(solver, solver.memory, fixed)
    for i in range(law.first, 10):
        law.step(i)
    assert abs(float(law.mean[0]) - law.given(10, fixed)[0]) > 0.1
    with pytest.raises(AssertionError):
        assert variance_order("SDE-1", "vp") == pytest.approx(2, abs=0.1)
