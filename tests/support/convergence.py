"""A Gaussian whose probability flow and reverse SDE have closed forms, and orders regressed on it."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from support.held import says
from zigzag.solvers import Solver
from zigzag.zoo import GaussianMixture

MEAN, STD = 0.7, 0.5
GAUSSIAN = GaussianMixture(torch.tensor([[MEAN]], dtype=torch.float64), STD)


def exact(solver: Solver, x: Tensor, i: int | slice = -1) -> Tensor:
    """Where the flow takes `x` of knot 0: the marginal at (α, σ) is N(α·m, α²s² + σ²), and the standard score is kept.

    x_i = α_i·m + √((α_i²s² + σ_i²)/(α_0²s² + σ_0²))·(x_0 − α_0·m).
    """
    alpha, sigma = solver.alphas, solver.sigmas
    spread = (alpha**2 * STD**2 + sigma**2).sqrt()
    return alpha[i] * MEAN + spread[i] / spread[0] * (x - alpha[0] * MEAN)


def predict(solver: Solver, x: Tensor, i: int) -> Tensor:
    """The true prediction at a knot, by the mixture of one Gaussian."""
    return GAUSSIAN.predictor(solver)(x, solver.times[i].expand(len(x)), None)


def affine(kind: str, alpha: float, sigma: float) -> tuple[float, float]:
    """`(g, c)` of the true prediction `g·x + c` at a level: ε = σ·(x − α·m)/(α²s² + σ²), x₀ = (x − σ·ε)/α."""
    variance = alpha**2 * STD**2 + sigma**2
    eps = sigma / variance, -sigma * alpha * MEAN / variance
    x0 = (1 - sigma * eps[0]) / alpha, -sigma * eps[1] / alpha
    on_x0, on_eps = says(kind, alpha, sigma).tolist()
    return on_x0 * x0[0] + on_eps * eps[0], on_x0 * x0[1] + on_eps * eps[1]


def regressed(steps: Sequence[int], error: Callable[[int], float]) -> float:
    """Minus the least-squares slope of log(error) on log(T)."""
    points = [(math.log(count), math.log(error(count))) for count in steps]
    centre = [sum(p[k] for p in points) / len(points) for k in (0, 1)]
    slope = sum((p - centre[0]) * (q - centre[1]) for p, q in points)
    return -slope / sum((p - centre[0]) ** 2 for p, _ in points)
