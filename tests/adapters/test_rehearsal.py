"""What is read off a scheduler: the library's own solver where there is one, and the steps as they are of any."""

from __future__ import annotations

import copy
import types
from typing import Any

import pytest
import torch
from torch import Tensor

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
    Solver,
)

diffusers = pytest.importorskip("diffusers")
solver_from_scheduler = pytest.importorskip("zigzag.adapters.diffusers").solver_from_scheduler

from real_schedulers import REAL, SD, SDE  # noqa: E402

from zigzag.adapters.diffusers import natives  # noqa: E402
from zigzag.adapters.diffusers.euler_v import EulerV  # noqa: E402
from zigzag.adapters.diffusers.layout import Layout  # noqa: E402
from zigzag.adapters.diffusers.plans import plan_of  # noqa: E402
from zigzag.adapters.diffusers.probing import input_factors  # noqa: E402
from zigzag.adapters.diffusers.rehearsal import Rehearsal  # noqa: E402
from zigzag.adapters.diffusers.rehearsed import Rehearsed  # noqa: E402
from zigzag.adapters.diffusers.stepping import detached  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # diffusers' own, of numpy

NATIVE: dict[str, tuple[type[Solver], str]] = {
    "ddim eta": (DDIM, "eta=1"),
    "ddim eta v": (Ancestral, "'v', eta=0.5"),
    "ddim eta x0": (Ancestral, "'x0', eta=0.5"),
    "ddpm": (DDIM, "eta=1"),
    "ddpm v": (DPMSolver, "'v', order=1, sde=True"),  # which is η = 1
    "ddpm large v": (Ancestral, "'v', eta=1, variance='large'"),
    "ddpm large": (DDPM, ""),
    "euler ancestral": (DDIM, "eta=1"),
    "euler ancestral v": (EulerV, "eta=1"),
    "ltx ancestral": (FlowAncestral, "'flow', eta=1"),
    "ltx ancestral half": (FlowAncestral, "'flow', eta=0.5"),
    "ltx ancestral loud": (Rehearsed, "'flow'"),  # more noise than the levels take
    "euler churned": (Rehearsed, ""),
    "dpm 2m": (DPMSolver, "order=2"),
    "dpm 3m": (DPMSolver, "order=3"),
    "dpm 2m flow": (DPMSolver, "'flow', order=2"),
    "sde dpm 2m": (DPMSolver, "order=2, sde=True"),
    "sde dpm 3m": (Rehearsed, ""),  # where diffusers has a sign wrong
    "singlestep 2": (Rehearsed, "T=5"),
    "deis": (AdamsBashforth, "'exponential'"),
    "lms": (AdamsBashforth, "'lagrange'"),
    "unipc": (DPMSolver, "order=2"),  # whose predictor is DPM-Solver++'s
    "sa": (Rehearsed, ""),
    "pndm": (Rehearsed, ""),
    "ipndm": (Rehearsed, ""),
    "lcm": (LCM, ""),
    "tcd": (TCD, ""),
    "tcd eta": (DDIM, ""),
    "flow": (FlowEuler, ""),
    "flow stochastic": (LCM, "'flow'"),
    "flow heun": (Heun, "'flow'"),
    "heun": (Heun, ""),
    "kdpm2": (DPM2, ""),
    "cogvideox dpm": (DPMSolver, "'v', order=2, sde=True"),
    "edm euler": (Rehearsed, "'preconditioned'"),
    "scm": (Rehearsed, "'trigflow'"),
}


def on_grid(name: str, steps: int | None = None) -> Any:
    scheduler = REAL[name].make()
    scheduler.set_timesteps(steps or REAL[name].steps, **REAL[name].grid)
    return scheduler


@pytest.mark.parametrize("name", NATIVE)
def test_the_librarys_own_solver_is_found_by_trying(name: str) -> None:
    kind, said = NATIVE[name]
    solver = solver_from_scheduler(on_grid(name), step_kwargs=REAL[name].extra)
    assert type(solver) is kind and said in repr(solver)


@pytest.mark.parametrize("steps", [6, 16])  # diffusers lowers the last order below 15
@pytest.mark.parametrize(
    "config", [{}, {"solver_type": "heun"}, {"euler_at_final": True}, {"solver_order": 3}, SDE], ids=str
)
def test_multistep_solvers_have_the_schedulers_own_endings(config: dict[str, Any], steps: int) -> None:
    scheduler = diffusers.DPMSolverMultistepScheduler(**{**SD, **config})
    assert type(solver_from_scheduler(scheduler, steps)) is DPMSolver


def test_a_native_solver_is_none_where_one_coefficient_is_another() -> None:
    """Of another order, ending, form, noise, memory or prediction, or on the next grid."""
    plan = plan_of(on_grid("dpm 2m", 16))
    solver: Any = plan.solver
    assert natives.is_native(solver, plan.rehearsed)
    on = {"order": 2, "lower_order_final": False}
    for mutant in (
        DPMSolver.on(solver, order=1),
        DPMSolver.on(solver, order=3),
        DPMSolver.on(solver, **on, form="heun"),
        DPMSolver.on(solver, **on, sde=True),
        DPMSolver.on(solver, order=2, lower_order_final=True, euler_at_final=True),
        AdamsBashforth.on(solver, order=2),
        DPMSolver(solver.alphas, solver.sigmas * (1 + 1e-5), solver.times, **on),
        DPMSolver(solver.alphas, solver.sigmas, solver.times, prediction="v", **on),
    ):
        same = natives.is_native(mutant, plan.rehearsed)
        # A last step onto clean data is of first order whatever is asked for.
        assert same == (mutant.memory == 1 and getattr(mutant, "euler_at_final", False))


@pytest.mark.parametrize("name", ["dpm 3m", "deis", "lms", "unipc noise", "sa", "cogvideox dpm", "ipndm"])
def test_a_run_begun_later_reads_what_the_run_from_the_start_reads(name: str) -> None:
    """From as many steps on as it remembers; before that it has a lower order, and reads nothing it has not seen."""
    rehearsal = Rehearsal(on_grid(name, 8), REAL[name].extra)
    depth = max(k - m for k, row in enumerate(rehearsal.rows()) for m in (k, *row.memory))
    assert depth > 0
    for s in (1, 3):
        assert rehearsal.row(s, s).memory == {}
        for k in range(s + depth, 8):
            ours, theirs = rehearsal.row(k, s).terms(), rehearsal.row(k, 0).terms()
            assert ours.keys() == theirs.keys()
            for symbol, c in theirs.items():
                assert abs(ours[symbol] - c) <= 1e-12 * abs(c)


@pytest.mark.parametrize(
    "name", ["singlestep 2", "pndm", "heun v", "kdpm2 ancestral", "flow heun", "scm", "ipndm", "unipc"]
)
def test_steps_of_several_calls_are_told_from_single_ones(name: str) -> None:
    scheduler = on_grid(name)
    plan = plan_of(scheduler, REAL[name].extra)
    assert [list(range(first, last + 1)) for first, last in plan.rehearsed.groups] == REAL[name].groups(
        scheduler.timesteps
    )


def test_a_part_of_the_grid_begins_and_ends_between_steps() -> None:
    pairs = Layout(plan_of(on_grid("singlestep 2")).rehearsed)  # calls 01 23 45 67 8
    assert pairs.part(0, 9) == (0, 5) and pairs.part(2, 7) == (1, 4) and pairs.part(8, 1) == (4, 1)
    assert pairs.part(0, 4) == (0, 2) and pairs.part(9, 0) == (5, 0)
    for start, count, said in ((1, 8, "begins with call 1"), (0, 3, "ends after call 2")):
        with pytest.raises(ValueError, match=f"{said}.*in the middle of a step"):
            pairs.part(start, count)
    first = Layout(plan_of(on_grid("pndm")).rehearsed)  # calls 01 2 3 4 5 6, of which 1 and 2 stand at one time
    assert first.part(1, 6) == (1, 5) and [first.call(told) for told in (0, 1, 6)] == [0, 2, 1]


def test_reading_leaves_everything_as_it_was() -> None:
    """The scheduler, its history in the middle of a run, which is not read, and torch's random state."""
    for name in ("sa", "pndm", "sde dpm 2m", "kdpm2 ancestral", "lcm", "flow stochastic"):
        scheduler = on_grid(name)
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(torch.ones(1, 4, 2, 2), scheduler.timesteps[0])
        scheduler.step(torch.ones(1, 4, 2, 2), scheduler.timesteps[0], torch.ones(1, 4, 2, 2))
        before, state = copy.deepcopy(vars(scheduler)), torch.random.get_rng_state()
        rows, wanted = plan_of(scheduler).rehearsed, plan_of(on_grid(name)).rehearsed
        assert [rows.step(i, None, range(i)) for i in range(len(rows))] == [
            wanted.step(i, None, range(i)) for i in range(len(wanted))
        ]
        assert torch.equal(torch.random.get_rng_state(), state) and vars(scheduler).keys() == before.keys()
        for key, value in vars(scheduler).items():
            if isinstance(value, Tensor):
                torch.testing.assert_close(value, before[key], rtol=0, atol=0, equal_nan=True)
            else:
                assert str(value) == str(before[key]), key


def test_a_copy_keeps_functions_and_loses_methods_that_were_replaced() -> None:
    scheduler = on_grid("sa")
    scheduler.step = types.MethodType(lambda self: None, scheduler)
    new = detached(scheduler)
    assert new.tau_func is scheduler.tau_func and "step" not in vars(new)


def test_coefficients_are_those_of_float64() -> None:
    """`a·α_i + …` of a true pair: a datum and its noise go from knot to knot to 1e-13, though diffusers casts to
    float32 within its step."""
    for scheduler in (diffusers.DPMSolverMultistepScheduler(**SD), diffusers.EulerDiscreteScheduler(**SD)):
        scheduler.set_timesteps(6)
        rehearsed = plan_of(scheduler).rehearsed
        for i in range(6):
            (a_i, a_j), (s_i, s_j) = rehearsed.alphas[i : i + 2].tolist(), rehearsed.sigmas[i : i + 2].tolist()
            step = rehearsed.step(i)
            assert abs(float(step.a) * a_i - a_j) <= 1e-13 * a_j
            assert abs(float(step.a) * s_i + float(step.b) - s_j) <= 1e-13 * float(step.a) * s_i


def test_the_second_half_of_a_step_scales_its_own_input() -> None:
    """KDPM2 tells the halves apart by having stepped."""
    scheduler = on_grid("kdpm2")
    factors = input_factors(scheduler)
    assert factors is not None
    for k in range(1, 8, 2):
        sigma = float(scheduler.sigmas_interpol[k])
        assert abs(float(factors[k]) * (1 + sigma**2) ** 0.5 - 1) < 1e-6


def test_a_scheduler_without_a_configuration_is_read_too() -> None:
    class Bare:
        def set_timesteps(self, steps: int) -> None:
            self.timesteps = torch.arange(steps, 0, -1)

        def step(self, model_output: Tensor, timestep: Any, sample: Tensor, return_dict: bool = True) -> Any:
            return (0.9 * sample - 0.1 * model_output,)

    scheduler = Bare()
    scheduler.set_timesteps(3)
    step = plan_of(scheduler).solver.step(1)
    assert abs(float(step.a) - 0.9) < 1e-12 and abs(float(step.b) + 0.1) < 1e-12
