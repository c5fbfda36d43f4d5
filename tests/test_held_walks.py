"""Walks with memory and noise, as callers use them: traces, dtypes, gradients, callbacks, weak predictors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from support.held import SOLVERS, make
from support.oracle import Near, straight
from support.predictors import LIP, field
from support.sampling import COND, EPS, UNCOND, B, X, seed
from support.tensors import assert_within
from support.traces import norm
from zigzag import EndToEnd, ImplicitZ, Resampling, Standard, Trace, Visit, Z2Sampling, ZSampling, sample, walk
from zigzag.moves import Denoise, Invert
from zigzag.sampling import noise_like
from zigzag.solvers import Solver

T = 4
STRONG, WEAK = 2.0, 0.5
ARGS: dict[str, Any] = {"cond": COND, "uncond": UNCOND, "strong": STRONG, "weak": WEAK}
METHODS = [Standard(), Resampling(), EndToEnd(), ZSampling(refine=1), ZSampling(span=2), ImplicitZ(), Z2Sampling(1)]
CHOSEN = ["2M", "3M", "AB-3", "DEIS-3", "SDE-2M", "consistency"]
each_method = pytest.mark.parametrize("method", METHODS, ids=str)


def line(method: Any, solver: Solver, x: Tensor = X, **more: Any) -> list[Near]:
    generator = seed()
    return straight(method.path(T), solver, x, STRONG, WEAK, lambda x: noise_like(x, generator), **more)


# The trace -----------------------------------------------------------------------------------------------------------


def guided(solver: Solver, x: Tensor, i: int, w: float) -> Tensor:
    e_u, e_c = (field(x, solver.times[i].expand(B), c) for c in (UNCOND, COND))
    return e_u + w * (e_c - e_u)


def check_trace(solver: Solver, method: Any, first_order: bool = False) -> None:
    """x̃ − x = (b/a)(τ₁ + τ₂), τ₁ = e_s − e_w(x̃), τ₂ = e_w(x̃) − ē, of the step that was made, whatever it held.

    Bounds: units of the predictions, and of the states divided by a; a norm of n numbers costs n units.
    """
    trace, found = Trace(), 0
    visits = list(walk(field, X, solver, method, trace=trace, generator=seed(), **ARGS))
    states = [X, *(visit.state for visit in visits)]
    largest = max(float(x.abs().max()) for x in states) + 10
    for k, visit in enumerate(visits):
        if not isinstance(visit.move, Invert):
            continue
        found, i, x, back = found + 1, visit.move.i, states[k - 1], states[k + 1]
        step = solver.step(i, None, () if first_order else range(i))
        e_s, e_w, bar = visits[k - 1].prediction, guided(solver, back, i, WEAK), visit.prediction
        tau1, tau2, moved = e_s - e_w, e_w - bar, back - x
        on = 64 * EPS * largest * (1 + 1 / abs(step.a)) * (1 + abs(step.b))
        assert_within(moved, step.b / step.a * (tau1 + tau2), on)
        record = trace.records[k]
        assert_within(record.tau1, norm(tau1), 64 * EPS * largest)
        assert_within(record.tau2, norm(tau2), 64 * EPS * largest)
        assert_within(record.delta, norm(moved) ** 2, on * (2 * norm(moved) + on))
    assert found and trace.rows == visits[-1].rows


@pytest.mark.parametrize("name", SOLVERS)
def test_theorem_2_of_the_z_paper_holds_on_every_solver(name: str) -> None:
    solver = make(name, "trailing", T)
    for method in (ZSampling(), ZSampling(refine=2), ZSampling(rounds=2)):
        check_trace(solver, method)
    if solver.memory:
        with pytest.raises(AssertionError):  # mutant: b/a of the first order
            check_trace(solver, ZSampling(), first_order=True)


# Dtypes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", CHOSEN)
def test_memory_and_noise_are_carried_in_the_dtype_of_the_state(name: str, dtype: torch.dtype) -> None:
    """A walk in half precision is one in float32 whose model is shown a rounded state: to the bit, noise and all."""
    state, solver = torch.promote_types(dtype, torch.float32), make(name, "flow", T)

    def fn(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return field(x.to(dtype), t.to(state), cond).to(dtype)

    for method in (ZSampling(span=2), Z2Sampling(warmup=1)):
        visits: list[Visit] = []
        y = sample(fn, X.to(dtype), solver, method, generator=seed(), callback=visits.append, **ARGS)
        assert y.dtype == dtype and {visit.state.dtype for visit in visits} == {state}
        wide = sample(fn, X.to(dtype).to(state), solver, method, generator=seed(), **ARGS)
        assert torch.equal(y, wide.to(dtype)) and y.isfinite().all()


@pytest.mark.parametrize("name", ["2M", "3M", "AB-3", "DEIS-3"])
def test_a_walk_in_float32_is_that_in_float64_to_its_rounding(name: str) -> None:
    """The running bound of the straight line, in units of float32."""
    solver, method = make(name, "flow", T), ZSampling()
    visits = walk(field, X.float(), solver, method, **ARGS)
    unit = torch.finfo(torch.float32).eps
    for visit, near in zip(visits, line(method, solver, X.float().double()), strict=True):
        assert near.off / EPS * unit < 0.02 * (1 + near.size)
        assert_within(visit.state, near.value, 2 * near.off / EPS * unit)


# Gradients, callbacks, weak predictors -------------------------------------------------------------------------------


def check_gradient(solver: Solver, method: Any) -> None:
    """d‖x_T‖²/dx_0 is that of the straight line. The chain is rounded where the states are: some hundred times each."""
    x = X.clone().requires_grad_()
    y = sample(field, x, solver, method, generator=seed(), grad=True, **ARGS)
    (got,) = torch.autograd.grad(y.square().sum(), x)
    near = line(method, solver, x)[-1]
    (want,) = torch.autograd.grad(near.value.square().sum(), x)
    scale = float(want.abs().max()) + near.size**2
    assert near.off < 1e-8 * scale
    assert_within(got, want, 256 * near.off * scale)


@each_method
@pytest.mark.parametrize("name", CHOSEN)
def test_gradients_flow_through_memory_and_noise_as_through_the_straight_line(name: str, method: Any) -> None:
    solver = make(name, "cosine", T)
    check_gradient(solver, method)
    x = X.clone().requires_grad_()
    assert not sample(field, x, solver, method, generator=seed(), **ARGS).requires_grad


@each_method
@pytest.mark.parametrize("name", ["2M", "AB-3"])
def test_the_check_tells_a_memory_without_gradients(name: str, method: Any) -> None:
    solver = make(name, "cosine", T)
    remember = solver.remember
    solver.remember = lambda *args: remember(*args).detach()  # type: ignore[method-assign]
    with pytest.raises(AssertionError):
        check_gradient(solver, method)


@each_method
@pytest.mark.parametrize("name", CHOSEN)
def test_a_callback_replaces_the_state_and_not_what_is_remembered(name: str, method: Any) -> None:
    solver = make(name, "flow", T)
    visits = walk(field, X, solver, method, generator=seed(), callback=lambda visit: 0.9 * visit.state, **ARGS)
    for visit, near in zip(visits, line(method, solver, shrink=0.9), strict=True):
        assert_within(visit.state, near.value, 2 * near.off)
    plain = sample(field, X, solver, method, generator=seed(), **ARGS)
    assert not torch.allclose(plain, near.value)


def other(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
    return LIP * torch.cos(x - cond[:, None])


@each_method
@pytest.mark.parametrize("name", CHOSEN)
def test_a_weak_predictor_of_its_own_leaves_no_memory(name: str, method: Any) -> None:
    """What is remembered is of the strong predictions alone."""
    solver = make(name, "flow", T)
    visits = walk(field, X, solver, method, generator=seed(), weak_fn=other, **ARGS)
    for visit, near in zip(visits, line(method, solver, weak_fn=other), strict=True):
        assert_within(visit.state, near.value, 2 * near.off)


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("name", ["3M", "SDE-2M", "AB-3"])
def test_what_is_held_does_not_depend_on_batching_nor_on_the_rest_of_the_batch(name: str, batched: bool) -> None:
    """A sample alone is the sample in its batch, where nothing is drawn; batched or not, with noise too."""
    solver, method = make(name, "flow", T), ZSampling(span=2)
    y = sample(field, X, solver, method, generator=seed(), batched=batched, **ARGS)
    both = sample(field, X, solver, method, generator=seed(), batched=not batched, **ARGS)
    torch.testing.assert_close(y, both, rtol=0, atol=1e3 * EPS)
    if name != "SDE-2M":
        alone = sample(field, X[1:], solver, method, batched=batched, **ARGS | {"cond": COND[1:], "uncond": UNCOND[1:]})
        torch.testing.assert_close(alone, y[1:], rtol=0, atol=1e3 * EPS)


def test_a_shift_uses_the_step_of_the_order_that_the_denoise_after_it_has() -> None:
    """Implicit Z on 2M: x̃ = x + (b/a)·gap with a, b of order 2 from step 1 on."""
    solver = make("2M", "trailing", T)
    visits = list(walk(field, X, solver, ImplicitZ(), **ARGS))
    states = [X, *(visit.state for visit in visits)]
    for k, visit in enumerate(visits):
        if isinstance(visit.move, Denoise):
            continue
        i, x = visit.move.i, states[k]
        gap = guided(solver, x, i, STRONG) - guided(solver, x, i, WEAK)
        step, first = solver.step(i, None, range(i)), solver.step(i)
        want = x + step.b / step.a * gap
        assert_within(visit.state, want, 32 * EPS * (x.abs() + 1))
        assert i == 0 or not torch.allclose(want, x + first.b / first.a * gap)
