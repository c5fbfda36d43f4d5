"""v-predictions under Euler's σ-space, where the state is not the one that v belongs to."""

from __future__ import annotations

import math
from typing import NoReturn

import torch
from torch import Tensor

from zigzag.solvers import Solver
from zigzag.solvers.affine import AffineStep
from zigzag.solvers.grids import Grid, grid, model_times

__all__ = ["EulerV"]


class EulerV(Solver):
    r"""Euler in σ on `x = x₀ + σ·ε`, for a model that is shown `x/√(1 + σ²)` and predicts the v of that.

    .. math:: a = \frac{1 + \sigma_i\sigma_j}{1 + \sigma_i^2}, \qquad
              b = -\frac{\sigma_i - \sigma_j}{\sqrt{1 + \sigma_i^2}}

    It is `Spherical` on the scaled state `cos φ·x = cos φ·x₀ + sin φ·ε`, `σ = tan φ`, said of the unscaled one.
    The model's own v is the anchor of the Shift, as it is in diffusers' `EulerDiscreteScheduler.step`.

    Args:
        sigmas: `(T + 1,)`, descending.
        times: `(T,)`, what the model is told at knot `i < T`.

    Raises:
        ValueError, TypeError: for grids that are short, not finite or not descending.

    Source: Karras et al. 2022 (Euler in σ); Salimans & Ho 2022, Appendix D.
    """

    prediction = "v"

    def __init__(self, sigmas: Grid, times: Grid) -> None:
        sigma = grid("sigmas", sigmas)
        super().__init__(sigma.new_ones(len(sigma)), sigma, model_times(times))

    def coefficients(self, i: int, j: int, remembered: tuple[int, ...]) -> AffineStep:
        """`a` and `b`."""
        _, sigmas, _ = self.knots
        sigma_i, sigma_j = sigmas[i], sigmas[j]
        norm = math.hypot(1, sigma_i)
        return AffineStep((1 + sigma_i * sigma_j) / norm**2, -(sigma_i - sigma_j) / norm)

    def alpha_sigma(self, t: Tensor, dtype: torch.dtype = torch.float64) -> NoReturn:
        """Refused: whoever converts predictions by the (α, σ) of this state would get the v of another one.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "EulerV: its v is that of x/sqrt(1 + sigma²), not of its own state; to convert predictions use a "
            "scheduler whose state is scaled (DDIMScheduler on v_prediction gives Spherical), or Euler on epsilon"
        )
