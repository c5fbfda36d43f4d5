"""What the solvers with memory, noise or two evaluations refuse, naming what came and what is wanted."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from support.held import ON_EPSILON, PRESETS, SOLVERS
from support.tensors import f64
from zigzag.solvers import (
    DDIM,
    DDPM,
    DPM2,
    LCM,
    TCD,
    AdamsBashforth,
    Ancestral,
    DPMSolver,
    FlowAncestral,
    FlowEuler,
    Heun,
    Spherical,
)

VP, FLOW = PRESETS["trailing"](4), FlowEuler.uniform(4)
GRID = VP.alphas, VP.sigmas, VP.times
INNER = (VP.sigmas[:-2] / VP.alphas[:-2] * 0.99 + VP.sigmas[1:-1] / VP.alphas[1:-1] * 0.01).tolist()
ONES, TIMES = f64(1, 1, 1), VP.times[:-1]
ABAR = torch.linspace(0.99, 0.01, 100)


def dpm2(alphas: Any = ONES, sigmas: Any = None, times: Any = TIMES) -> DPM2:
    return DPM2(*GRID, alphas, f64(*INNER) if sigmas is None else sigmas, times)


def tcd(sigma: float = 0.1, alpha: float = 0.9, count: int = 4) -> TCD:
    return TCD(*GRID, [alpha] * count, [0.0] * (count - 1) + [sigma])


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "dpm order 0": (lambda: DPMSolver(*GRID, order=0), "order must be 1, 2 or 3, got 0"),
    "dpm order 4": (lambda: DPMSolver(*GRID, order=4), "order must be 1, 2 or 3, got 4"),
    "dpm order as float": (lambda: DPMSolver(*GRID, order=2.0), "order must be 1, 2 or 3, got 2.0"),
    "dpm form": (lambda: DPMSolver(*GRID, form="trapezoid"), "form must be 'midpoint' or 'heun', got 'trapezoid'"),
    "dpm fresh": (lambda: DPMSolver(*GRID, fresh_noise=True), "fresh_noise=True .*sde=True"),
    "dpm released": (lambda: DPMSolver(*GRID, released=True), "released=True .*order 3 only, got order 2"),
    "ab order 0": (lambda: AdamsBashforth(*GRID, order=0), "order must be 1, 2, 3 or 4, got 0"),
    "ab order 5": (lambda: AdamsBashforth(*GRID, order=5), "order must be 1, 2, 3 or 4, got 5"),
    "ab order as float": (lambda: AdamsBashforth(*GRID, order=3.0), "order must be .*, got 3.0"),
    "ab weights": (lambda: AdamsBashforth(*GRID, weights="log"), "weights must be one of exponential, .*got 'log'"),
    "eta above 1": (lambda: DDIM(*GRID, eta=1.1), r"eta must lie in \[0, 1\], got 1.1"),
    "eta below 0": (lambda: DDIM.karras(4, eta=-0.1), r"eta must lie in \[0, 1\], got -0.1"),
    "eta nan": (lambda: DDIM.stable_diffusion(4, eta=math.nan), r"eta must lie in \[0, 1\], got nan"),
    "ddpm variance": (lambda: DDPM(*GRID, variance="fixed"), "variance must be 'small' or 'large', got 'fixed'"),
    "ancestral eta": (lambda: Ancestral(*GRID, eta=1.1), r"eta must lie in \[0, 1\], got 1.1"),
    "ancestral variance": (lambda: Ancestral(*GRID, variance="fixed"), "variance must be .*got 'fixed'"),
    "ancestral large": (lambda: Ancestral(*GRID, eta=0.4, variance="large"), "of eta = 1 only, got eta=0.4"),
    "flow ancestral eta": (lambda: FlowAncestral.on(FLOW, eta=-0.1), r"eta must lie in \[0, 1\], got -0.1"),
    "flow ancestral vp": (lambda: FlowAncestral.on(VP), r"for a flow, alpha .*got 1.02873 to 1.39156"),
    "lcm sigma_data": (lambda: LCM(*GRID, sigma_data=-0.5), "sigma_data >= 0 .*got sigma_data=-0.5"),
    "lcm sigma_data nan": (lambda: LCM(*GRID, sigma_data=math.nan), "sigma_data"),
    "lcm scaling": (lambda: LCM(*GRID, timestep_scaling=0.0), "timestep_scaling > 0.*timestep_scaling=0.0"),
    "tcd gamma": (lambda: TCD.from_alphas_cumprod(ABAR, [50, 5], gamma=1.5), r"gamma must lie in \[0, 1\], got 1.5"),
    "tcd gamma nan": (lambda: TCD.from_alphas_cumprod(ABAR, [50, 5], gamma=math.nan), "gamma"),
    "tcd levels": (lambda: tcd(count=3), "inner_alphas and inner_sigmas must have 4 entries"),
    "tcd noisier": (lambda: tcd(sigma=0.5), "inner level of the step to knot 4, 0.9/0.5, is noisier"),
    "tcd nan": (lambda: tcd(sigma=math.nan), "inner level of the step to knot 4"),
    "tcd below 0": (lambda: tcd(sigma=-0.01), "inner level of the step to knot 4"),
    "tcd no data": (lambda: tcd(alpha=0.0), "inner level of the step to knot 1"),
    "dpm2 levels": (lambda: dpm2(sigmas=f64(1, 1)), "inner levels and times must be 3 or 4"),
    "dpm2 times": (lambda: dpm2(times=TIMES[:1]), "inner levels and times must be 3 or 4"),
    "dpm2 outside": (lambda: dpm2(sigmas=f64(*INNER[:2], 99.0)), "inner level 2, 1/99, does not lie between knots 2"),
    "dpm2 nan": (lambda: dpm2(sigmas=f64(math.nan, *INNER[1:])), "inner level 0"),
    "dpm2 no data": (lambda: dpm2(alphas=f64(0, 1, 1)), "inner level 0"),
    "dpm2 times nan": (lambda: DPM2(*GRID[:2], VP.times.double(), ONES, INNER, f64(1, 2, math.nan)), "inner_times"),
    "dpm2 times of two kinds": (lambda: dpm2(times=TIMES + 0.5), "inner_times are not integers but times are"),
    "dpm2 skips": (lambda: DPM2.karras(4).step(0, 2), "DPM2 has no step from knot 0 to 2"),
    "dpm2 steps": (lambda: DPM2.karras(0), "steps"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_there_is_not_is_refused_by_name(case: str) -> None:
    build, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        build()


PREDICTING = [name for name in SOLVERS if name not in ON_EPSILON]


@pytest.mark.parametrize("name", PREDICTING)
def test_an_unknown_prediction_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(ValueError, match="prediction must be one of epsilon, x0, v, flow, got 'score'"):
        SOLVERS[name](VP, "score")


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("i", [0, 2])
def test_a_step_reads_noisier_knots_only_and_runs_toward_the_data(name: str, i: int) -> None:
    solver = SOLVERS[name](VP, "epsilon")
    for j in (i, i - 1, 5):
        with pytest.raises(ValueError, match="no step from knot"):
            solver.step(i, j)
    if solver.memory:
        for left in ((i,), (0, i + 1)):
            with pytest.raises(ValueError, match=f"the step from knot {i} remembers noisier knots, from noise"):
                solver.step(i, i + 1, left)


@pytest.mark.parametrize("name", SOLVERS)
def test_pure_noise_says_nothing_of_the_data_by_its_noise(name: str) -> None:
    """ε at α = 0 has no step, whatever is asked of it; a v has."""
    solver = SOLVERS[name](FLOW, "epsilon")
    with pytest.raises(ValueError, match=r"no step from knot 0 to 1: alpha is 0 at knot 0.*'epsilon'"):
        solver.step(0)
    if name not in ON_EPSILON:
        assert math.isfinite(float(SOLVERS[name](FLOW, "v").step(0).a))


def test_heun_and_dpm2_leave_pure_noise_by_one_evaluation() -> None:
    """The ODE in k = σ/α begins at infinity there; cos(π/2) is 6e-17 in floating point, and means 0."""
    quarter = Spherical.cosine(4)
    for name in ("Heun", "DPM2"):
        solver, first = SOLVERS[name](quarter, "v"), quarter.step(0)
        assert solver.inner(0, 1) is None and solver.inner(1, 2) is not None
        assert (solver.step(0).a, solver.step(0).b) == pytest.approx((first.a, first.b), rel=1e-12)
    assert Heun.on(FLOW).inner(0, 1) is not None  # it is the velocity that is averaged
