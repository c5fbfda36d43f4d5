"""Solvers read off diffusers' schedulers: the same steps, or a reason."""

import copy
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from zigzag.solvers import DDIM, FlowEuler, Solver, Spherical

diffusers = pytest.importorskip("diffusers")
AysSchedules = pytest.importorskip("diffusers.schedulers").AysSchedules
adapters = pytest.importorskip("zigzag.adapters.diffusers")
solver_from_scheduler = adapters.solver_from_scheduler
EulerV = pytest.importorskip("zigzag.adapters.diffusers.euler_v").EulerV

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # diffusers' own, of numpy

EPS32 = torch.finfo(torch.float32).eps
BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
V: dict[str, Any] = {"prediction_type": "v_prediction"}
LEADING: dict[str, Any] = {"timestep_spacing": "leading", "steps_offset": 1}
TRAILING: dict[str, Any] = {"timestep_spacing": "trailing"}
ZERO_SNR: dict[str, Any] = {"rescale_betas_zero_snr": True}


def ddim(**config: Any) -> Any:
    return diffusers.DDIMScheduler(**{**BETAS, **LEADING, "clip_sample": False, "set_alpha_to_one": False, **config})


def cogvideox(**config: Any) -> Any:
    return diffusers.CogVideoXDDIMScheduler(**{**TRAILING, **V, **config})


def euler(**config: Any) -> Any:
    return diffusers.EulerDiscreteScheduler(**BETAS, **config)


def dpm(**config: Any) -> Any:
    return diffusers.DPMSolverMultistepScheduler(**{**BETAS, "solver_order": 1, **config})


def singlestep(**config: Any) -> Any:
    return diffusers.DPMSolverSinglestepScheduler(**{**BETAS, "solver_order": 1, "lower_order_final": True, **config})


def flow(**config: Any) -> Any:
    return diffusers.FlowMatchEulerDiscreteScheduler(**config)


FLOW_SIGMAS: dict[str, Any] = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
SVD: dict[str, Any] = {
    **V,
    "timestep_type": "continuous",
    "use_karras_sigmas": True,
    "sigma_min": 0.002,
    "sigma_max": 700,
}
ACCEPTED: dict[str, tuple[Callable[[], Any], type[Solver]]] = {
    "ddim": (lambda: ddim(), DDIM),
    "ddim to one": (lambda: ddim(set_alpha_to_one=True), DDIM),
    "ddim trailing": (lambda: ddim(**TRAILING), DDIM),
    "ddim v": (lambda: ddim(**V), Spherical),
    "ddim v trailing, zero SNR": (lambda: ddim(**V, **TRAILING, **ZERO_SNR), Spherical),
    "ddim leading, zero SNR": (lambda: ddim(**ZERO_SNR), DDIM),
    "ddim parallel": (lambda: diffusers.DDIMParallelScheduler(**BETAS, clip_sample=False), DDIM),
    "cogvideox": (lambda: cogvideox(), Spherical),
    "cogvideox, zero SNR": (lambda: cogvideox(**ZERO_SNR), Spherical),
    "cogvideox epsilon": (lambda: cogvideox(prediction_type="epsilon"), DDIM),
    "euler linspace": (lambda: euler(), DDIM),
    "euler leading": (lambda: euler(**LEADING), DDIM),
    "euler trailing": (lambda: euler(**TRAILING), DDIM),
    "euler karras": (lambda: euler(use_karras_sigmas=True), DDIM),
    "euler exponential": (lambda: euler(use_exponential_sigmas=True), DDIM),
    "euler to sigma_min": (lambda: euler(**LEADING, final_sigmas_type="sigma_min"), DDIM),
    "euler, zero SNR": (lambda: euler(**TRAILING, **ZERO_SNR), DDIM),
    "euler v": (lambda: euler(**V), EulerV),
    "euler v, zero SNR": (lambda: euler(**V, **TRAILING, **ZERO_SNR), EulerV),
    "euler v continuous": (lambda: euler(**SVD), EulerV),
    "dpm": (lambda: dpm(), DDIM),
    "dpm karras": (lambda: dpm(use_karras_sigmas=True), DDIM),
    "dpm v": (lambda: dpm(**V), Spherical),
    "dpm flow": (lambda: dpm(**FLOW_SIGMAS), FlowEuler),
    "dpm trailing, zero SNR": (lambda: dpm(**TRAILING, **ZERO_SNR), DDIM),
    "dpm learned variance": (lambda: dpm(variance_type="learned_range"), DDIM),
    "singlestep": (lambda: singlestep(), DDIM),
    "flow": (lambda: flow(), FlowEuler),
    "flow shifted": (lambda: flow(shift=3.0), FlowEuler),
    "flow karras": (lambda: flow(use_karras_sigmas=True), FlowEuler),
    "flow to a terminal": (lambda: flow(shift=3.0, shift_terminal=0.1), FlowEuler),
}


def prediction(x: Tensor, i: int) -> Tensor:
    """Any will do: the schedulers never look at where it came from."""
    return (1.3 * x + i).sin() + 0.5 * x / (1 + x.abs())


def check_equal_steps(scheduler: Any, solver: Solver) -> None:
    """Both step from the scheduler's own float32 state, to the roundings of x_j = α_j·x₀ + σ_j·ε.

    DPM-Solver takes its coefficients from differences of λ = log(α/σ), each rounded at |λ|.
    """
    assert scheduler.timesteps.double().tolist() == solver.times.double().tolist()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 4, 4, generator=generator) * float(getattr(scheduler, "init_noise_sigma", 1.0))
    for i, t in enumerate(scheduler.timesteps):
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(x, t)
        e, (alpha_i, sigma_i), (alpha_j, sigma_j) = prediction(x, i), *knots(solver, i)
        theirs = scheduler.step(e, t, x).prev_sample
        logs = [abs(math.log(a / s)) for a, s in ((alpha_i, sigma_i), (alpha_j, sigma_j)) if a > 0 and s > 0]
        x0, epsilon = clean_and_noise(x.double(), e.double(), alpha_i, sigma_i, solver.prediction)
        limit = 16 * EPS32 * (1 + sum(logs)) * (alpha_j * x0 + sigma_j * epsilon)
        gap = (solver.step(i).forward(x.double(), e.double()) - theirs).abs()
        assert (gap <= limit).all(), f"step {i}: {(gap / limit).max():.3g} bounds"
        x = theirs


def knots(solver: Solver, i: int) -> list[tuple[float, float]]:
    return [(float(solver.alphas[k]), float(solver.sigmas[k])) for k in (i, i + 1)]


def clean_and_noise(x: Tensor, e: Tensor, alpha: float, sigma: float, kind: str) -> tuple[Tensor, Tensor]:
    """Bounds of |x₀| and |ε| as they come about: the sums of what is added up in them."""
    x, e = x.abs(), e.abs()
    return ((x + sigma * e) / alpha, e) if kind == "epsilon" else (x + (1 + sigma) * e, x + e)


@pytest.mark.parametrize("steps", [2, 4, 20])
@pytest.mark.parametrize("case", ACCEPTED)
def test_the_solver_steps_as_the_scheduler_does(case: str, steps: int) -> None:
    make, kind = ACCEPTED[case]
    scheduler = make()
    solver = solver_from_scheduler(scheduler, steps)
    assert type(solver) is kind
    scheduler.set_timesteps(steps)
    check_equal_steps(scheduler, solver)


def test_the_comparison_notices_a_neighbouring_grid_another_end_and_another_prediction() -> None:
    scheduler = ddim(set_alpha_to_one=True)
    scheduler.set_timesteps(4)
    bars = scheduler.alphas_cumprod
    for mutant in (
        solver_from_scheduler(ddim(), 4),
        DDIM.from_alphas_cumprod(bars.roll(1).clamp_max(bars[0]), scheduler.timesteps, 1.0),
        solver_from_scheduler(ddim(set_alpha_to_one=True, **V), 4),
    ):
        with pytest.raises(AssertionError):
            check_equal_steps(scheduler, mutant)


@pytest.mark.parametrize("case", ["ddim", "euler karras", "dpm v", "flow shifted"])
def test_a_grid_that_is_set_and_one_that_is_asked_for_are_the_same(case: str) -> None:
    make, _ = ACCEPTED[case]
    scheduler = make()
    scheduler.set_timesteps(7)
    for a, b in zip(vars(solver_from_scheduler(scheduler)), vars(solver_from_scheduler(make(), 7)), strict=True):
        assert a == b
    assert torch.equal(solver_from_scheduler(scheduler).sigmas, solver_from_scheduler(make(), 7).sigmas)


@pytest.mark.parametrize("name", ["StableDiffusionTimesteps", "StableDiffusionXLTimesteps"])
@pytest.mark.parametrize("make", [euler, dpm])
def test_ays_time_steps(make: Callable[[], Any], name: str) -> None:
    solver = solver_from_scheduler(make(), timesteps=AysSchedules[name])
    assert solver.times.tolist() == AysSchedules[name]
    scheduler = make()
    scheduler.set_timesteps(timesteps=AysSchedules[name])
    check_equal_steps(scheduler, solver)


def test_ays_sigmas() -> None:
    solver = solver_from_scheduler(euler(), sigmas=AysSchedules["StableDiffusionXLSigmas"])
    assert solver.sigmas.float().tolist() == torch.tensor(AysSchedules["StableDiffusionXLSigmas"]).tolist()


@pytest.mark.parametrize("kind", ["exponential", "linear"])
def test_dynamic_shifting(kind: str) -> None:
    """σ' = m/(m + 1/σ − 1), with m = exp(μ) or μ; the model is told 1000·σ'."""
    sigmas, mu = np.linspace(1, 1 / 8, 8), 0.7
    scheduler = flow(use_dynamic_shifting=True, time_shift_type=kind)
    solver = solver_from_scheduler(scheduler, sigmas=sigmas, mu=mu)
    m = math.exp(mu) if kind == "exponential" else mu
    wanted = torch.tensor([*(m / (m + 1 / sigmas - 1)), 0.0], dtype=torch.float64)
    torch.testing.assert_close(solver.sigmas, wanted, rtol=4 * EPS32, atol=0)
    torch.testing.assert_close(solver.times, 1000 * wanted[:-1], rtol=8 * EPS32, atol=0)
    scheduler = dpm(**FLOW_SIGMAS, use_dynamic_shifting=True)
    solver_from_scheduler(scheduler, 4, mu=mu)
    assert scheduler.config.flow_shift == 3.0  # which its set_timesteps would have overwritten


def test_the_last_knot_of_ddim_is_the_one_that_its_last_step_reaches() -> None:
    """final_alpha_cumprod below time step 0, and the table's own ᾱ where t − N//T is not below."""
    for scheduler, steps, last in (
        (ddim(set_alpha_to_one=True), 50, 1.0),
        (ddim(), 50, float(ddim().alphas_cumprod[0])),
        (ddim(set_alpha_to_one=True, steps_offset=40), 30, float(ddim().alphas_cumprod[7])),
    ):
        solver = solver_from_scheduler(scheduler, steps)
        assert math.isclose(float(solver.alphas[-1]) ** 2, last, rel_tol=1e-15)


@given(
    sigmas=st.lists(st.floats(1e-3, 4096), min_size=3, max_size=8, unique=True),
    x0=st.floats(-3, 3),
    noise=st.floats(-3, 3),
)
def test_euler_v_takes_consistent_predictions_from_any_knot_to_any_other(
    sigmas: list[float], x0: float, noise: float
) -> None:
    """x₀ + σ_i·ε goes to x₀ + σ_j·ε where v = (ε − σ_i·x₀)/√(1 + σ_i²), in eight roundings of the terms."""
    solver = EulerV(sorted(sigmas, reverse=True), list(range(len(sigmas) - 1)))
    sigma = solver.sigmas.tolist()
    for i in range(len(solver)):
        v = (noise - sigma[i] * x0) / math.hypot(1, sigma[i])
        for j in range(i + 1, len(solver) + 1):
            a, b = (float(k) for k in (solver.step(i, j).a, solver.step(i, j).b))
            gap = abs(a * (x0 + sigma[i] * noise) + b * v - (x0 + sigma[j] * noise))
            terms = a * (abs(x0) + sigma[i] * abs(noise)) + abs(b) * (abs(x0) + abs(noise))
            double = torch.finfo(torch.float64)
            assert gap <= 8 * double.eps * terms + double.tiny  # below that, relative rounding says nothing


@pytest.mark.parametrize("eta", [0.4, 1.0])
def test_euler_v_with_noise_is_ancestral_euler_on_the_epsilon_that_its_v_says(eta: float) -> None:
    sigmas = DDIM.karras(6, sigma_max=20.0).sigmas
    solver, plain = EulerV(sigmas, range(6), eta=eta), DDIM(torch.ones(7), sigmas, range(6), eta=eta)
    x, v = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for i, sigma in enumerate(sigmas[:-1].tolist()):
        norm = math.hypot(1, sigma)
        epsilon = (sigma * x / norm + v) / norm  # of the scaled state, sin φ·x + cos φ·v
        for j in range(i + 1, 7):
            ours, theirs = solver.step(i, j), plain.step(i, j)
            torch.testing.assert_close(ours.forward(x, v), theirs.forward(x, epsilon), rtol=1e-13, atol=1e-13)
            assert ours.noise == theirs.noise and ours.noisy == (j < 6)
            if j < 6:
                wrong = EulerV(sigmas, range(6), eta=0.999 * eta).step(i, j)
                assert (wrong.forward(x, v) - theirs.forward(x, epsilon)).abs().max() > 1e-11


def test_euler_v_is_spherical_on_the_scaled_state() -> None:
    solver = solver_from_scheduler(euler(**V), 10)
    phi = solver.sigmas.atan()
    for i in range(10):
        scaled, step = Spherical(phi, solver.times).step(i), solver.step(i)
        # The angles are rounded at π/2, by which the small cos φ and sin δ are off.
        assert math.isclose(step.a * math.cos(phi[i + 1]), scaled.a * math.cos(phi[i]), abs_tol=1e-15)
        assert math.isclose(step.b * math.cos(phi[i + 1]), scaled.b, abs_tol=1e-15)
    with pytest.raises(ValueError, match="v is that of x/sqrt"):
        solver.alpha_sigma(torch.zeros(2))


def test_the_scheduler_and_the_global_generator_stay_as_they_are() -> None:
    for make in (ddim, euler, dpm, flow):
        scheduler, called = make(), []
        scheduler.set_timesteps(5)

        @functools.wraps(scheduler.step)
        def step(*args: Any, called: list[Any] = called, **kwargs: Any) -> Any:
            called.append(args)

        scheduler.step = step  # as a pipeline's driver does
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(2)  # as image-to-image does
        before, state = copy.deepcopy(vars(scheduler)), torch.random.get_rng_state()
        assert len(solver_from_scheduler(scheduler, 9)) == 9
        assert len(solver_from_scheduler(scheduler)) == 5
        assert not called
        assert torch.equal(torch.random.get_rng_state(), state)
        for name, value in vars(scheduler).items():
            assert torch.equal(value, before[name]) if isinstance(value, Tensor) else value == before[name], name
