"""Solvers by name."""

from __future__ import annotations

import pytest

from zigzag.evaluation.solvers import SOLVERS, make_solver, solver_label
from zigzag.solvers import DDIM, DDPM, LCM, AdamsBashforth, DPMSolver, FlowEuler, Heun, Solver, Spherical

GRID = DDIM.stable_diffusion(6)

MADE: dict[str, tuple[type[Solver], dict[str, object]]] = {
    "ddim": (DDIM, {"eta": 0.0}),
    "ddim:eta=1": (DDIM, {"eta": 1.0, "fresh_noise": False}),
    "ddim:eta=0.5,fresh": (DDIM, {"eta": 0.5, "fresh_noise": True}),
    "ddpm:variance=large": (DDPM, {"variance": "large"}),
    "dpm:order=3,sde": (DPMSolver, {"order": 3, "sde": True}),
    "dpm:order=2,form=heun": (DPMSolver, {"order": 2, "form": "heun"}),
    "dpm:order=3,released": (DPMSolver, {"released": True}),
    "2m": (DPMSolver, {"order": 2, "sde": False}),
    "3m": (DPMSolver, {"order": 3, "released": False}),
    "sde-2m": (DPMSolver, {"order": 2, "sde": True}),
    "deis": (AdamsBashforth, {"order": 2, "weights": "exponential"}),
    "lms": (AdamsBashforth, {"order": 4, "weights": "lagrange"}),
    "plms": (AdamsBashforth, {"order": 4, "weights": "uniform"}),
    "heun": (Heun, {}),
    "lcm:fresh": (LCM, {"fresh_noise": True}),
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
        ("heun:order=2", "heun has no option 'order'; it has: none"),
        ("adams:weights=cubic", "weights must be one of"),
        ("ddim:eta=2", "eta must lie in"),
    ],
)
def test_what_is_no_solver_is_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make_solver(text, GRID)


def test_a_flow_has_no_partial_eta() -> None:
    with pytest.raises(ValueError, match="eta must be 0 or 1 for a model of 'flow'"):
        make_solver("ddim:eta=0.5", FlowEuler.uniform(4))


def test_labels_tell_solvers_apart() -> None:
    texts = [*MADE, *SOLVERS]
    assert len({solver_label(text) for text in texts}) == len(set(texts))
