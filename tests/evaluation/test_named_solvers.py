"""Solvers by name."""

from __future__ import annotations

import pytest

from zigzag.evaluation.solvers import SOLVERS, make_solver, solver_label
from zigzag.solvers import (
    DDIM,
    DDPM,
    DPM2,
    LCM,
    TCD,
    AdamsBashforth,
    Ancestral,
    DPMSolver,
    FlowEuler,
    Heun,
    Solver,
    Spherical,
    vp_grid,
)

GRID = DDIM.stable_diffusion(6)

MADE: dict[str, tuple[type[Solver], dict[str, object]]] = {
    "ddim": (DDIM, {"eta": 0.0}),
    "ddim:eta=1": (DDIM, {"eta": 1.0, "fresh_noise": False}),
    "ddim:eta=0.5,fresh": (DDIM, {"eta": 0.5, "fresh_noise": True}),
    "ddpm:variance=large": (DDPM, {"variance": "large"}),
    "dpm:order=3,sde": (DPMSolver, {"order": 3, "sde": True}),
    "dpm:order=2,form=heun": (DPMSolver, {"order": 2, "form": "heun"}),
    "dpm:order=3,released": (DPMSolver, {"released": True}),
    "dpm:order=3,lower_order_final=no": (DPMSolver, {"lower_order_final": False, "euler_at_final": False}),
    "dpm:lower_order_final=yes,euler_at_final": (DPMSolver, {"lower_order_final": True, "euler_at_final": True}),
    "2m": (DPMSolver, {"order": 2, "sde": False}),
    "3m": (DPMSolver, {"order": 3, "released": False}),
    "sde-2m": (DPMSolver, {"order": 2, "sde": True}),
    "deis": (AdamsBashforth, {"order": 2, "weights": "exponential"}),
    "lms": (AdamsBashforth, {"order": 4, "weights": "lagrange"}),
    "plms": (AdamsBashforth, {"order": 4, "weights": "uniform"}),
    "heun": (Heun, {}),
    "dpm2": (DPM2, {}),
    "lcm:fresh": (LCM, {"fresh_noise": True}),
    "tcd": (TCD, {"fresh_noise": False}),
    "tcd:gamma=0.5,fresh": (TCD, {"fresh_noise": True}),
}


@pytest.mark.parametrize("text", MADE)
def test_a_solver_is_made_of_its_name_on_the_grid_that_is_given(text: str) -> None:
    kind, attributes = MADE[text]
    solver = make_solver(text, GRID)
    assert type(solver) is kind
    assert {name: getattr(solver, name) for name in attributes} == attributes
    for mine, theirs in ((solver.alphas, GRID.alphas), (solver.sigmas, GRID.sigmas), (solver.times, GRID.times)):
        assert mine.equal(theirs)
    assert solver.prediction == GRID.prediction


def test_first_order_is_the_grids_own_solver() -> None:
    for grid in (GRID, FlowEuler.uniform(4), Spherical.cosine(4)):
        assert make_solver("ddim", grid) is grid


@pytest.mark.parametrize("grid", [FlowEuler.uniform(4), Spherical.cosine(4)], ids=["flow", "v"])
def test_ancestral_steps_on_a_flow_are_the_first_order_sde(grid: Solver) -> None:
    """The coefficients of η = 1 on ε, of the same levels: the noise is the same, and so is what is kept of x₀."""
    step, plain = make_solver("ddim:eta=1", grid).step(1), DDIM(grid.alphas, grid.sigmas, grid.times, eta=1).step(1)
    assert step.noise == pytest.approx(plain.noise)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("euler", "solver must be one of"),
        ("dpm:ord=2", "dpm has no option 'ord'; it has: order, sde"),
        ("dpm:order=two", "dpm: order must be int, got 'two'"),
        ("dpm:sde=1", "dpm: sde takes no value"),
        ("dpm:order", "dpm: order needs a value"),
        ("dpm:order=4", "order must be 1, 2 or 3"),
        ("dpm:lower_order_final=maybe", "dpm: lower_order_final must be yes or no, got 'maybe'"),
        ("dpm:lower_order_final", "dpm: lower_order_final needs a value"),
        ("dpm:euler_at_final=yes", "dpm: euler_at_final takes no value"),
        ("tcd:gamma=2", "gamma must lie in"),
        ("tcd:eta=1", "tcd has no option 'eta'; it has: gamma, fresh"),
        ("dpm2:order=2", "dpm2 has no option 'order'; it has: none"),
        ("heun:order=2", "heun has no option 'order'; it has: none"),
        ("adams:weights=cubic", "weights must be one of"),
        ("ddim:eta=2", "eta must lie in"),
    ],
)
def test_what_is_no_solver_is_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make_solver(text, GRID)


@pytest.mark.parametrize("text", ["dpm2", "tcd"])
def test_a_grid_that_does_not_tell_its_levels_between_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\.on .* between the knots.* do not tell"):
        make_solver(text, DDIM(*vp_grid(2)))


@pytest.mark.parametrize("grid", [FlowEuler.uniform(4), Spherical.cosine(4)], ids=["flow", "v"])
def test_eta_and_both_variances_are_of_every_prediction(grid: Solver) -> None:
    """In the levels' own noise, which knows no prediction; where none is asked for and none is drawn anew, none is."""
    for text, plain in (
        ("ddim:eta=0.5,fresh", DDIM(grid.alphas, grid.sigmas, grid.times, eta=0.5)),
        ("ddim:eta=0,fresh", DDIM(grid.alphas, grid.sigmas, grid.times)),
        ("ddpm", DDPM(grid.alphas, grid.sigmas, grid.times)),
        ("ddpm:variance=large", DDPM(grid.alphas, grid.sigmas, grid.times, variance="large")),
    ):
        solver = make_solver(text, grid)
        assert type(solver) is Ancestral and solver.prediction == grid.prediction
        assert solver.fresh_noise == ("fresh" in text)
        assert [solver.step(i).noise for i in (1, 2, 3)] == [plain.step(i).noise for i in (1, 2, 3)]
    with pytest.raises(ValueError, match=r"eta must lie in \[0, 1\], got 2"):
        make_solver("ddim:eta=2", grid)


def test_labels_tell_solvers_apart() -> None:
    texts = [*MADE, *SOLVERS]
    assert len({solver_label(text) for text in texts}) == len(set(texts))
