"""Heun and DPM2: one step of two evaluations, its rows, its gap, and the inverse that takes one."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from support.held import inner_level, make
from support.predictors import LIP, field
from support.sampling import COND, EPS, UNCOND, B, X
from support.tensors import assert_within
from zigzag import (
    CFG,
    CFGPlusPlus,
    EndToEnd,
    ImplicitZ,
    Interval,
    Resampling,
    Standard,
    Trace,
    Z2Sampling,
    ZSampling,
    sample,
    walk,
)
from zigzag.moves import Denoise, Invert, Shift
from zigzag.solvers import Solver

T = 5
STRONG, WEAK = 2.0, 0.5
ARGS: dict[str, Any] = {"cond": COND, "uncond": UNCOND, "strong": STRONG, "weak": WEAK}
GRIDS = ["leading", "karras", "flow", "cosine"]
each_name = pytest.mark.parametrize("name", ["Heun", "DPM2"])
each_grid = pytest.mark.parametrize("grid", GRIDS)


def guided(x: Tensor, t: float, w: float) -> Tensor:
    told = torch.full((B,), t, dtype=X.dtype)
    e_u, e_c = field(x, told, UNCOND), field(x, told, COND)
    return e_u + w * (e_c - e_u)


def halves(name: str, solver: Solver, x: Tensor, i: int, w: float) -> tuple[Tensor, Tensor, Tensor | None]:
    """x_j, and the two predictions, as the papers write it: Karras et al., Algorithm 1, on ε; velocities for a flow.

    In ε: d = (x/α)' by k is ε, so x_j/α_j = x_i/α_i + (k_j − k_i)·((1 − θ)·ε_1 + θ·ε_2), ε_2 at the Euler state.
    """
    al, si, times = solver.alphas.tolist(), solver.sigmas.tolist(), solver.all_times
    alpha, sigma, alpha_j, sigma_j = al[i], si[i], al[i + 1], si[i + 1]
    e_1 = guided(x, times[i], w)
    if i == len(solver) - 1:
        s, t = (alpha_j, sigma_j), None
    elif name == "Heun":
        s, t, theta = (alpha_j, sigma_j), times[i + 1], 0.5
    else:
        s, t, theta = inner_level(solver, i, i + 1), times[len(solver) + i], 1.0
    if solver.prediction == "flow":
        y = x + (s[1] - sigma) * e_1
        if t is None:
            return y, e_1, None
        e_2 = guided(y, t, w)
        return x + (sigma_j - sigma) * ((1 - theta) * e_1 + theta * e_2), e_1, e_2

    def epsilon(x: Tensor, e: Tensor, alpha: float, sigma: float) -> Tensor:
        return e if solver.prediction == "epsilon" else sigma * x + alpha * e  # v, on the circle

    k, k_j = sigma / alpha, sigma_j / alpha_j
    one = epsilon(x, e_1, alpha, sigma)
    y = s[0] * (x / alpha + (s[1] / s[0] - k) * one)
    if t is None:
        return y, e_1, None
    e_2 = guided(y, t, w)
    two = epsilon(y, e_2, *s)
    return alpha_j * (x / alpha + (k_j - k) * ((1 - theta) * one + theta * two)), e_1, e_2


def bound(solver: Solver, moves: int = 2 * T) -> float:
    """16 units a move of the largest state, grown by |a| + |b|·Lip and 1/|a| on the way."""
    steps = [solver.step(i) for i in range(T)]
    growth = 1.0
    for step in steps:
        growth *= (abs(step.a) + 3 * LIP * abs(step.b)) * max(1.0, 1 / abs(step.a))
    return 64 * EPS * moves * growth * (10 + float(solver.sigmas.max()))


@each_grid
@each_name
def test_a_walk_down_is_the_two_halves_of_each_step(name: str, grid: str) -> None:
    solver, x = make(name, grid, T), X
    for i, visit in enumerate(walk(field, X, solver, Standard(), **ARGS)):
        before, (x, e_1, e_2) = x, halves(name, solver, x, i, STRONG)
        step, inner = solver.step(i), solver.inner(i, i + 1)
        assert (inner is None) == (e_2 is None) == (i == T - 1)
        e = e_1 if inner is None else (1 - inner.weight) * e_1 + inner.weight * e_2
        assert_within(visit.state, x, bound(solver))
        assert_within(step.a * before + step.b * e, x, bound(solver))
        assert_within(visit.prediction, e, bound(solver) * (1 + abs(0 if inner is None else inner.weight)))


@each_grid
@each_name
def test_the_check_of_the_halves_refuses_one_half(name: str, grid: str) -> None:
    """Mutants: the first-order step, and the other of the two solvers."""
    solver = make(name, grid, T)
    x, _, _ = halves(name, solver, X, 1, STRONG)
    plain = make("DPM-1", grid, T).step(1)
    other = "DPM2" if name == "Heun" else "Heun"
    second, _, _ = halves(other, make(other, grid, T), X, 1, STRONG)
    first = plain.forward(X, guided(X, solver.all_times[1], STRONG))
    for mutant in (first, second):
        with pytest.raises(AssertionError):
            assert_within(mutant, x, bound(solver))


class Counted:
    """The field, with its rows and the times it was told counted."""

    def __init__(self) -> None:
        self.rows, self.told = 0.0, list[float]()

    def __call__(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        self.rows += len(x) / B
        self.told.append(float(t[0]))
        return field(x, t, cond)


# Every Φ but the last of the grid takes two evaluations, every Ψ and fresh Shift one; and both branches each, or one.
ROWS: dict[str, tuple[Any, Callable[[int], int]]] = {
    "standard": (Standard(), lambda T: 2 * (2 * T - 1)),
    "Z": (ZSampling(), lambda T: 2 * (2 * T - 1) + (T - 1) * (4 + 2)),
    "Z, refined": (ZSampling(refine=2), lambda T: 2 * (2 * T - 1) + (T - 1) * (4 + 6)),
    "end to end": (EndToEnd(), lambda T: 2 * 2 * (2 * T - 1) + 2 * T),
    "implicit": (ImplicitZ(), lambda T: 2 * (2 * T - 1) + 2 * T),
    "Z2": (Z2Sampling(warmup=1), lambda T: 2 * (2 * T - 1)),
    "resampling": (Resampling(), lambda T: 2 * (2 * T - 1) + 4 * (T - 1)),
}


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("case", ROWS)
@each_name
def test_the_rows_of_two_evaluations_are_those_that_run(name: str, case: str, batched: bool) -> None:
    method, want = ROWS[case]
    model, trace = Counted(), Trace()
    visits = list(walk(model, X, make(name, "karras", T), method, batched=batched, trace=trace, **ARGS))
    assert model.rows == trace.rows == visits[-1].rows == want(T)


@each_name
def test_one_branch_is_evaluated_where_the_scale_needs_one(name: str) -> None:
    model = Counted()
    sample(model, X, make(name, "karras", T), ZSampling(), cond=COND, strong=1.0, weak=1.0)
    assert model.rows == (2 * T - 1) + (T - 1) * 3


@each_name
def test_the_model_is_told_the_time_of_the_level_it_is_asked_at(name: str) -> None:
    """Heun: t_i, t_{i+1}; DPM2: t_i and the time between; Ψ that of the knot it returns to."""
    model, solver = Counted(), make(name, "karras", T)
    sample(model, X, solver, (*Standard().path(T), Invert(T, T - 1), Invert(T - 1, T - 2)), batched=True, **ARGS)
    times = solver.times.tolist()
    second = times[1:] if name == "Heun" else [(a + b) / 2 for a, b in pairwise(times)]
    want = [t for pair in zip(times[:-1], second, strict=True) for t in pair] + [times[-1], times[-1], times[-2]]
    assert model.told == pytest.approx(want, rel=1e-12)


@each_grid
@each_name
def test_an_inversion_takes_one_evaluation_and_undoes_the_whole_step(name: str, grid: str) -> None:
    """x_i = c·x_j + d·e_w(x_j, t_i), with a and b of the whole."""
    solver, model = make(name, grid, T), Counted()
    visits = list(walk(model, X, solver, (Denoise(0, 1), Denoise(1, 2), Invert(2, 1)), **ARGS))
    x_j, step = visits[1].state, solver.step(1)
    want = (x_j - step.b * guided(x_j, solver.all_times[1], WEAK)) / step.a
    assert_within(visits[2].state, want, bound(solver))
    assert visits[2].rows - visits[1].rows == 2
    with pytest.raises(AssertionError):  # mutant: the neighbouring interval
        assert_within(solver.step(2).inverse(x_j, visits[2].prediction), want, bound(solver))
    if solver.prediction == "v":  # of ε and of a flow a and b are those of the first order, b_1 + b_2 = b
        half = make("DPM-1", grid, T).step(1)
        with pytest.raises(AssertionError):
            assert_within(half.inverse(x_j, visits[2].prediction), want, bound(solver))


@each_grid
@each_name
def test_the_gap_that_is_cached_is_that_of_the_second_evaluation(name: str, grid: str) -> None:
    """A Shift after a Φ moves by (b/a)·gap, gap = e_s − e_w at the inner state: of Heun, the knot's own time."""
    solver = make(name, grid, T)
    visits = list(walk(field, X, solver, (Denoise(0, 1), Shift(1, False)), **ARGS))
    inner = solver.inner(0, 1)
    assert inner is not None
    y = inner.first.forward(X, guided(X, solver.all_times[0], STRONG))
    t, step = solver.all_times[inner.told], solver.step(1)
    gap = guided(y, t, STRONG) - guided(y, t, WEAK)
    assert_within(visits[1].state, visits[0].state + step.b / step.a * gap, bound(solver))
    first = guided(X, solver.all_times[0], STRONG) - guided(X, solver.all_times[0], WEAK)
    with pytest.raises(AssertionError):  # mutant: the gap of the first evaluation
        assert_within(visits[1].state, visits[0].state + step.b / step.a * first, bound(solver))


@each_name
def test_a_weak_predictor_of_its_own_is_asked_at_both_states_where_the_gap_is_cached(name: str) -> None:
    strong, weak = Counted(), Counted()
    solver = make(name, "karras", T)
    sample(strong, X, solver, Z2Sampling(warmup=1), weak_fn=weak, **ARGS)
    assert strong.rows == 2 * (2 * T - 1) and weak.rows == 2 * 2 * (T - 1)


@each_name
def test_a_rule_is_asked_for_the_scale_of_the_step_at_both_evaluations(name: str) -> None:
    """Which branches are needed is then known before the first call, also where a scale is of one level alone."""
    solver, seen = make(name, "karras", 3), []

    def scale(step: Any) -> float:
        seen.append(step)
        return 2.0

    sample(field, X, solver, Standard(), cond=COND, uncond=UNCOND, strong=CFG(scale))
    assert set(seen) == {solver.info(i) for i in range(3)}
    inner = make("DPM2", "karras", 4)._levels[1][1]
    model = Counted()
    sample(
        model, X, make(name, "karras", 4), Standard(), cond=COND, strong=CFG(lambda step: 1.0 + (step.sigma_i == inner))
    )
    assert model.rows == 7


@each_name
def test_cfg_plus_plus_renoises_with_the_unconditional_prediction_of_the_whole_step(name: str) -> None:
    """x_j = (α_j/α_i)·(x − σ_i·ε_λ) + σ_j·ε_∅, both averaged over the evaluations; on a constant field."""
    solver, lam = make(name, "leading", T), 0.6

    def constant(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return cond[:, None].expand_as(x)

    x, e_u, e_c = X, UNCOND[:, None], COND[:, None]
    for visit in walk(constant, X, solver, Standard(), cond=COND, uncond=UNCOND, strong=CFGPlusPlus(lam)):
        at = solver.info(visit.move.i)
        x = at.alpha_j / at.alpha_i * (x - at.sigma_i * (e_u + lam * (e_c - e_u))) + at.sigma_j * e_u
        assert_within(visit.state, x, bound(solver))


@each_name
def test_an_interval_of_guidance_goes_by_the_step_and_not_by_the_half(name: str) -> None:
    model = Counted()
    strong = Interval(CFG(2.0), start=1, stop=2)
    sample(model, X, make(name, "karras", T), Standard(), cond=COND, uncond=UNCOND, strong=strong)
    assert model.rows == (2 * T - 1) + 2


@each_name
def test_gradients_of_two_evaluations_are_right(name: str) -> None:
    solver = make(name, "flow", 3)

    def end(x: Tensor) -> Tensor:
        return sample(field, x, solver, ZSampling(), grad=True, **ARGS)

    assert torch.autograd.gradcheck(end, X[:, :1].clone().requires_grad_(), rtol=1e-3)
