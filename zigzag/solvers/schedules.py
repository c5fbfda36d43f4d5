"""Grids of the schedules in continuous time that models are trained on: VP with a linear β, VE, cosine."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from zigzag.solvers.grids import check_steps, even

__all__ = ["Levels", "cosine_grid", "ve_grid", "vp_grid"]


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
    log_alpha = -(t**2) * (beta_max - beta_min) / 4 - t * beta_min / 2
    return _to_data(log_alpha.exp(), (-torch.expm1(2 * log_alpha)).sqrt(), time_scale * t)


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
    # cos(π/2) in floating point may fall a rounding below zero, which no α may.
    alphas = (phi.cos() / math.cos(phi_0)).clamp_min(0)
    # 1 − cos²φ/cos²φ₀ = sin(φ − φ₀)·sin(φ + φ₀)/cos²φ₀, which loses nothing near the data.
    sigmas = ((phi - phi_0).sin() * (phi + phi_0).sin()).sqrt() / math.cos(phi_0)
    return _to_data(alphas, sigmas, time_scale * t)


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
