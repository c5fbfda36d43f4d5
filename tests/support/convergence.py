"""The Gaussian of `zigzag.testing.gaussian`, and its predictions as coefficients."""

from support.held import says
from zigzag.testing.gaussian import GAUSSIAN, MEAN, STD, exact, predict, regressed

__all__ = ["GAUSSIAN", "MEAN", "STD", "affine", "exact", "predict", "regressed"]


def affine(kind: str, alpha: float, sigma: float) -> tuple[float, float]:
    """`(g, c)` of the true prediction `g·x + c` at a level: ε = σ·(x − α·m)/(α²s² + σ²), x₀ = (x − σ·ε)/α."""
    variance = alpha**2 * STD**2 + sigma**2
    eps = sigma / variance, -sigma * alpha * MEAN / variance
    x0 = (1 - sigma * eps[0]) / alpha, -sigma * eps[1] / alpha
    on_x0, on_eps = says(kind, alpha, sigma).tolist()
    return on_x0 * x0[0] + on_eps * eps[0], on_x0 * x0[1] + on_eps * eps[1]
