"""Grids: constructors and their errors, float64 tables, presets against formulas written here."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from zigzag.solvers import DDIM, FlowEuler, Solver, Spherical, StepInfo, StepTable

EPS = torch.finfo(torch.float64).eps
NAN, INF = math.nan, math.inf


def f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def i64(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


def solvers() -> dict[str, Solver]:
    """One of each, none with a step that has no inverse."""
    return {
        "sd": DDIM.stable_diffusion(10),
        "karras": DDIM.karras(8),
        "flow": FlowEuler.uniform(6, shift=3.0, time_scale=1000.0),
        "spherical": Spherical.cosine(5),
    }


every_solver = pytest.mark.parametrize("name", list(solvers()))


def close(actual: Tensor, expected: Tensor, bound: Tensor | float) -> None:
    """|actual − expected| <= bound, element by element."""
    assert actual.shape == expected.shape
    gap = (actual.double() - expected.double()).abs()
    assert (gap <= torch.as_tensor(bound, dtype=torch.float64)).all(), gap


# What a solver holds ---------------------------------------------------------------------------------------


@every_solver
def test_a_solver_of_t_steps_holds_t_plus_one_knots_and_t_times_in_float64_on_the_host(name: str) -> None:
    solver = solvers()[name]
    steps = len(solver)
    assert solver.alphas.shape == solver.sigmas.shape == (steps + 1,)
    assert solver.times.shape == (steps,)
    assert solver.alphas.dtype == solver.sigmas.dtype == torch.float64
    assert solver.alphas.device.type == solver.sigmas.device.type == "cpu"
    assert solver.times.dtype == (torch.int64 if name == "sd" else torch.float64)
    assert solver.prediction == {"flow": "flow", "spherical": "v"}.get(name, "epsilon")


@every_solver
def test_noise_falls_from_knot_0_to_knot_t(name: str) -> None:
    """atan2(σ, α) falls strictly: knots go from noise to data."""
    solver = solvers()[name]
    assert (torch.atan2(solver.sigmas, solver.alphas).diff() < 0).all()


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
def test_constructors_keep_their_numbers_in_float64(dtype: torch.dtype) -> None:
    values = torch.tensor([0.9, 0.5, 0.1], dtype=dtype)
    exact = values.double()
    assert torch.equal(FlowEuler(values).sigmas, exact)
    close(FlowEuler(values).alphas, 1 - exact, EPS)
    close(Spherical(values).alphas, exact.cos(), EPS)
    close(Spherical(values).sigmas, exact.sin(), EPS)
    ddim = DDIM(1 - values, values, values[:-1])
    assert torch.equal(ddim.alphas, (1 - values).double()) and torch.equal(ddim.sigmas, exact)
    for solver in (FlowEuler(values), Spherical(values), ddim):
        assert solver.times.dtype == torch.float64
        assert torch.equal(solver.times, exact[:-1])


@pytest.mark.parametrize("build", [FlowEuler, Spherical], ids=["flow", "spherical"])
def test_times_default_to_sigma_or_phi_and_integer_times_stay_integers(build: Callable[..., Solver]) -> None:
    knots = f64(0.9, 0.5, 0.0)
    assert torch.equal(build(knots).times, knots[:-1])
    told = build(knots, torch.tensor([7, 3]))
    assert told.times.dtype == torch.int64 and told.times.tolist() == [7, 3]


def test_a_solver_is_not_changed_by_what_happens_to_the_tensor_it_was_built_from() -> None:
    sigmas = f64(0.9, 0.5, 0.0)
    solver = FlowEuler(sigmas)
    sigmas.zero_()
    assert solver.sigmas.tolist() == [0.9, 0.5, 0.0]
    assert solver.step(0).b == 0.5 - 0.9


@every_solver
def test_info_says_the_host_numbers_of_a_step(name: str) -> None:
    solver = solvers()[name]
    for i, j in ((0, 1), (1, 3), (0, len(solver)), (len(solver) - 1, len(solver))):
        alphas, sigmas = solver.alphas.tolist(), solver.sigmas.tolist()
        expected = (i, j, solver.times[i].item(), alphas[i], sigmas[i], alphas[j], sigmas[j])
        info = solver.info(i, j)
        assert isinstance(info, StepInfo)
        numbers = (info.i, info.j, info.t, info.alpha_i, info.sigma_i, info.alpha_j, info.sigma_j)
        assert numbers == expected
        assert all(isinstance(v, (int, float)) for v in numbers)
    assert solver.info(1) == solver.info(1, 2)
    assert solver.step(1) == solver.step(1, 2)


@every_solver
@pytest.mark.parametrize(("i", "j"), [(-1, 1), (0, 0), (2, 1), (0, 99), (99, 100)])
def test_a_step_outside_the_grid_or_upwards_is_refused(name: str, i: int, j: int) -> None:
    """0 <= i < j <= T, and no wrapping round of negative indices."""
    solver = solvers()[name]
    with pytest.raises(ValueError):
        solver.step(i, j)
    with pytest.raises(ValueError):
        solver.info(i, j)
    with pytest.raises(ValueError):
        solver.step(len(solver))


# Tables ----------------------------------------------------------------------------------------------------


def check_table(table: StepTable, solver: Solver) -> None:
    """Row i of the table is step i -> i+1, rounded once from float64."""
    for symbol in "abcd":
        column = getattr(table, symbol)
        exact = f64(*(getattr(solver.step(i), symbol) for i in range(len(solver))))
        assert torch.equal(column, exact.to(column.dtype)), symbol
    assert torch.equal(table.times.double(), solver.times.to(table.times.dtype).double())


@every_solver
@pytest.mark.parametrize("dtype", (torch.float64, torch.float32, torch.bfloat16), ids=str)
def test_the_table_holds_the_steps_cast_once(name: str, dtype: torch.dtype) -> None:
    solver = solvers()[name]
    table = solver.table(torch.device("cpu"), dtype)
    assert all(getattr(table, s).dtype == dtype and getattr(table, s).shape == (len(solver),) for s in "abcd")
    assert table.times.shape == (len(solver),)
    check_table(table, solver)


@every_solver
def test_the_table_is_float64_by_default(name: str) -> None:
    table = solvers()[name].table()
    assert {getattr(table, s).dtype for s in "abcd"} == {torch.float64}
    assert torch.equal(table.times.double(), solvers()[name].times.double())


def test_the_table_check_refuses_the_neighbouring_step_and_a_table_computed_in_float32() -> None:
    solver = DDIM.stable_diffusion(10)
    t = solver.table()
    with pytest.raises(AssertionError):
        check_table(StepTable(t.a, t.b, t.c.roll(-1), t.d.roll(-1), t.times), solver)
    with pytest.raises(AssertionError):
        d = -t.b.float() / t.a.float()
        check_table(StepTable(t.a.float(), t.b.float(), 1 / t.a.float(), d, t.times), solver)


# alpha_sigma -----------------------------------------------------------------------------------------------


@every_solver
def test_alpha_sigma_finds_the_knot_of_a_model_time_per_sample(name: str) -> None:
    """In float64, for times as the predictor sees them: int64, or in the state's dtype (float32 here)."""
    solver = solvers()[name]
    rows = torch.tensor([len(solver) - 1, 0, 2, 2, 1])
    alpha, sigma = solver.alpha_sigma(solver.times[rows])
    assert alpha.dtype == sigma.dtype == torch.float64
    close(alpha, solver.alphas[rows], 4 * EPS)
    close(sigma, solver.sigmas[rows], 4 * EPS * solver.sigmas[rows].clamp_min(1))
    if solver.times.dtype == torch.float64:
        rounding = torch.finfo(torch.float32).eps
        alpha, sigma = solver.alpha_sigma(solver.times[rows].float())
        assert alpha.dtype == sigma.dtype == torch.float64
        close(alpha, solver.alphas[rows], 2 * rounding)
        close(sigma, solver.sigmas[rows], 2 * rounding * solver.sigmas[rows].clamp_min(1))


# Constructors' errors --------------------------------------------------------------------------------------

ACP = torch.linspace(0.99, 0.01, 10, dtype=torch.float64)
VALUE_ERRORS: dict[str, tuple[Callable[[], Any], str]] = {
    "flow short": (lambda: FlowEuler(f64(1.0)), "sigmas"),
    "flow empty": (lambda: FlowEuler(f64()), "sigmas"),
    "flow up and down": (lambda: FlowEuler(f64(1.0, 0.2, 0.5, 0.0)), "sigmas"),
    "flow from data to noise": (lambda: FlowEuler(f64(0.0, 0.5, 1.0)), "sigmas"),
    "flow nan": (lambda: FlowEuler(f64(1.0, NAN, 0.0)), "sigmas"),
    "flow inf": (lambda: FlowEuler(f64(INF, 0.5, 0.0)), "sigmas"),
    "flow above 1": (lambda: FlowEuler(f64(1.5, 0.5, 0.0)), "sigmas"),
    "flow below 0": (lambda: FlowEuler(f64(1.0, 0.5, -0.1)), "sigmas"),
    "flow matrix": (lambda: FlowEuler(f64(1.0, 0.5, 0.0)[None]), "sigmas"),
    "flow times short": (lambda: FlowEuler(f64(1.0, 0.5, 0.0), f64(1.0)), "times"),
    "flow times per knot": (lambda: FlowEuler(f64(1.0, 0.5, 0.0), f64(1.0, 0.5, 0.0)), "times"),
    "flow times nan": (lambda: FlowEuler(f64(1.0, 0.5, 0.0), f64(1.0, NAN)), "times"),
    "spherical short": (lambda: Spherical(f64(1.0)), "angles"),
    "spherical up and down": (lambda: Spherical(f64(1.5, 0.2, 0.5, 0.0)), "angles"),
    "spherical from data to noise": (lambda: Spherical(f64(0.0, 0.5, 1.0)), "angles"),
    "spherical nan": (lambda: Spherical(f64(1.0, NAN, 0.0)), "angles"),
    "spherical below 0": (lambda: Spherical(f64(1.0, 0.5, -0.1)), "angles"),
    "spherical beyond a half turn": (lambda: Spherical(f64(4.0, 0.5, 0.0)), "angles"),
    "spherical times": (lambda: Spherical(f64(1.0, 0.5, 0.0), f64(1.0)), "times"),
    "ddim short": (lambda: DDIM(f64(1.0), f64(1.0), f64()), "alphas|sigmas"),
    "ddim lengths": (lambda: DDIM(f64(0.5, 1.0), f64(1.0, 0.5, 0.0), f64(2, 1)), "alphas|sigmas"),
    "ddim up and down": (
        lambda: DDIM(f64(0.1, 0.9, 0.5, 1.0), f64(0.9, 0.2, 0.5, 0.0), f64(3, 2, 1)),
        "alphas|sigmas|monotone",
    ),
    "ddim from data to noise": (lambda: DDIM(f64(1.0, 0.5), f64(0.0, 0.5), f64(1)), "alphas|sigmas|monotone"),
    "ddim alpha nan": (lambda: DDIM(f64(NAN, 1.0), f64(1.0, 0.0), f64(1)), "alphas"),
    "ddim sigma inf": (lambda: DDIM(f64(1.0, 1.0), f64(INF, 0.0), f64(1)), "sigmas"),
    "ddim alpha below 0": (lambda: DDIM(f64(-0.1, 1.0), f64(1.0, 0.0), f64(1)), "alphas"),
    "ddim sigma below 0": (lambda: DDIM(f64(0.5, 1.0), f64(1.0, -0.1), f64(1)), "sigmas"),
    "ddim times": (lambda: DDIM(f64(0.5, 1.0), f64(1.0, 0.0), f64(2, 1)), "times"),
    "cumprod above 1": (lambda: DDIM.from_alphas_cumprod(ACP + 0.5, i64(5, 1)), "alphas_cumprod"),
    "cumprod below 0": (lambda: DDIM.from_alphas_cumprod(ACP - 0.5, i64(5, 1)), "alphas_cumprod"),
    "cumprod nan": (lambda: DDIM.from_alphas_cumprod(ACP * NAN, i64(5, 1)), "alphas_cumprod"),
    "timestep beyond training": (lambda: DDIM.from_alphas_cumprod(ACP, i64(10, 1)), "timesteps"),
    "timestep below 0": (lambda: DDIM.from_alphas_cumprod(ACP, i64(5, -1)), "timesteps"),
    "timesteps ascending": (lambda: DDIM.from_alphas_cumprod(ACP, i64(1, 5)), "timesteps|monotone"),
    "no timesteps": (lambda: DDIM.from_alphas_cumprod(ACP, i64()), "timesteps"),
    "final cumprod above 1": (lambda: DDIM.from_alphas_cumprod(ACP, i64(5, 1), 1.5), "final_alpha_cumprod"),
    "final cumprod nan": (lambda: DDIM.from_alphas_cumprod(ACP, i64(5, 1), NAN), "final_alpha_cumprod"),
    "final cumprod noisier": (lambda: DDIM.from_alphas_cumprod(ACP, i64(5, 1), 0.1), "alpha"),
    "sd no steps": (lambda: DDIM.stable_diffusion(0), "steps"),
    "sd more steps than training": (lambda: DDIM.stable_diffusion(1001), "steps"),
    "sd spacing": (lambda: DDIM.stable_diffusion(10, spacing="middle"), "spacing"),  # type: ignore[arg-type]
    "sd offset off the end": (lambda: DDIM.stable_diffusion(10, steps_offset=500), "steps_offset|timesteps"),
    "karras no steps": (lambda: DDIM.karras(0), "steps"),
    "karras sigma_min 0": (lambda: DDIM.karras(4, sigma_min=0.0), "sigma_min"),
    "karras the wrong way": (lambda: DDIM.karras(4, sigma_min=2.0, sigma_max=1.0), "sigma_m"),
    "karras sigma_max inf": (lambda: DDIM.karras(4, sigma_max=INF), "sigma_max"),
    "karras rho": (lambda: DDIM.karras(4, rho=0.0), "rho"),
    "flow no steps": (lambda: FlowEuler.uniform(0), "steps"),
    "flow shift 0": (lambda: FlowEuler.uniform(4, shift=0.0), "shift"),
    "flow shift nan": (lambda: FlowEuler.uniform(4, shift=NAN), "shift"),
    "flow time_scale": (lambda: FlowEuler.uniform(4, time_scale=0.0), "time_scale"),
    "cosine no steps": (lambda: Spherical.cosine(0), "steps"),
    "cosine phi_max 0": (lambda: Spherical.cosine(4, phi_max=0.0), "phi_max"),
    "cosine phi_max half turn": (lambda: Spherical.cosine(4, phi_max=4.0), "phi_max"),
}


@pytest.mark.parametrize("case", VALUE_ERRORS)
def test_a_bad_grid_is_refused_by_the_name_of_its_argument(case: str) -> None:
    build, word = VALUE_ERRORS[case]
    with pytest.raises(ValueError, match=word):
        build()


PRESETS = (DDIM.stable_diffusion, DDIM.karras, FlowEuler.uniform, Spherical.cosine)


@pytest.mark.parametrize("preset", PRESETS, ids=["sd", "karras", "uniform", "cosine"])
@pytest.mark.parametrize("steps", [2.5, "4", None], ids=repr)
def test_a_number_of_steps_that_is_no_integer_is_a_type_error(preset: Any, steps: Any) -> None:
    with pytest.raises(TypeError, match="steps"):
        preset(steps)


# from_alphas_cumprod ---------------------------------------------------------------------------------------


def check_cumprod(solver: Solver, timesteps: list[int], final: float) -> None:
    """α_i = √ᾱ(t_i), σ_i = √(1 − ᾱ(t_i)), and √final, √(1 − final) at knot T; α² + σ² = 1."""
    bars = f64(*(ACP[t].item() for t in timesteps), final)
    close(solver.alphas, bars.sqrt(), EPS)
    close(solver.sigmas, (1 - bars).sqrt(), EPS)
    close(solver.alphas**2 + solver.sigmas**2, torch.ones_like(bars), 4 * EPS)
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
    """A running product of t factors is good to (t + 4)·eps, and 1 − ᾱ absolutely so."""
    assert solver.times.tolist() == timesteps
    bar = f64(*(bars[t] for t in timesteps), final)
    count = f64(*timesteps, 0) + 4
    close(solver.alphas, bar.sqrt(), count * EPS)
    close(solver.sigmas, (1 - bar).sqrt(), count * EPS / (1 - bar).sqrt().clamp_min(EPS))


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


def check_karras(solver: Solver, steps: int, low: float, high: float, rho: float) -> None:
    """σ_k = (σ_max^{1/ρ} + k/(n−1)·(σ_min^{1/ρ} − σ_max^{1/ρ}))^ρ (EDM, eq. 5), then 0; α = 1; t = σ.

    The base is good to 4·eps·σ_max^{1/ρ}; its power to ρ times the relative error.
    """
    h, lo = np.longdouble(high) ** (1 / np.longdouble(rho)), np.longdouble(low) ** (1 / np.longdouble(rho))
    base = [h + (lo - h) * k / max(steps - 1, 1) for k in range(steps)]
    sigma = f64(*(float(v**rho) for v in base), 0.0)
    bound = f64(*(4 * rho * EPS * float(h * v ** (rho - 1)) for v in base), 0.0)
    close(solver.sigmas, sigma, bound + EPS * sigma)
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
    close(solver.sigmas, sigma, 8 * EPS)
    close(solver.alphas, 1 - sigma, 8 * EPS)
    close(solver.times, sigma[:-1] * time_scale, 8 * EPS * time_scale)
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
    close(solver.alphas, phi.cos(), 4 * EPS)
    close(solver.sigmas, phi.sin(), 4 * EPS)
    close(solver.times, phi[:-1], 4 * EPS)
    assert solver.alphas[-1] == 1 and solver.sigmas[-1] == 0
    assert all(abs(solver.step(i).a - math.cos(phi_max / steps)) <= 4 * EPS for i in range(steps))


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_cosine_is_uniform_in_the_angle(steps: int) -> None:
    check_cosine(Spherical.cosine(steps), steps, math.pi / 2)
    check_cosine(Spherical.cosine(steps, phi_max=1.2), steps, 1.2)
    with pytest.raises(AssertionError):
        check_cosine(Spherical.cosine(steps, phi_max=1.2), steps, math.pi / 2)
