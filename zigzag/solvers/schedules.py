"""Grids of the schedules in continuous time that models are trained on: VP with a linear β, VE, cosine."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from zigzag.solvers.grids import check_steps, even

__all__ = ["VP", "Cosine", "Levels", "cosine_grid", "ve_grid", "vp_grid"]


class Levels(NamedTuple):
    """What every solver that takes levels begins with: `DDIM(*vp_grid(50))`, `Heun(*ve_grid(20), prediction="x0")`.

    Attributes:
        alphas, sigmas: float64 `(T + 1,)` from noise to clean data, where α = 1 and σ = 0.
        times: float64 `(T,)`, what the model is told at knot `i < T`.
    """

    alphas: Tensor
    sigmas: Tensor
    times: Tensor


def vp_grid(
    steps: int,
    *,
    beta_min: float = 0.1,
    beta_max: float = 20.0,
    t_max: float = 1.0,
    t_min: float = 1e-3,
    time_scale: float = 1.0,
) -> Levels:
    r"""The variance-preserving SDE with a β that is linear in time, `dx = −½β(t)x dt + √β(t) dw`.

    .. math:: \log\alpha(t) = -\tfrac14 t^2(\beta_{max} - \beta_{min}) - \tfrac12 t\,\beta_{min}, \qquad
              \sigma(t)^2 = 1 - \alpha(t)^2

    at times that fall evenly from `t_max` to `t_min`, and then clean data.

    Args:
        steps: `T`. beta_min, beta_max: `β` at time 0 and 1. t_max, t_min: the first and the last time asked at.
        time_scale: the model is told `time_scale·t` (999 for the models of score_sde).

    Raises:
        TypeError, ValueError: for steps, times or `β` out of range.

    Source: Song et al. 2021 (score-based SDEs), eqs. 11 and 33.
    """
    _check_rising("beta", 0, beta_min, beta_max)
    t = _times(steps, t_max, t_min)
    return _to_data(*VP((beta_max - beta_min) / 4, beta_min / 2).levels(t), time_scale * t)


def ve_grid(steps: int, *, sigma_min: float = 0.01, sigma_max: float = 50.0) -> Levels:
    r"""The variance-exploding SDE: α = 1, and σ falls by the same factor at each step. The model is told σ.

    .. math:: \sigma_i = \sigma_{max}\,(\sigma_{min}/\sigma_{max})^{i/(T-1)} \;(i < T), \qquad \sigma_T = 0

    Args:
        steps: `T`. sigma_min, sigma_max: the last and the first level asked at. For a model that is told `log σ` or a
            time: `ve_grid(20)._replace(times=…)`.

    Raises:
        TypeError, ValueError: for steps, and unless `0 < sigma_min < sigma_max`.

    Source: Song et al. 2021 (score-based SDEs), eqs. 9 and 30.
    """
    check_steps(steps)
    _check_rising("sigma", 0, sigma_min, sigma_max)
    sigmas = even(math.log(sigma_max), math.log(sigma_min), steps).exp()
    return _to_data(torch.ones_like(sigmas), sigmas, sigmas)


def cosine_grid(
    steps: int, *, offset: float = 0.008, t_max: float = 0.9946, t_min: float = 1e-3, time_scale: float = 1.0
) -> Levels:
    r"""The cosine schedule, in continuous time.

    .. math:: \alpha(t) = \frac{f(t)}{f(0)}, \qquad f(t) = \cos\Big(\frac{t + s}{1 + s}\,\frac\pi2\Big), \qquad
              \sigma(t)^2 = 1 - \alpha(t)^2

    at times that fall evenly from `t_max` to `t_min`, and then clean data. At time 1 α is 0, where ε says nothing of
    the data: by default it begins a little below.

    Args:
        steps: `T`. offset: `s`. t_max, t_min: the first and the last time asked at.
        time_scale: the model is told `time_scale·t`.

    Raises:
        TypeError, ValueError: for steps, times or an offset out of range.

    Source: Nichol & Dhariwal 2021, eq. 17; `t_max` of Lu et al. 2022 (DPM-Solver), Appendix.
    """
    if not 0 <= offset < math.inf:
        raise ValueError(f"offset must be at least 0, and finite, got {offset!r}")
    t = _times(steps, t_max, t_min, most=1.0)
    phi, phi_0 = (t + offset) / (1 + offset) * (math.pi / 2), offset / (1 + offset) * (math.pi / 2)
    return _to_data(*_on_cosine(phi, phi_0), time_scale * t)


class VP(NamedTuple):
    r"""The schedule of `vp_grid`, `\log\alpha = -(a\,t^2 + b\,t)`, in the unit of the times that a model is told."""

    a: float
    b: float

    @classmethod
    def through(cls, times: Tensor, alphas: Tensor, sigmas: Tensor) -> VP:
        """That of two of the knots, which may be no schedule of all."""
        (s, t), (at_s, at_t) = (v[[0, len(v) // 2]].tolist() for v in (times, _minus_log(alphas, sigmas) / times))
        a = (at_s - at_t) / (s - t)
        return cls(a, at_s - a * s)

    def levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """`(α, σ)` at times."""
        log_alpha = -(self.a * t**2 + self.b * t)
        return log_alpha.exp(), (-torch.expm1(2 * log_alpha)).sqrt()

    def times(self, alphas: Tensor, sigmas: Tensor) -> Tensor:
        """The times of levels."""
        minus_log = _minus_log(alphas, sigmas)
        return 2 * minus_log / (self.b + (self.b**2 + 4 * self.a * minus_log).sqrt())


class Cosine(NamedTuple):
    r"""The schedule of `cosine_grid`, `\alpha = \cos(w\,t + \varphi_0)/\cos\varphi_0`, in the unit of the times."""

    w: float
    phi_0: float

    @classmethod
    def through(cls, times: Tensor, alphas: Tensor, sigmas: Tensor) -> Cosine:
        """That of two of the knots, by Newton's method from the usual offset; it may be no schedule of all."""
        t, alpha = (v[[0, len(v) // 2]] for v in (times, alphas))
        phi_0 = torch.tensor(0.0125, dtype=torch.float64, device="cpu")
        w = ((alpha[0] * phi_0.cos()).acos() - phi_0) / t[0]
        for _ in range(20):
            phi = w * t + phi_0
            off = phi.cos() - alpha * phi_0.cos()
            by_w, by_phi = -t * phi.sin(), alpha * phi_0.sin() - phi.sin()
            # Cramer's rule: a solver of systems would raise where there is no schedule, and nothing is finite.
            both = by_w[0] * by_phi[1] - by_w[1] * by_phi[0]
            w = w - (off[0] * by_phi[1] - off[1] * by_phi[0]) / both
            phi_0 = phi_0 - (by_w[0] * off[1] - by_w[1] * off[0]) / both
        return cls(float(w), float(phi_0))

    def levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """`(α, σ)` at times."""
        return _on_cosine(self.w * t + self.phi_0, self.phi_0)

    def times(self, alphas: Tensor, sigmas: Tensor) -> Tensor:
        """The times of levels."""
        return ((alphas * math.cos(self.phi_0)).acos() - self.phi_0) / self.w


def _minus_log(alphas: Tensor, sigmas: Tensor) -> Tensor:
    """`−log α` where `α² + σ² = 1`, which loses nothing near the data."""
    return torch.where(sigmas < 0.5, -torch.log1p(-(sigmas**2)) / 2, -alphas.log())


def _on_cosine(phi: Tensor, phi_0: float) -> tuple[Tensor, Tensor]:
    # cos(π/2) in floating point may fall a rounding below zero, which no α may.
    alphas = (phi.cos() / math.cos(phi_0)).clamp_min(0)
    # 1 − cos²φ/cos²φ₀ = sin(φ − φ₀)·sin(φ + φ₀)/cos²φ₀, which loses nothing near the data.
    return alphas, ((phi - phi_0).sin() * (phi + phi_0).sin()).sqrt() / math.cos(phi_0)


def _to_data(alphas: Tensor, sigmas: Tensor, times: Tensor) -> Levels:
    return Levels(torch.cat([alphas, alphas.new_ones(1)]), torch.cat([sigmas, sigmas.new_zeros(1)]), times)


def _times(steps: int, t_max: float, t_min: float, most: float = math.inf) -> Tensor:
    check_steps(steps)
    if not 0 < t_min < t_max <= most or math.isinf(t_max):
        raise ValueError(f"need 0 < t_min < t_max <= {most:g}, got t_min={t_min!r} and t_max={t_max!r}")
    return even(t_max, t_min, steps)


def _check_rising(name: str, least: float, low: float, high: float) -> None:
    if not least < low < high < math.inf:
        raise ValueError(f"need {least} < {name}_min < {name}_max, both finite, got {low!r} and {high!r}")
