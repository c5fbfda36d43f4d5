"""Euler steps for flow matching (rectified flow), on any grid of σ with α = 1 − σ."""

from __future__ import annotations

import math

from torch import Tensor

from zigzag.solvers.affine import AffineStep
from zigzag.solvers.grids import Coefficient, Grid, check_steps, descending, even, model_times
from zigzag.solvers.solver import Solver

__all__ = ["FlowEuler", "flow_inverse", "flow_step"]


def _flow(sigma_i: Coefficient, sigma_j: Coefficient) -> AffineStep:
    return AffineStep(1.0, sigma_j - sigma_i)


def flow_step(x: Tensor, e: Tensor, sigma_i: Coefficient, sigma_j: Coefficient) -> Tensor:
    r"""An Euler step of the flow from `σ_i` to `σ_j`, with `e` the velocity `u = ε − x₀`.

    .. math:: x_j = x_i + (\sigma_j - \sigma_i)\,e

    Args:
        x, e: `(B, …)`.
        sigma_i, sigma_j: numbers or tensors `()` or `(B,)`, one time per sample, in [0, 1].

    Singular nowhere. Checks nothing, and differentiates through every argument.
    Source: Lipman et al. 2023, Liu et al. 2023 (rectified flow).
    """
    return _flow(sigma_i, sigma_j).forward(x, e)


def flow_inverse(x: Tensor, e: Tensor, sigma_i: Coefficient, sigma_j: Coefficient) -> Tensor:
    r"""The exact inverse of `flow_step` with the *same* arguments: from `x_j` back to `x_i`.

    .. math:: x_i = x_j - (\sigma_j - \sigma_i)\,e

    Shapes and dtypes as in `flow_step`. Singular nowhere. Source: Z²-Sampling, Appendix D.1.
    """
    return _flow(sigma_i, sigma_j).inverse(x, e)


class FlowEuler(Solver):
    r"""Euler on `x = (1 − σ)·x₀ + σ·ε`, for a model that predicts the velocity `u = ε − x₀`.

    .. math:: a = 1, \qquad b = \sigma_j - \sigma_i

    Args:
        sigmas: `(T + 1,)`, strictly descending within [0, 1].
        times: `(T,)`, what the model is told at knot `i < T`; by default σ (diffusers' models want 1000·σ).

    Raises:
        ValueError, TypeError: for grids that are short, out of range, not finite or not descending. An ascending grid
            is not sorted silently.

    Source: Lipman et al. 2023 (flow matching); Esser et al. 2024 (SD3).
    """

    prediction = "flow"

    def __init__(self, sigmas: Grid, times: Grid | None = None) -> None:
        sigma = descending("sigmas", sigmas, 1, "1")
        super().__init__(1 - sigma, sigma, sigma[:-1] if times is None else model_times(times))

    def coefficients(self, i: int, j: int, remembered: tuple[int, ...]) -> AffineStep:
        """`a = 1`, `b = σ_j − σ_i`."""
        _, sigmas, _ = self.knots
        return _flow(sigmas[i], sigmas[j])

    @classmethod
    def uniform(cls, steps: int, *, shift: float = 1.0, time_scale: float = 1.0, rising: bool = False) -> FlowEuler:
        r"""Evenly spaced σ from 1 to 0, shifted toward the noise as in Esser et al. 2024, eq. 23.

        .. math:: \sigma' = \frac{s\,\sigma}{1 + (s - 1)\,\sigma}

        Args:
            shift: `s > 0`; 1 is even spacing, Stable Diffusion 3 uses 3.
            time_scale: the model is told `time_scale·σ'` (1000 for diffusers' transformers).
            rising: tell it `time_scale·(1 − σ')`, a time that is 0 at noise and 1 at data. As a rule such a model
                predicts the flow to the data: `adapt_prediction(model, solver, "flow_to_data")`.

        Raises:
            ValueError: for steps, a shift or a time scale that is not positive.
        """
        check_steps(steps)
        if not (0 < shift < math.inf and 0 < time_scale < math.inf):
            raise ValueError(f"shift and time_scale must be positive and finite, got {shift} and {time_scale}")
        sigma = even(1, 0, steps + 1)
        sigma = shift * sigma / (1 + (shift - 1) * sigma)
        return cls(sigma, time_scale * (1 - sigma if rising else sigma)[:-1])
