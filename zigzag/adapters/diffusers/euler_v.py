"""v-predictions under Euler's σ-space, where the state is not the one that v belongs to."""

from __future__ import annotations

import math
from typing import NoReturn

import torch
from torch import Tensor

from zigzag.solvers import Solver
from zigzag.solvers.affine import AffineStep
from zigzag.solvers.ddim import check_eta, kept_and_added
from zigzag.solvers.grids import Grid, grid, model_times

__all__ = ["EulerV"]


class EulerV(Solver):
    r"""Euler in σ on `x = x₀ + σ·ε`, for a model that is shown `x/√(1 + σ²)` and predicts the v of that.

    .. math:: a = \frac{1 + \sigma_i\ell}{1 + \sigma_i^2}, \qquad
              b = -\frac{\sigma_i - \ell}{\sqrt{1 + \sigma_i^2}}, \qquad
              \ell = \sqrt{\sigma_j^2 - s^2}, \qquad s = \eta\,\sigma_j\sqrt{1 - (\sigma_j/\sigma_i)^2}

    and noise `s·z`: η = 1 is ancestral Euler. Without noise, `ℓ = σ_j`, it is `Spherical` on the scaled state
    `cos φ·x = cos φ·x₀ + sin φ·ε`, `σ = tan φ`, said of the unscaled one. The model's own v is the anchor of the Shift,
    as it is in diffusers' `EulerDiscreteScheduler.step`.

    Args:
        sigmas: `(T + 1,)`, descending.
        times: `(T,)`, what the model is told at knot `i < T`.
        eta: `η` in [0, 1].

    Raises:
        ValueError, TypeError: for grids that are short, not finite or not descending, and for an η outside [0, 1].

    Source: Karras et al. 2022 (Euler in σ); Salimans & Ho 2022, Appendix D; `get_ancestral_step` of Katherine Crowson's
    k-diffusion.
    """

    prediction = "v"

    def __init__(self, sigmas: Grid, times: Grid, *, eta: float = 0.0) -> None:
        self.eta = check_eta(eta)
        sigma = grid("sigmas", sigmas)
        super().__init__(sigma.new_ones(len(sigma)), sigma, model_times(times))

    def __repr__(self) -> str:
        return super().__repr__() if not self.eta else f"{super().__repr__()[:-1]}, eta={self.eta:g})"

    def coefficients(self, i: int, j: int, remembered: tuple[int, ...]) -> AffineStep:
        """`a`, `b` and the noise `s`."""
        _, sigmas, _ = self.knots
        sigma_i = sigmas[i]
        left, s = kept_and_added(self.eta, 1.0, sigma_i, 1.0, sigmas[j])
        norm = math.hypot(1, sigma_i)
        return AffineStep((1 + sigma_i * left) / norm**2, -(sigma_i - left) / norm, noise=s)

    def alpha_sigma(self, t: Tensor, dtype: torch.dtype = torch.float64) -> NoReturn:
        """Refused: whoever converts predictions by the (α, σ) of this state would get the v of another one.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "EulerV: its v is that of x/sqrt(1 + sigma²), not of its own state; to convert predictions use a "
            "scheduler whose state is scaled (DDIMScheduler on v_prediction gives Spherical), or Euler on epsilon"
        )
