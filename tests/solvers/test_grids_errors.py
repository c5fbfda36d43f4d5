"""A bad grid is refused by the name of its argument."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from support.grids import ACP
from support.tensors import f64, i64
from zigzag.solvers import DDIM, FlowEuler, Spherical

NAN, INF = math.nan, math.inf

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
