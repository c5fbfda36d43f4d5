"""Multistep solvers are diffusers' schedulers of the same name, on their own grids, with history, to rounding."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from support.schedulers import SD, check_history, levels, start
from zigzag.solvers import AdamsBashforth, DPMSolver, Solver

diffusers = pytest.importorskip("diffusers")

KINDS = {"epsilon": "epsilon", "v_prediction": "v", "sample": "x0", "flow_prediction": "flow"}
GRIDS: dict[str, dict[str, Any]] = {
    "leading": {"timestep_spacing": "leading", "steps_offset": 1},
    "trailing to sigma_min": {"timestep_spacing": "trailing", "final_sigmas_type": "sigma_min"},
    "karras": {"use_karras_sigmas": True},
}


def dpm(steps: int, **config: Any) -> Any:
    scheduler = diffusers.DPMSolverMultistepScheduler(**SD | config)
    scheduler.set_timesteps(steps)
    return scheduler


def on(scheduler: Any, cls: Any = DPMSolver, **options: Any) -> Solver:
    """The solver on the scheduler's own table, for its prediction."""
    flow = bool(scheduler.config.get("use_flow_sigmas"))
    alphas, sigmas = levels(scheduler.sigmas.double(), flow)
    return cls(alphas, sigmas, scheduler.timesteps, prediction=KINDS[scheduler.config.prediction_type], **options)


# DPM-Solver++ --------------------------------------------------------------------------------------------------------

ORDERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "1": ({"solver_order": 1}, {"order": 1}),
    "2M": ({"solver_order": 2}, {"order": 2}),
    "2M, heun": ({"solver_order": 2, "solver_type": "heun"}, {"order": 2, "form": "heun"}),
    "3M": ({"solver_order": 3}, {"order": 3, "released": True}),
}
SDE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    f"SDE-{name}": (theirs | {"algorithm_type": "sde-dpmsolver++"}, ours | {"sde": True})
    for name, (theirs, ours) in ORDERS.items()
    if name != "3M"
}
ALL = ORDERS | SDE


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("steps", [6, 20])
@pytest.mark.parametrize("name", ALL)
def test_dpm_solver_is_diffusers(name: str, steps: int, grid: str) -> None:
    """On ε; with fewer than 15 steps the order falls at the end, and on σ = 0 always."""
    theirs, ours = ALL[name]
    scheduler = dpm(steps, **GRIDS[grid] | theirs)
    check_history(scheduler, on(scheduler, **ours), start(), generators=name in SDE)


@pytest.mark.parametrize("kind", ["v_prediction", "sample", "flow_prediction"])
@pytest.mark.parametrize("name", ALL)
def test_dpm_solver_is_diffusers_on_every_prediction(name: str, kind: str) -> None:
    theirs, ours = ALL[name]
    flow = {"use_flow_sigmas": True, "flow_shift": 3.0} if kind == "flow_prediction" else GRIDS["leading"]
    scheduler = dpm(8, prediction_type=kind, **flow | theirs)
    check_history(scheduler, on(scheduler, **ours), start(), generators=name in SDE)


ENDS: list[tuple[int, dict[str, Any], dict[str, Any]]] = [  # steps, options of both, and those of a mutant
    (6, {"lower_order_final": False}, {"lower_order_final": True}),
    (6, {"lower_order_final": True}, {"lower_order_final": False}),
    (6, {"lower_order_final": False, "euler_at_final": True}, {"euler_at_final": False}),
    (20, {"lower_order_final": False, "euler_at_final": True}, {"euler_at_final": False}),
    (14, {}, {"lower_order_final": False}),
    (15, {}, {"lower_order_final": True}),
]


@pytest.mark.parametrize(("steps", "options", "mutant"), ENDS, ids=str)
def test_the_last_steps_are_of_the_order_that_diffusers_takes(
    steps: int, options: dict[str, Any], mutant: dict[str, Any]
) -> None:
    def check(**ours: Any) -> None:
        scheduler = dpm(steps, solver_order=3, **GRIDS["trailing to sigma_min"] | options)
        check_history(scheduler, on(scheduler, order=3, released=True, **ours), start())

    check(**options)
    with pytest.raises(AssertionError, match="step"):
        check(**options | mutant)


@pytest.mark.parametrize("name", ALL)
def test_the_comparison_refuses_another_order_form_and_grid(name: str) -> None:
    theirs, ours = ALL[name]
    order = ours["order"]
    mutants: list[dict[str, Any]] = [{"order": 2 if order == 1 else 1, "released": False}]
    mutants += [{"form": "midpoint" if "form" in ours else "heun"}] if order == 2 else []
    mutants += [{"sde": not ours.get("sde", False)}]
    for mutant in mutants:
        scheduler = dpm(8, **GRIDS["leading"] | theirs)
        with pytest.raises(AssertionError, match="step"):
            check_history(scheduler, on(scheduler, **ours | mutant), start(), generators=name in SDE)
    scheduler = dpm(8, **GRIDS["leading"] | theirs)
    scheduler.sigmas[3] *= 1.0001
    solver = on(scheduler, **ours)
    scheduler.sigmas[3] /= 1.0001
    with pytest.raises(AssertionError, match="step"):
        check_history(scheduler, solver, start(), generators=name in SDE)


# The two findings on the third order ---------------------------------------------------------------------------------


def test_the_released_third_order_halves_its_last_difference_and_ours_does_not() -> None:
    """D_2 stands for h²·m'', of which the difference quotient is a half: `test_order_multistep.py` measures the orders.

    diffusers, k-diffusion and the authors' code take the half; the steps differ from the third on.
    """
    scheduler = dpm(20, solver_order=3, **GRIDS["leading"])
    check_history(scheduler, on(scheduler, order=3, released=True), start())
    scheduler = dpm(20, solver_order=3, **GRIDS["leading"])
    with pytest.raises(AssertionError, match="step 2"):
        check_history(scheduler, on(scheduler, order=3), start())


def test_diffusers_third_order_sde_has_the_sign_of_its_last_term_wrong() -> None:
    """Theirs: + α_j·((1 − e^{−H} − H)/H² − 1/2)·D_2, H = 2h. The integral of 2e^{−2(λ_j − λ)}(λ − λ_i)²/(2h²) is +1/2.

    `test_multistep_weights.py` has that integral by quadrature. Theirs differs by −α_j·D_2, and by nothing else.
    """
    theirs = {"solver_order": 3, "algorithm_type": "sde-dpmsolver++"} | GRIDS["leading"]
    for released in (True, False):
        scheduler = dpm(20, **theirs)
        with pytest.raises(AssertionError, match="step 2"):
            check_history(scheduler, on(scheduler, order=3, sde=True, released=released), start(), generators=True)

    class Wrong(DPMSolver):
        def data_step(self, i: int, j: int, remembered: tuple[int, ...]) -> Any:
            step = super().data_step(i, j, remembered)
            if len(step.memory) < 2:
                return step
            alphas, _, _ = self.knots
            _, D_2 = self._differences(i, self._lambda(j) - self._lambda(i), remembered)
            q, *memory = (w - alphas[j] * d for w, d in zip((step.Q, *step.memory), D_2, strict=True))
            return step._replace(Q=q, memory=tuple(memory))

    scheduler = dpm(20, **theirs)
    check_history(scheduler, on(scheduler, Wrong, order=3, sde=True, released=True), start(), generators=True)


# Adams–Bashforth -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("steps", [6, 20])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_deis_is_diffusers(order: int, steps: int, kind: str) -> None:
    """With fewer than 15 steps its order falls at the end."""

    def scheduler() -> Any:
        made = diffusers.DEISMultistepScheduler(**SD | GRIDS["leading"], solver_order=order, prediction_type=kind)
        made.set_timesteps(steps)
        return made

    end = {"lower_order_final": steps < 15}
    check_history(scheduler(), on(scheduler(), AdamsBashforth, order=order, **end), start())
    mutants: list[dict[str, Any]] = [{"order": 1 + order % 3}]
    mutants += [{"weights": "lagrange"}, {"lower_order_final": not end["lower_order_final"]}] if order > 1 else []
    for mutant in mutants:
        with pytest.raises(AssertionError, match="step"):
            check_history(scheduler(), on(scheduler(), AdamsBashforth, **{"order": order} | end | mutant), start())


@pytest.mark.parametrize("order", [1, 2, 3])
def test_deis_on_a_flow_is_diffusers_but_for_its_last_step_which_goes_nowhere(order: int) -> None:
    """Its flow grid has the last σ twice."""
    config = {"use_flow_sigmas": True, "flow_shift": 3.0, "prediction_type": "flow_prediction"}
    scheduler = diffusers.DEISMultistepScheduler(**SD | config, solver_order=order, lower_order_final=False)
    scheduler.set_timesteps(10)
    assert scheduler.sigmas[-1] == scheduler.sigmas[-2]
    sigmas = scheduler.sigmas[:-1].double()
    solver = AdamsBashforth(1 - sigmas, sigmas, scheduler.timesteps[:-1], prediction="flow", order=order)
    check_history(scheduler, solver, start())


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("config", [GRIDS["leading"], GRIDS["karras"]], ids=["leading", "karras"])
def test_linear_multistep_is_diffusers(order: int, config: dict[str, Any]) -> None:
    """α = 1. Its quadrature is Gauss–Kronrod at 21 points: exact on polynomials."""

    def scheduler() -> Any:
        made = diffusers.LMSDiscreteScheduler(**SD | config)
        made.set_timesteps(10)
        return made

    sigmas = scheduler().sigmas.double()

    def solver(**options: Any) -> Solver:
        made = {"order": order, "weights": "lagrange"} | options
        return AdamsBashforth(torch.ones_like(sigmas), sigmas, scheduler().timesteps, **made)

    check_history(scheduler(), solver(), start(10.0), order=order)
    for mutant in ({"order": 1 + order % 4}, *([{"weights": "uniform"}] if order > 1 else [])):
        with pytest.raises(AssertionError, match="step"):
            check_history(scheduler(), solver(**mutant), start(10.0), order=order)


def test_improved_pndm_is_the_classical_fourth_order_on_its_own_grid() -> None:
    """σ = sin², α = √(1 − σ²), and it averages ε = σ·x + α·v of the v that it is given.

    Its first step, from pure noise, divides 0 by 1e-8 and takes x₀ = 0 there, where v says x₀ = −v.
    """
    scheduler = diffusers.IPNDMScheduler()
    scheduler.set_timesteps(10)
    grid = (1 - scheduler.betas.double() ** 2).sqrt(), scheduler.betas.double(), scheduler.timesteps

    def check(order: int, weights: str) -> None:
        scheduler.set_timesteps(10)
        scheduler.alphas = grid[0]  # of which it has float32
        solver = AdamsBashforth(*grid, prediction="v", order=order, weights=weights)
        check_history(scheduler, solver, start(), skip=1)

    check(4, "uniform")
    for mutant in ((3, "uniform"), (4, "lagrange")):
        with pytest.raises(AssertionError, match="step"):
            check(*mutant)
