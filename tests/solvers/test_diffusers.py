"""Step by step the same as diffusers' schedulers, on their own grids."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from zigzag.solvers import DDIM, FlowEuler, Solver, Spherical

diffusers = pytest.importorskip("diffusers")

EPS64, EPS32 = torch.finfo(torch.float64).eps, torch.finfo(torch.float32).eps
SD: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def model(x: Tensor, i: int) -> Tensor:
    """Any smooth prediction will do: the schedulers never look at where it came from."""
    return (1.3 * x + i).sin() + 0.5 * x / (1 + x.abs())


def start(dtype: torch.dtype, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (scale * torch.randn(2, 3, 4, dtype=torch.float64, generator=generator)).to(dtype)


Bound = Callable[[int, Tensor, Tensor], Tensor]


def check_equal_steps(scheduler: Any, solver: Solver, x: Tensor, bound: Bound) -> None:
    """Both step from the scheduler's own state with one prediction; |difference| <= bound(i, |x|, |e|)."""
    assert len(scheduler.timesteps) == len(solver)
    assert torch.equal(scheduler.timesteps.double(), solver.times.double())
    for i, t in enumerate(scheduler.timesteps):
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(x, t)
        e = model(x, i)
        theirs = scheduler.step(e, t, x).prev_sample
        ours = solver.step(i).forward(x, e)
        gap = (ours.double() - theirs.double()).abs()
        limit = bound(i, x.abs().double(), e.abs().double())
        assert (gap <= limit).all(), f"step {i}: {(gap / limit).max().item():.3g} bounds"
        x = theirs


def ddim_scheduler(steps: int, **config: Any) -> Any:
    """diffusers' DDIM, its table of ᾱ widened to float64 (the numbers stay those of its float32 table)."""
    scheduler = diffusers.DDIMScheduler(**SD, clip_sample=False, **config)
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.final_alpha_cumprod = scheduler.final_alpha_cumprod.double()
    scheduler.set_timesteps(steps)
    return scheduler


def ddim_bound(solver: Solver) -> Bound:
    """diffusers: x_j = α_j·(x − σ_i·ε)/α_i + σ_j·ε, some eight roundings of its three terms."""

    def bound(i: int, x: Tensor, e: Tensor) -> Tensor:
        info, a = solver.info(i), abs(solver.step(i).a)
        return 8 * EPS64 * (a * (x + info.sigma_i * e) + info.sigma_j * e)

    return bound


LEADING: dict[str, Any] = {"timestep_spacing": "leading", "steps_offset": 1}
TRAILING: dict[str, Any] = {"timestep_spacing": "trailing"}


@pytest.mark.parametrize("spacing", [LEADING, TRAILING], ids=["leading", "trailing"])
@pytest.mark.parametrize("to_one", [False, True], ids=["final alpha", "final one"])
@pytest.mark.parametrize("steps", [4, 10, 50])
def test_ddim_is_diffusers_ddim_on_epsilon(spacing: dict[str, Any], to_one: bool, steps: int) -> None:
    """N divides 1000, so that diffusers' t − 1000/N is the next time of its own grid."""
    scheduler = ddim_scheduler(steps, set_alpha_to_one=to_one, **spacing)
    solver = DDIM.from_alphas_cumprod(
        scheduler.alphas_cumprod, scheduler.timesteps, scheduler.final_alpha_cumprod.item()
    )
    check_equal_steps(scheduler, solver, start(torch.float64), ddim_bound(solver))


def test_the_comparison_refuses_the_wrong_last_alpha_and_the_neighbouring_training_time() -> None:
    scheduler = ddim_scheduler(10, set_alpha_to_one=True, **LEADING)
    bars, times = scheduler.alphas_cumprod, scheduler.timesteps
    for mutant in (
        DDIM.from_alphas_cumprod(bars, times, bars[0].item()),
        DDIM.from_alphas_cumprod(bars.roll(1), times, 1.0),
    ):
        with pytest.raises(AssertionError, match="bounds"):
            check_equal_steps(scheduler, mutant, start(torch.float64), ddim_bound(mutant))


@pytest.mark.parametrize("spacing", [LEADING, TRAILING], ids=["leading", "trailing"])
@pytest.mark.parametrize("zero_snr", [False, True], ids=["plain", "zero terminal SNR"])
@pytest.mark.parametrize("steps", [4, 10, 50])
def test_spherical_is_diffusers_ddim_on_v(spacing: dict[str, Any], zero_snr: bool, steps: int) -> None:
    """diffusers: x_j = α_j·(α_i·x − σ_i·v) + σ_j·(α_i·v + σ_i·x) = cos δ·x − sin δ·v, φ = atan2(σ, α)."""
    scheduler = ddim_scheduler(
        steps,
        set_alpha_to_one=False,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=zero_snr,
        **spacing,
    )
    bars = torch.cat([scheduler.alphas_cumprod[scheduler.timesteps], scheduler.final_alpha_cumprod[None]])
    solver = Spherical(torch.atan2((1 - bars).sqrt(), bars.sqrt()), scheduler.timesteps)
    x = start(torch.float64)
    check_equal_steps(scheduler, solver, x, lambda i, x, v: 16 * EPS64 * (x + v))
    if not zero_snr:  # mutant: the epsilon step on v
        mutant = DDIM(bars.sqrt(), (1 - bars).sqrt(), scheduler.timesteps)
        with pytest.raises(AssertionError, match="bounds"):
            check_equal_steps(scheduler, mutant, x, lambda i, x, v: 16 * EPS64 * (x + v))


def affine_bound(solver: Solver, roundings: int) -> Bound:
    """A float32 scheduler: that many roundings of the terms of x + b·e, b = σ_j − σ_i rounded in float32."""

    def bound(i: int, x: Tensor, e: Tensor) -> Tensor:
        return roundings * EPS32 * (x + abs(solver.step(i).b) * e)

    return bound


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 4, 28])
def test_flow_is_diffusers_flow_match_euler_on_its_own_grid(shift: float, steps: int) -> None:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(steps)
    solver = FlowEuler(scheduler.sigmas, scheduler.timesteps)
    check_equal_steps(scheduler, solver, start(torch.float32), affine_bound(solver, 4))
    scheduler.set_timesteps(steps)
    mutant = FlowEuler(scheduler.sigmas * 0.99, scheduler.timesteps)  # b off by a hundredth
    with pytest.raises(AssertionError, match="bounds"):
        check_equal_steps(scheduler, mutant, start(torch.float32), affine_bound(mutant, 4))


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [4, 28])
def test_uniform_flow_is_the_grid_that_the_flow_pipelines_pass(shift: float, steps: int) -> None:
    """Pipelines pass σ = linspace(1, 1/N, N); the scheduler shifts it and tells the model 1000·σ."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps).tolist())
    solver = FlowEuler.uniform(steps, shift=shift, time_scale=1000.0)
    close = torch.testing.assert_close
    close(solver.sigmas.float(), scheduler.sigmas, rtol=0, atol=4 * EPS32 * max(shift, 1.0))
    close(solver.times.float(), scheduler.timesteps, rtol=0, atol=4000 * EPS32 * max(shift, 1.0))
    with pytest.raises(AssertionError):
        other = FlowEuler.uniform(steps, shift=2.0)
        close(other.sigmas.float(), scheduler.sigmas, rtol=0, atol=4 * EPS32 * max(shift, 1.0))


@pytest.mark.parametrize(
    "config",
    [
        {"timestep_spacing": "leading", "steps_offset": 1},
        {"timestep_spacing": "trailing"},
        {"timestep_spacing": "linspace"},
        {"timestep_spacing": "leading", "use_karras_sigmas": True},
    ],
    ids=["leading", "trailing", "linspace", "karras"],
)
@pytest.mark.parametrize("steps", [4, 30])
def test_ddim_at_alpha_1_is_diffusers_euler_in_sigma_space(config: dict[str, Any], steps: int) -> None:
    """Theirs: x + (σ_j − σ_i)·(x − (x − σ_i·ε))/σ_i. The inner sum is rounded at |x| + σ_i·|ε| and magnified
    by |b|/σ_i <= 1 afterwards."""
    scheduler = diffusers.EulerDiscreteScheduler(**SD, **config)
    scheduler.set_timesteps(steps)
    sigmas = scheduler.sigmas
    solver = DDIM(torch.ones_like(sigmas), sigmas, scheduler.timesteps)

    def bound(i: int, x: Tensor, e: Tensor) -> Tensor:
        return 8 * EPS32 * (x + sigmas[i].double() * e)

    x = start(torch.float32, scheduler.init_noise_sigma)
    check_equal_steps(scheduler, solver, x, bound)
    scheduler.set_timesteps(steps)
    alphas = 1 / (1 + sigmas.double() ** 2).sqrt()  # mutant: the variance-preserving step at the same levels
    mutant = DDIM(alphas, sigmas.double() * alphas, scheduler.timesteps)
    with pytest.raises(AssertionError, match="bounds"):
        check_equal_steps(scheduler, mutant, x, bound)


@pytest.mark.parametrize("steps", [2, 10, 30])
def test_karras_is_the_grid_of_diffusers_karras_sigmas(steps: int) -> None:
    scheduler = diffusers.EulerDiscreteScheduler(**SD, use_karras_sigmas=True, sigma_min=0.03, sigma_max=14.6)
    scheduler.set_timesteps(steps)
    solver = DDIM.karras(steps, sigma_min=0.03, sigma_max=14.6)
    torch.testing.assert_close(solver.sigmas.float(), scheduler.sigmas, rtol=2 * EPS32, atol=0)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("steps", [7, 10, 50])
def test_the_stable_diffusion_preset_is_diffusers_grid(spacing: Any, steps: int) -> None:
    """Times equal; α and σ to the error of their float32 running product, t·eps of ᾱ after t factors."""
    scheduler = diffusers.DDIMScheduler(
        **SD, timestep_spacing=spacing, steps_offset=1, set_alpha_to_one=spacing == "linspace"
    )
    scheduler.set_timesteps(steps)
    solver = DDIM.stable_diffusion(steps, spacing=spacing)
    assert solver.times.dtype == torch.int64
    assert solver.times.tolist() == scheduler.timesteps.tolist()
    final = scheduler.final_alpha_cumprod
    bars = torch.cat([scheduler.alphas_cumprod[scheduler.timesteps], final[None]]).double()
    count = torch.cat([solver.times.double(), torch.zeros(1, dtype=torch.float64)]) + 4
    gap = (solver.alphas**2 - bars).abs()
    assert (gap <= count * EPS32).all(), gap
    assert math.isclose(solver.alphas[-1].item() ** 2, final.item(), abs_tol=4 * EPS32)
