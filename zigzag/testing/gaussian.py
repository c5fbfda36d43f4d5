"""A Gaussian whose probability flow has a closed form, and orders regressed on it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from zigzag.solvers import Solver
from zigzag.zoo.mixture import GaussianMixture

__all__ = ["GAUSSIAN", "MEAN", "STD", "exact", "global_error", "predict", "regressed"]

MEAN, STD = 0.7, 0.5
GAUSSIAN = GaussianMixture(torch.tensor([[MEAN]], dtype=torch.float64), STD)


def exact(solver: Solver, x: Tensor, i: int | slice = -1) -> Tensor:
    r"""Where the flow takes `x` of knot 0: the marginal at `(α, σ)` is `N(α·m, α²s² + σ²)`, the standard score is kept.

    .. math:: x_i = \alpha_i m + \sqrt{\frac{\alpha_i^2s^2 + \sigma_i^2}{\alpha_0^2s^2 + \sigma_0^2}}
              \,(x_0 - \alpha_0 m)
    """
    alpha, sigma = solver.alphas, solver.sigmas
    spread = (alpha**2 * STD**2 + sigma**2).sqrt()
    return alpha[i] * MEAN + spread[i] / spread[0] * (x - alpha[0] * MEAN)


def predict(solver: Solver, x: Tensor, i: int) -> Tensor:
    """The true prediction at a knot, by the mixture of one Gaussian."""
    return GAUSSIAN.predictor(solver)(x, solver.times[i].expand(len(x)), None)


def global_error(solver: Solver, integrate: Callable[[Solver, Tensor], Tensor]) -> float:
    """The largest error at the last knot, over states within two deviations."""
    x = torch.linspace(-2.0, 2.0, 9, dtype=torch.float64, device="cpu")[:, None]
    start = x * (solver.alphas[0] ** 2 * STD**2 + solver.sigmas[0] ** 2).sqrt()
    return (integrate(solver, start) - exact(solver, start)).abs().max().item()


def regressed(steps: Sequence[int], error: Callable[[int], float]) -> float:
    """Minus the least-squares slope of log(error) on log(T)."""
    points = [(math.log(count), math.log(error(count))) for count in steps]
    centre = [sum(p[k] for p in points) / len(points) for k in (0, 1)]
    slope = sum((p - centre[0]) * (q - centre[1]) for p, q in points)
    return -slope / sum((p - centre[0]) ** 2 for p, _ in points)
