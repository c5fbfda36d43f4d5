"""Presets and from_alphas_cumprod against formulas written here."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from support.grids import ACP
from support.tensors import assert_within, f64, i64
from zigzag.solvers import DDIM, FlowEuler, Solver, Spherical

EPS = torch.finfo(torch.float64).eps

# from_alphas_cumprod ---------------------------------------------------------------------------------------


def check_cumprod(solver: Solver, timesteps: list[int], final: float) -> None:
    """α_i = √ᾱ(t_i), σ_i = √(1 − ᾱ(t_i)), and √final, √(1 − final) at knot T; α² + σ² = 1."""
    bars = f64(*(ACP[t].item() for t in timesteps), final)
    assert_within(solver.alphas, bars.sqrt(), EPS)
    assert_within(solver.sigmas, (1 - bars).sqrt(), EPS)
    assert_within(solver.alphas**2 + solver.sigmas**2, torch.ones_like(bars), 4 * EPS)
    assert solver.times.dtype == torch.int64 and solver.times.tolist() == timesteps


@pytest.mark.parametrize("final", [1.0, 0.995])
def test_from_alphas_cumprod_takes_the_roots(final: float) -> None:
    check_cumprod(DDIM.from_alphas_cumprod(ACP, i64(8, 5, 1), final), [8, 5, 1], final)
    check_cumprod(DDIM.from_alphas_cumprod(ACP, i64(8, 5, 1)), [8, 5, 1], 1.0)
    with pytest.raises(AssertionError):  # mutant: the neighbouring training time
        check_cumprod(DDIM.from_alphas_cumprod(ACP, i64(7, 4, 0), final), [8, 5, 1], final)


# Presets ---------------------------------------------------------------------------------------------------


def scaled_linear(n: int = 1000, start: float = 0.00085, end: float = 0.012) -> list[float]:
    """ᾱ_t = Π_{s<=t} (1 − β_s), with √β_s linear from √start to √end, in extended precision."""
    a, b = np.sqrt(np.longdouble(start)), np.sqrt(np.longdouble(end))
    bars, bar = [], np.longdouble(1)
    for s in range(n):
        bar = bar * (1 - (a + (b - a) * s / (n - 1)) ** 2)
        bars.append(float(bar))
    return bars


def spaced(steps: int, spacing: str, offset: int = 1, n: int = 1000) -> list[int]:
    """Table 2 of Lin et al. 2023."""
    if spacing == "leading":
        return [(steps - 1 - k) * (n // steps) + offset for k in range(steps)]
    if spacing == "trailing":
        return [round(n - k * n / steps) - 1 for k in range(steps)]
    return [round((n - 1) * (steps - 1 - k) / (steps - 1)) for k in range(steps)]


def check_stable_diffusion(solver: Solver, timesteps: list[int], bars: list[float], final: float) -> None:
    """A running product of t factors is good to (t + 4)·eps, and 1 − ᾱ absolutely so; ᾱ = 1 is exact, and so σ = 0."""
    assert solver.times.tolist() == timesteps
    bar = f64(*(bars[t] for t in timesteps), final)
    count = f64(*timesteps, 0) + 4
    assert_within(solver.alphas, bar.sqrt(), count * EPS)
    assert_within(solver.sigmas, (1 - bar).sqrt(), torch.where(bar < 1, count * EPS / (1 - bar).sqrt(), 0.0))


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("steps", [2, 4, 7, 16, 30, 50])
def test_stable_diffusion_is_its_scaled_linear_betas_at_the_spacing(spacing: Any, steps: int) -> None:
    bars = scaled_linear()
    final = 1.0 if spacing == "linspace" else bars[0]
    solver = DDIM.stable_diffusion(steps, spacing=spacing)
    check_stable_diffusion(solver, spaced(steps, spacing), bars, final)
    with pytest.raises(AssertionError):  # mutant: betas that are linear themselves
        linear = [float(v) for v in np.cumprod(1 - np.linspace(0.00085, 0.012, 1000))]
        check_stable_diffusion(solver, spaced(steps, spacing), linear, final)


def test_stable_diffusion_takes_its_offset_its_training_length_its_betas_and_its_final_value() -> None:
    bars = scaled_linear(200, 0.001, 0.02)
    solver = DDIM.stable_diffusion(
        10, steps_offset=3, num_train_timesteps=200, beta_start=0.001, beta_end=0.02, final_alpha_cumprod=1.0
    )
    check_stable_diffusion(solver, spaced(10, "leading", 3, 200), bars, 1.0)
    assert solver.alphas[-1] == 1 and solver.sigmas[-1] == 0
    trailing = DDIM.stable_diffusion(8, spacing="trailing", steps_offset=3, final_alpha_cumprod=1.0)
    check_stable_diffusion(trailing, spaced(8, "trailing"), scaled_linear(), 1.0)
    sigmas = trailing.sigmas.clone()
    sigmas[-1] = 1e-9
    with pytest.raises(AssertionError):  # mutant: noise left at the last knot
        check_stable_diffusion(
            DDIM(trailing.alphas, sigmas, trailing.times), spaced(8, "trailing"), scaled_linear(), 1.0
        )


def check_karras(solver: Solver, steps: int, low: float, high: float, rho: float) -> None:
    """σ_k = (σ_max^{1/ρ} + k/(n−1)·(σ_min^{1/ρ} − σ_max^{1/ρ}))^ρ (EDM, eq. 5), then 0; α = 1; t = σ.

    The base is good to 4·eps·σ_max^{1/ρ}; its power to ρ times the relative error.
    """
    h, lo = np.longdouble(high) ** (1 / np.longdouble(rho)), np.longdouble(low) ** (1 / np.longdouble(rho))
    base = [h + (lo - h) * k / max(steps - 1, 1) for k in range(steps)]
    sigma = f64(*(float(v**rho) for v in base), 0.0)
    bound = f64(*(4 * rho * EPS * float(h * v ** (rho - 1)) for v in base), 0.0)
    assert_within(solver.sigmas, sigma, bound + EPS * sigma)
    assert torch.equal(solver.alphas, torch.ones(steps + 1, dtype=torch.float64))
    assert torch.equal(solver.times, solver.sigmas[:-1])
    assert solver.prediction == "epsilon" and solver.sigmas[-1] == 0


@pytest.mark.parametrize("steps", [1, 2, 5, 18])
def test_karras_is_the_edm_grid(steps: int) -> None:
    check_karras(DDIM.karras(steps), steps, 0.002, 80.0, 7.0)
    check_karras(DDIM.karras(steps, sigma_min=0.03, sigma_max=14.6, rho=3.0), steps, 0.03, 14.6, 3.0)
    if steps > 2:
        with pytest.raises(AssertionError):  # mutant: another exponent
            check_karras(DDIM.karras(steps, rho=5.0), steps, 0.002, 80.0, 7.0)


def check_uniform(solver: Solver, steps: int, shift: float, time_scale: float) -> None:
    """s = 1 − i/T; σ = shift·s / (1 + (shift − 1)·s); t = σ·time_scale; α = 1 − σ."""
    s = [1 - i / steps for i in range(steps + 1)]
    sigma = f64(*(shift * v / (1 + (shift - 1) * v) for v in s))
    assert_within(solver.sigmas, sigma, 8 * EPS)
    assert_within(solver.alphas, 1 - sigma, 8 * EPS)
    assert_within(solver.times, sigma[:-1] * time_scale, 8 * EPS * time_scale)
    assert solver.sigmas[0] == 1 and solver.alphas[0] == 0 and solver.sigmas[-1] == 0


@pytest.mark.parametrize(("shift", "time_scale"), [(1.0, 1.0), (3.0, 1000.0), (0.5, 2.0)])
@pytest.mark.parametrize("steps", [1, 4, 28])
def test_uniform_is_the_shifted_flow_grid(steps: int, shift: float, time_scale: float) -> None:
    check_uniform(FlowEuler.uniform(steps, shift=shift, time_scale=time_scale), steps, shift, time_scale)


def test_the_uniform_check_refuses_another_shift_and_the_default_is_no_shift() -> None:
    check_uniform(FlowEuler.uniform(4), 4, 1.0, 1.0)
    with pytest.raises(AssertionError):
        check_uniform(FlowEuler.uniform(4, shift=3.0), 4, 1.0, 1.0)


def check_cosine(solver: Solver, steps: int, phi_max: float) -> None:
    """φ_i = φ_max·(1 − i/T), α = cos φ, σ = sin φ, t = φ; a = cos δ with δ = φ_max/T."""
    phi = f64(*(phi_max * (steps - i) / steps for i in range(steps + 1)))
    assert_within(solver.alphas, phi.cos(), 4 * EPS)
    assert_within(solver.sigmas, phi.sin(), 4 * EPS)
    assert_within(solver.times, phi[:-1], 4 * EPS)
    assert solver.alphas[-1] == 1 and solver.sigmas[-1] == 0
    assert all(abs(solver.step(i).a - math.cos(phi_max / steps)) <= 4 * EPS for i in range(steps))


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_cosine_is_uniform_in_the_angle(steps: int) -> None:
    check_cosine(Spherical.cosine(steps), steps, math.pi / 2)
    check_cosine(Spherical.cosine(steps, phi_max=1.2), steps, 1.2)
    with pytest.raises(AssertionError):
        check_cosine(Spherical.cosine(steps, phi_max=1.2), steps, math.pi / 2)
