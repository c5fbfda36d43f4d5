"""What a path settles of solvers with memory and noise: the order of each move, the collapse, nothing without gap."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from support.held import MULTISTEP, ON_EPSILON, SOLVERS, STOCHASTIC, TWO_STAGE, make
from support.predictors import untouched
from support.refusals import refused
from support.sampling import COND, EPS, UNCOND, B, X, seed
from zigzag import DDIM, EndToEnd, ImplicitZ, Resampling, Standard, Z2Sampling, ZSampling, walk
from zigzag.moves import Denoise, Invert, Move, Renoise, Shift
from zigzag.paths import plan_path
from zigzag.solvers import LCM, AdamsBashforth, DPMSolver, FlowEuler, Solver

T = 6
each_name = pytest.mark.parametrize("name", SOLVERS)


def branches(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
    """ε of each branch depends on time and condition, and on the state not at all."""
    return (cond[:, None] + torch.cos(t.to(x.dtype))[:, None] * torch.sin(3 * cond)[:, None]).expand_as(x)


def steady(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
    """Nor on time."""
    return cond[:, None].expand_as(x)


def field(name: str) -> Any:
    """An Invert over a step of two evaluations takes one: only a field that is steady in time answers both alike."""
    return steady if name in TWO_STAGE else branches


# The order of each move ----------------------------------------------------------------------------------------------


def orders(path: Any, solver: Solver) -> list[int]:
    moves, steps = plan_path(path, solver)
    return [held.step.order for move, held in zip(moves, steps, strict=True)]


def solver(order: int) -> Solver:
    return DPMSolver.on(DDIM.stable_diffusion(T), order=order, lower_order_final=False)


UP = tuple(Invert(k + 1, k) for k in reversed(range(T)))
ORDERS: dict[str, tuple[Any, int, list[int]]] = {
    "standard": (Standard(), 3, [1, 2, 3, 3, 3, 3]),
    "Z": (ZSampling(steps=3), 3, [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3, 3]),
    "Z, rounds": (ZSampling(steps=2, rounds=2), 2, [1] * 5 + [2] * 5 + [2] * 4),
    "Z, span 2": (ZSampling(steps=2, span=2), 3, [1, 2, 2, 1, 1, 2, 3, 3, 2, 2, 3, 3, 3, 3]),
    "end to end": (EndToEnd(), 3, [1, 2, 3, 3, 3, 3, 3, 3, 3, 3, 2, 1, 1, 2, 3, 3, 3, 3]),
    "implicit": (ImplicitZ(steps=3), 3, [1, 1, 2, 2, 3, 3, 3, 3, 3]),
    "Z2": (Z2Sampling(warmup=1, steps=3), 2, [1, 2, 2, 2, 2, 2, 2, 2]),
    "resampling": (Resampling(steps=2), 2, [1, 1, 1, 2, 1, 1, 2, 2, 2, 2]),
    "up from data": ((*UP, Denoise(0, 1), Denoise(1, 2)), 3, [1] * 6 + [1, 2]),
    "up a little": ((*UP[:2], *(Denoise(k, k + 1) for k in (4, 5))), 2, [1, 1, 1, 2]),
    "from the middle": (tuple(Denoise(k, k + 1) for k in (2, 3, 4, 5)), 3, [1, 2, 3, 3]),
    "skipping": ((Denoise(0, 2), Denoise(2, 5), Invert(5, 0), Denoise(0, 5), Denoise(5, 6)), 3, [1, 2, 1, 1, 2]),
    "past what was left": (
        (*(Denoise(k, k + 1) for k in range(4)), Invert(4, 1), Denoise(1, 4), Denoise(4, 5)), 3, [1, 2, 3, 3, 2, 2, 3]
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ORDERS)
def test_the_order_of_every_move_follows_from_the_path(case: str) -> None:
    """One more than the knots above that the path has left since it last came up past them, or renoised."""
    path, order, want = ORDERS[case]
    assert orders(path, solver(order)) == want
    assert orders(path, solver(1)) == [1] * len(want)


def test_the_end_of_the_grid_lowers_the_order_again() -> None:
    base = DDIM.stable_diffusion(T)
    assert orders(Standard(), DPMSolver.on(base, order=3)) == [1, 2, 3, 3, 2, 1]
    clean = DDIM.stable_diffusion(T, spacing="linspace")  # a step onto σ = 0
    assert orders(Standard(), DPMSolver.on(clean, order=3, lower_order_final=False)) == [1, 2, 3, 3, 3, 1]
    long = DDIM.stable_diffusion(15)
    assert orders(Standard(), DPMSolver.on(long))[-2:] == [2, 2]
    assert orders(Standard(), DPMSolver.on(long, order=3, euler_at_final=True))[-2:] == [3, 1]
    assert orders(Standard(), AdamsBashforth.on(base, order=4))[-2:] == [4, 4]
    assert orders(Standard(), AdamsBashforth.on(base, order=4, lower_order_final=True)) == [1, 2, 3, 3, 2, 1]


# The collapse --------------------------------------------------------------------------------------------------------


def predictions(name: str, solver: Solver, i: int, w: float) -> Tensor:
    e_u, e_c = (field(name)(X, solver.times[i].expand(B), c) for c in (UNCOND, COND))
    return e_u + w * (e_c - e_u)


def down(i: int, j: int) -> tuple[Move, ...]:
    return tuple(Denoise(k, k + 1) for k in range(i, j))


def up(j: int, i: int) -> tuple[Move, ...]:
    return tuple(Invert(k + 1, k) for k in reversed(range(i, j)))


def check_collapse(name: str, solver: Solver, i: int, span: int, rounds: int, order: int = 9) -> None:
    """(Φ^span Ψ^span)^rounds at knot i adds rounds·Σ_m (b_m/Π_{l ≤ m} a_l)·gap_m: what is held cancels.

    Rounding: 32 units a move of the largest state, divided by the a's on the way up.
    """
    path = (*down(0, i), *((*down(i, i + span), *up(i + span, i)) * rounds))
    args = {"cond": COND, "uncond": UNCOND, "strong": 3.0, "weak": 0.5, "generator": seed()}
    states = [X, *(visit.state for visit in walk(field(name), X, solver, path, **args))]
    moved, a, lost = torch.zeros_like(X), 1.0, 1.0
    for m in range(i, i + span):
        step = solver.step(m, m + 1, range(m)[: order - 1])
        a = a * step.a
        lost = max(lost, 1 / abs(a))
        moved = moved + step.b / a * (predictions(name, solver, m, 3.0) - predictions(name, solver, m, 0.5))
    size = max(float(x.abs().max()) for x in states) + 10
    assert float((states[-1] - states[i] - rounds * moved).abs().max()) <= 32 * EPS * len(path) * lost * size
    assert float(moved.abs().max()) > 1e-3


SPANS = [(2, 1, 1), (1, 2, 2), (3, 3, 1)]


@each_name
@pytest.mark.parametrize(("i", "span", "rounds"), SPANS)
def test_down_and_up_again_adds_the_gaps_alone(name: str, i: int, span: int, rounds: int) -> None:
    check_collapse(name, make(name, "trailing", T), i, span, rounds)


@pytest.mark.parametrize("name", MULTISTEP)
def test_the_gaps_are_weighed_by_the_order_that_the_step_has(name: str) -> None:
    """Mutant: b/a of the first order."""
    with pytest.raises(AssertionError):
        check_collapse(name, make(name, "trailing", T), 2, 1, 1, order=1)


# Without a gap -------------------------------------------------------------------------------------------------------

METHODS = [
    ZSampling(), ZSampling(steps=3, rounds=2), ZSampling(span=3), EndToEnd(), ImplicitZ(), Z2Sampling(warmup=1),
]  # fmt: skip


def end(name: str, method: Any, solver: Solver, number: int, **scales: float) -> Tensor:
    args = {"cond": COND, "uncond": UNCOND, "generator": seed(number)} | scales
    *_, last = walk(field(name), X, solver, method, **args)
    return last.state


def check_nothing(name: str, method: Any, solver: Solver, number: int, strong: float, weak: float) -> None:
    """The end is that of Standard, drawn from the same generator: 32 units a move, divided by the a's on the way up."""
    plain = end(name, Standard(), solver, number, strong=strong)
    got = end(name, method, solver, number, strong=strong, weak=weak)
    lost = 1.0
    for i in range(T):
        lost = lost * max(1.0, 1 / abs(solver.step(i, i + 1, range(i)).a))
    size = float(plain.abs().max()) + 10
    assert float((got - plain).abs().max()) <= 32 * EPS * len(method.path(T)) * lost * size


@each_name
@pytest.mark.parametrize(("grid", "scale"), [("trailing", 0.0), ("flow", 2.0)])
def test_a_zigzag_without_a_gap_is_standard_sampling_under_any_generator(name: str, grid: str, scale: float) -> None:
    """strong = weak on a field that knows no state: nothing is left of τ₁ and τ₂, and all noise is held."""
    solver = make(name, "karras" if name in ON_EPSILON and grid == "flow" else grid, T)
    for number, method in enumerate(METHODS):
        check_nothing(name, method, solver, number, scale, scale)


def test_the_check_tells_a_gap_and_another_noise() -> None:
    """Mutants: a gap of a millionth; new noise for the Denoise that leaves the knot for good; Resampling."""
    base = DDIM.stable_diffusion(T)
    with pytest.raises(AssertionError):
        check_nothing("2M", ZSampling(), make("2M", "trailing", T), 0, 2.0, 2.0 + 1e-6)
    for cls in (DPMSolver, LCM):
        fresh = cls.on(base, fresh_noise=True, **({"sde": True} if cls is DPMSolver else {}))
        with pytest.raises(AssertionError):
            check_nothing("SDE-2M", ZSampling(), fresh, 0, 2.0, 2.0)
    with pytest.raises(AssertionError):
        check_nothing("SDE-2M", Resampling(), make("SDE-2M", "trailing", T), 0, 2.0, 2.0)


# Refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*MULTISTEP, *STOCHASTIC])
def test_the_released_inverse_has_no_place_for_what_is_held(name: str) -> None:
    message = refused("hold nothing of the step", solver=make(name, "karras", T), method=ZSampling(released=True))
    assert re.search(r"move 1 of the path, Invert\(j=1, i=0.*coefficients of \(1, 2\).*step 0 -> 1", message)
    assert "released=True needs a solver without memory or noise" in message


def test_nor_where_the_other_interval_has_no_noise_of_its_own() -> None:
    """The last step, onto clean data, adds none; the one that is undone by its coefficients does."""
    path = (Invert(T - 1, T - 2, 0, (T - 1, T)), Denoise(T - 2, T - 1))
    refused("released=True needs a solver without memory or noise", solver=make("eta 1", "karras", T), method=path)


def test_a_step_that_keeps_nothing_of_its_state_has_no_inverse() -> None:
    """Predicting x₀, LCM's boundary aside, a = 0; σ = 0 leaves nothing of x_i either."""
    base = DDIM.stable_diffusion(T)
    for solver in (
        LCM(base.alphas, base.sigmas, base.times, prediction="x0", sigma_data=0.0),
        DPMSolver(torch.ones(3), [2.0, 1.0, 0.0], [1.0, 0.5], prediction="x0"),
    ):
        i = 0 if isinstance(solver, LCM) else 1
        for path in ((Denoise(i, i + 1), Invert(i + 1, i)), (Shift(i, True), Denoise(i, i + 1)), (Invert(i + 1, i),)):
            refused(f"from knot {i} to {i + 1} has no inverse: a = 0", solver=solver, method=path)


def test_a_walk_from_pure_noise_by_epsilon_is_refused_before_the_model_is_asked() -> None:
    flow = FlowEuler.uniform(T)
    solver = DPMSolver(flow.alphas, flow.sigmas, flow.times)
    with pytest.raises(ValueError, match=r"move 0 of the path.*alpha is 0 at knot 0"):
        walk(untouched, X, solver, Standard(), cond=COND, uncond=UNCOND)
    assert orders((Renoise(T, 1), Denoise(1, 2)), solver) == [1, 1]
