"""DDIM: the deterministic solver for predictors of the noise ε, on any grid of (α, σ)."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from zigzag.solvers.affine import AffineStep, Coefficient, Grid, Solver, check_steps, grid, model_times

__all__ = ["DDIM", "ddim_inverse", "ddim_step"]

Spacing: TypeAlias = Literal["leading", "trailing", "linspace"]


def _ddim(alpha_i: Coefficient, sigma_i: Coefficient, alpha_j: Coefficient, sigma_j: Coefficient) -> AffineStep:
    a = alpha_j / alpha_i
    b = sigma_j - a * sigma_i
    return AffineStep(a, b)


def ddim_step(
    x: Tensor, e: Tensor, alpha_i: Coefficient, sigma_i: Coefficient, alpha_j: Coefficient, sigma_j: Coefficient
) -> Tensor:
    r"""A DDIM step from `(α_i, σ_i)` to `(α_j, σ_j)` with the noise prediction `e`.

    .. math:: x_j = a\,x_i + b\,e, \qquad a = \alpha_j/\alpha_i, \quad b = \sigma_j - a\,\sigma_i

    Args:
        x, e: `(B, …)`.
        alpha_i, sigma_i, alpha_j, sigma_j: numbers or tensors `()` or `(B,)`, one time per sample. The coefficients
            are computed in their dtype (pass float64 where the two times are close) and cast to `x.dtype`.

    Singular at `α_i = 0`. Checks nothing, and differentiates through every argument.
    Source: Song et al. 2020 (DDIM), eq. 12 with σ = 0; Z-Sampling, eq. 2.
    """
    return _ddim(alpha_i, sigma_i, alpha_j, sigma_j).forward(x, e)


def ddim_inverse(
    x: Tensor, e: Tensor, alpha_i: Coefficient, sigma_i: Coefficient, alpha_j: Coefficient, sigma_j: Coefficient
) -> Tensor:
    r"""The exact inverse of `ddim_step` with the *same* arguments: from `x_j` back to `x_i`.

    .. math:: x_i = (x_j - b\,e)/a

    Shapes and dtypes as in `ddim_step`. Singular at `α_j = 0`. Source: Z-Sampling, eq. 4.
    """
    return _ddim(alpha_i, sigma_i, alpha_j, sigma_j).inverse(x, e)


class DDIM(Solver):
    r"""DDIM on knots `(α_i, σ_i)`, for a model that predicts ε.

    .. math:: a = \alpha_j/\alpha_i, \qquad b = \sigma_j - a\,\sigma_i

    Args:
        alphas, sigmas: `(T + 1,)` from noise to data; nothing asks that α² + σ² = 1 (with α = 1 this is Euler in σ).
        times: `(T,)`, what the model is told at knot `i < T`; integers stay integers.

    Raises:
        ValueError, TypeError: for grids that are short, of unequal length, not finite or not monotone.

    Source: Song et al. 2020 (DDIM), eq. 12 with σ = 0.
    """

    prediction = "epsilon"

    def __init__(self, alphas: Grid, sigmas: Grid, times: Grid) -> None:
        super().__init__(grid("alphas", alphas), grid("sigmas", sigmas), model_times(times))

    def _coefficients(self, i: int, j: int) -> tuple[float, float]:
        alphas, sigmas, _ = self._knots
        if alphas[i] == 0:
            return math.inf, math.nan
        step = _ddim(alphas[i], sigmas[i], alphas[j], sigmas[j])
        return float(step.a), float(step.b)

    @classmethod
    def from_alphas_cumprod(
        cls, alphas_cumprod: Grid, timesteps: Tensor | list[int], final_alpha_cumprod: float = 1.0
    ) -> DDIM:
        r"""From a training table `ᾱ` and the descending time steps to visit: `α = √ᾱ`, `σ = √(1 − ᾱ)`.

        Args:
            alphas_cumprod: `(N,)`, `ᾱ` by training time step.
            timesteps: `(T,)` integers in `[0, N)`, from noise to data.
            final_alpha_cumprod: `ᾱ` of the last knot; 1 is clean data, `alphas_cumprod[0]` what diffusers calls
                `set_alpha_to_one=False`.

        Raises:
            ValueError: for time steps that are not integers or out of range, a `final_alpha_cumprod` outside (0, 1].
        """
        table = grid("alphas_cumprod", alphas_cumprod)
        t = torch.as_tensor(timesteps).detach().cpu()
        if t.is_floating_point() or t.ndim != 1 or len(t) == 0:
            raise ValueError(f"timesteps must be a non-empty list of integers, got {timesteps!r}")
        if t.min() < 0 or t.max() >= len(table):
            raise ValueError(f"timesteps must lie in [0, {len(table)}), got {int(t.min())} to {int(t.max())}")
        if not 0 < final_alpha_cumprod <= 1:
            raise ValueError(f"final_alpha_cumprod must lie in (0, 1], got {final_alpha_cumprod}")
        if (table < 0).any() or (table > 1).any():
            raise ValueError("alphas_cumprod must lie in [0, 1]")
        abar = torch.cat([table[t.long()], table.new_tensor([final_alpha_cumprod])])
        return cls(abar.sqrt(), (1 - abar).sqrt(), t)

    @classmethod
    def stable_diffusion(
        cls,
        steps: int,
        *,
        spacing: Spacing = "leading",
        steps_offset: int = 1,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.00085,
        beta_end: float = 0.012,
        final_alpha_cumprod: float | None = None,
    ) -> DDIM:
        r"""Stable Diffusion's grid: `β` linear in `√β` ("scaled linear"), `ᾱ_t = Π(1 − β)`.

        Args:
            steps: `T`, at most `num_train_timesteps`.
            spacing: which time steps are visited (Lin et al. 2023, Table 2). "leading": `k·⌊N/T⌋ + steps_offset`;
                "trailing": `round(N − k·N/T) − 1`; "linspace": evenly from `N − 1` to 0.
            steps_offset: added under "leading" only; Stable Diffusion's is 1.
            final_alpha_cumprod: `ᾱ` of the last knot. By default `ᾱ_0`, as in Stable Diffusion's own scheduler
                (`set_alpha_to_one=False`), but 1 where the last time step is 0 already (always under "linspace").

        Raises:
            TypeError, ValueError: for steps, an offset or a spacing out of range.
        """
        N = num_train_timesteps
        check_steps(steps, most=N)
        betas = torch.linspace(beta_start**0.5, beta_end**0.5, N, dtype=torch.float64) ** 2
        alphas_cumprod = torch.cumprod(1 - betas, 0)
        if spacing == "leading":
            timesteps = [k * (N // steps) + steps_offset for k in reversed(range(steps))]
        elif spacing == "trailing":
            timesteps = [round(N - k * N / steps) - 1 for k in range(steps)]
        elif spacing == "linspace":
            timesteps = [round(t) for t in torch.linspace(N - 1, 0, steps, dtype=torch.float64).tolist()]
        else:
            raise ValueError(f"spacing must be 'leading', 'trailing' or 'linspace', got {spacing!r}")
        if not 0 <= timesteps[-1] <= timesteps[0] < N:
            raise ValueError(f"steps={steps} and steps_offset={steps_offset} lead out of the {N} training time steps")
        if final_alpha_cumprod is None:
            final_alpha_cumprod = 1.0 if timesteps[-1] == 0 else float(alphas_cumprod[0])
        return cls.from_alphas_cumprod(alphas_cumprod, timesteps, final_alpha_cumprod)

    @classmethod
    def karras(cls, steps: int, *, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> DDIM:
        r"""Karras et al. 2022 (EDM), eq. 5: α = 1, and the model is told σ.

        .. math:: \sigma_i = \big(\sigma_{max}^{1/\rho} + \tfrac{i}{T-1}(\sigma_{min}^{1/\rho}
                  - \sigma_{max}^{1/\rho})\big)^\rho \;(i < T), \qquad \sigma_T = 0

        Raises:
            ValueError: unless `0 < sigma_min < sigma_max` and `rho > 0`.
        """
        check_steps(steps)
        if not (0 < sigma_min < sigma_max < math.inf and 0 < rho < math.inf):
            got = f"sigma_min={sigma_min}, sigma_max={sigma_max}, rho={rho}"
            raise ValueError(f"need 0 < sigma_min < sigma_max and 0 < rho, all finite, got {got}")
        ramp = torch.linspace(sigma_max ** (1 / rho), sigma_min ** (1 / rho), steps, dtype=torch.float64)
        sigmas = torch.cat([ramp**rho, ramp.new_zeros(1)])
        return cls(torch.ones_like(sigmas), sigmas, sigmas[:-1])
