"""DDIM, deterministic or with noise (η, ancestral steps, DDPM), for predictors of ε on any grid of (α, σ)."""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias, TypeVar

import torch
from torch import Tensor

from zigzag.solvers.affine import AffineStep
from zigzag.solvers.grids import Coefficient, Grid, check_steps, even, grid, host, model_times
from zigzag.solvers.solver import Solver

__all__ = [
    "DDIM",
    "DDPM",
    "Variance",
    "check_eta",
    "check_variance",
    "ddim_inverse",
    "ddim_step",
    "kept_and_added",
    "large_noise",
]

S = TypeVar("S", bound="DDIM")

Spacing: TypeAlias = Literal["leading", "trailing", "linspace"]
Variance: TypeAlias = Literal["small", "large"]


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


def check_eta(eta: float) -> float:
    """`η` of a step with noise. Raises ValueError outside [0, 1]."""
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must lie in [0, 1], got {eta!r}")
    return float(eta)


def check_variance(variance: Variance) -> Variance:
    """Which of DDPM's variances. Raises ValueError for another."""
    if variance not in ("small", "large"):
        raise ValueError(f"variance must be 'small' or 'large', got {variance!r}")
    return variance


def kept_and_added(eta: float, alpha_i: float, sigma_i: float, alpha_j: float, sigma_j: float) -> tuple[float, float]:
    """`(√(σ_j² − s²), s)`: of the noise at `j`, what is left of that of the state at `i`, and what is new, at an η."""
    kept = sigma_j * alpha_i / (alpha_j * sigma_i)  # k_j/k_i
    s = eta * sigma_j * math.sqrt(1 - kept**2)
    return sigma_j * math.hypot(math.sqrt((1 - eta) * (1 + eta)), eta * kept), s


def large_noise(alpha_i: float, sigma_i: float, alpha_j: float, sigma_j: float) -> float:
    """`√(σ_i² − (α_i/α_j)²σ_j²)`, the noise of the way up, which DDPM's large variance adds; none onto clean data."""
    return math.sqrt(sigma_i**2 - (alpha_i / alpha_j * sigma_j) ** 2) if sigma_j else 0.0


class DDIM(Solver):
    r"""DDIM on knots `(α_i, σ_i)`, for a model that predicts ε.

    .. math:: x_j = a\,x_i + b\,e + s\,z, \qquad a = \alpha_j/\alpha_i, \qquad b = \sqrt{\sigma_j^2 - s^2} - a\,\sigma_i

    .. math:: s = \eta\,\sigma_j\sqrt{1 - (k_j/k_i)^2}, \qquad k = \sigma/\alpha

    With η = 0 it adds no noise. η = 1 on α = 1 is ancestral Euler, on a variance-preserving grid DDPM. The noise `z` of
    an interval is drawn once and held: an inversion takes out what the step put in. For models of v, x₀ or a flow the
    same steps are `Ancestral`'s.

    Args:
        alphas, sigmas: `(T + 1,)` from noise to data; nothing asks that α² + σ² = 1 (with α = 1 this is Euler in σ).
        times: `(T,)`, what the model is told at knot `i < T`; integers stay integers.
        eta: `η` in [0, 1].
        fresh_noise: whether the Denoise that leaves a knot for good draws new noise, as the papers' ancestral zigzags
            do, in place of that which its interval holds.

    Raises:
        ValueError, TypeError: for grids that are short, of unequal length, not finite or not monotone, and for an η
            outside [0, 1].

    Source: Song et al. 2020 (DDIM), eqs. 12 and 16; for α = 1, `get_ancestral_step` of Katherine Crowson's k-diffusion.
    """

    prediction = "epsilon"
    alphas_cumprod: Tensor | None = None
    """The training table that the knots are of, `(N,)`: what `from_alphas_cumprod` was given."""

    def __init__(self, alphas: Grid, sigmas: Grid, times: Grid, *, eta: float = 0.0, fresh_noise: bool = False) -> None:
        self.eta, self.fresh_noise = check_eta(eta), fresh_noise
        super().__init__(grid("alphas", alphas), grid("sigmas", sigmas), model_times(times))

    def __repr__(self) -> str:
        return super().__repr__() if not self.eta else f"{super().__repr__()[:-1]}, eta={self.eta:g})"

    def coefficients(self, i: int, j: int, remembered: tuple[int, ...]) -> AffineStep:
        """`a`, `b` and the noise `s`; `a` is infinite where ε says nothing of x₀ (`α_i = 0`)."""
        alphas, sigmas, _ = self.knots
        if alphas[i] == 0:
            return AffineStep(math.inf, math.nan)
        if not self.eta:
            return _ddim(alphas[i], sigmas[i], alphas[j], sigmas[j])
        left, s = kept_and_added(self.eta, alphas[i], sigmas[i], alphas[j], sigmas[j])
        step = _ddim(alphas[i], sigmas[i], alphas[j], left)
        return AffineStep(step.a, step.b, noise=s)

    @classmethod
    def from_alphas_cumprod(
        cls: type[S],
        alphas_cumprod: Grid,
        timesteps: Tensor | list[int],
        final_alpha_cumprod: float = 1.0,
        **options: Any,
    ) -> S:
        r"""From a training table `ᾱ` and the descending time steps to visit: `α = √ᾱ`, `σ = √(1 − ᾱ)`.

        Args:
            alphas_cumprod: `(N,)`, `ᾱ` by training time step.
            timesteps: `(T,)` integers in `[0, N)`, from noise to data.
            final_alpha_cumprod: `ᾱ` of the last knot; 1 is clean data, `alphas_cumprod[0]` what diffusers calls
                `set_alpha_to_one=False`.
            options: of the constructor: `eta`, `fresh_noise`.

        Raises:
            ValueError: for time steps that are not integers or out of range, a `final_alpha_cumprod` outside (0, 1].
        """
        table = grid("alphas_cumprod", alphas_cumprod)
        t = host(timesteps)
        if t.is_floating_point() or t.ndim != 1 or len(t) == 0:
            raise ValueError(f"timesteps must be a non-empty list of integers, got {timesteps!r}")
        if t.min() < 0 or t.max() >= len(table):
            raise ValueError(f"timesteps must lie in [0, {len(table)}), got {int(t.min())} to {int(t.max())}")
        if not 0 < final_alpha_cumprod <= 1:
            raise ValueError(f"final_alpha_cumprod must lie in (0, 1], got {final_alpha_cumprod}")
        if (table < 0).any() or (table > 1).any():
            raise ValueError("alphas_cumprod must lie in [0, 1]")
        abar = torch.cat([table[t.long()], table.new_tensor([final_alpha_cumprod])])
        solver = cls(abar.sqrt(), (1 - abar).sqrt(), t, **options)
        solver.alphas_cumprod = table
        return solver

    @classmethod
    def stable_diffusion(
        cls: type[S],
        steps: int,
        *,
        spacing: Spacing = "leading",
        steps_offset: int = 1,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.00085,
        beta_end: float = 0.012,
        final_alpha_cumprod: float | None = None,
        **options: Any,
    ) -> S:
        r"""Stable Diffusion's grid: `β` linear in `√β` ("scaled linear"), `ᾱ_t = Π(1 − β)`.

        Args:
            steps: `T`, at most `num_train_timesteps`.
            spacing: which time steps are visited (Lin et al. 2023, Table 2). "leading": `k·⌊N/T⌋ + steps_offset`;
                "trailing": `round(N − k·N/T) − 1`; "linspace": evenly from `N − 1` to 0.
            steps_offset: added under "leading" only; Stable Diffusion's is 1.
            final_alpha_cumprod: `ᾱ` of the last knot. By default `ᾱ_0`, as in Stable Diffusion's own scheduler
                (`set_alpha_to_one=False`), but 1 where the last time step is 0 already (always under "linspace").
            options: of the constructor: `eta`, `fresh_noise`.

        Raises:
            TypeError, ValueError: for steps, an offset or a spacing out of range.
        """
        N = num_train_timesteps
        check_steps(steps, most=N)
        betas = even(beta_start**0.5, beta_end**0.5, N) ** 2
        alphas_cumprod = torch.cumprod(1 - betas, 0)
        if spacing == "leading":
            timesteps = [k * (N // steps) + steps_offset for k in reversed(range(steps))]
        elif spacing == "trailing":
            timesteps = [round(N - k * N / steps) - 1 for k in range(steps)]
        elif spacing == "linspace":
            timesteps = [round(t) for t in even(N - 1, 0, steps).tolist()]
        else:
            raise ValueError(f"spacing must be 'leading', 'trailing' or 'linspace', got {spacing!r}")
        if not 0 <= timesteps[-1] <= timesteps[0] < N:
            raise ValueError(f"steps={steps} and steps_offset={steps_offset} lead out of the {N} training time steps")
        if final_alpha_cumprod is None:
            final_alpha_cumprod = 1.0 if timesteps[-1] == 0 else float(alphas_cumprod[0])
        return cls.from_alphas_cumprod(alphas_cumprod, timesteps, final_alpha_cumprod, **options)

    @classmethod
    def karras(
        cls: type[S],
        steps: int,
        *,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        rho: float = 7.0,
        **options: Any,
    ) -> S:
        r"""Karras et al. 2022 (EDM), eq. 5: α = 1, and the model is told σ.

        .. math:: \sigma_i = \big(\sigma_{max}^{1/\rho} + \tfrac{i}{T-1}(\sigma_{min}^{1/\rho}
                  - \sigma_{max}^{1/\rho})\big)^\rho \;(i < T), \qquad \sigma_T = 0

        Args:
            steps: `T`. sigma_min, sigma_max, rho: as above. options: of the constructor; `eta=1` is ancestral Euler.

        Raises:
            ValueError: unless `0 < sigma_min < sigma_max` and `rho > 0`.
        """
        check_steps(steps)
        if not (0 < sigma_min < sigma_max < math.inf and 0 < rho < math.inf):
            got = f"sigma_min={sigma_min}, sigma_max={sigma_max}, rho={rho}"
            raise ValueError(f"need 0 < sigma_min < sigma_max and 0 < rho, all finite, got {got}")
        ramp = even(sigma_max ** (1 / rho), sigma_min ** (1 / rho), steps)
        sigmas = torch.cat([ramp**rho, ramp.new_zeros(1)])
        return cls(torch.ones_like(sigmas), sigmas, sigmas[:-1], **options)


class DDPM(DDIM):
    r"""Ancestral sampling of DDPM: DDIM with η = 1, and one of two variances of the noise.

    .. math:: \text{large: } s^2 = \sigma_i^2 - (\alpha_i/\alpha_j)^2\sigma_j^2, \qquad
              \text{small: } s^2 = \frac{\sigma_j^2}{\sigma_i^2}\big(\sigma_i^2 - (\alpha_i/\alpha_j)^2\sigma_j^2\big)

    On a variance-preserving grid these are `β` and `β̃` of the step, "fixed_large" and "fixed_small". `a` and `b` are
    those of η = 1 for both. A step onto clean data adds nothing. For models of v, x₀ or a flow: `Ancestral`.

    Args:
        alphas, sigmas, times, fresh_noise: as in `DDIM`.
        variance: "small" or "large".

    Raises:
        ValueError, TypeError: for another variance, and as `DDIM`.

    Source: Ho et al. 2020 (DDPM), section 3.2.
    """

    def __init__(
        self,
        alphas: Grid,
        sigmas: Grid,
        times: Grid,
        *,
        variance: Variance = "small",
        fresh_noise: bool = False,
    ) -> None:
        self.variance = check_variance(variance)
        super().__init__(alphas, sigmas, times, eta=1.0, fresh_noise=fresh_noise)

    def coefficients(self, i: int, j: int, remembered: tuple[int, ...]) -> AffineStep:
        """`a` and `b` of η = 1, and the noise `s`."""
        step = super().coefficients(i, j, remembered)
        alphas, sigmas, _ = self.knots
        if self.variance == "small":
            return step
        return AffineStep(step.a, step.b, noise=large_noise(alphas[i], sigmas[i], alphas[j], sigmas[j]))
