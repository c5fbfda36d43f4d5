"""A trace has a record of every move, with delta where a move comes back, at no evaluation more."""

from __future__ import annotations

import pytest
import torch

from support.mixtures import COND, NOISE, UNCOND
from support.traces import EPS, B, Model, T, each_solver, norm, traced
from zigzag import DDIM, EndToEnd, ImplicitZ, Method, Record, Resampling, Standard, Trace, Z2Sampling, ZSampling, sample
from zigzag.moves import Denoise, Invert, Shift
from zigzag.solvers import AdamsBashforth, Heun, Solver

METHODS = [
    Standard(),
    Resampling(),
    EndToEnd(),
    ZSampling(rounds=2),
    ZSampling(refine=2),
    ZSampling(span=2),
    ZSampling(released=True),
    ImplicitZ(),
    Z2Sampling(warmup=1),
]
each_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: str(m))


@each_solver
@each_method
def test_a_trace_is_a_record_per_move_and_costs_nothing(method: object, name: str) -> None:
    """(move, knot, model time, rows) of every move; rows and bits are those of a walk without a trace."""
    model, plain = Model(name), Model(name)
    visits, trace = traced(model, method)
    rng = torch.Generator().manual_seed(0)
    x = sample(plain, NOISE, plain.solver, method, cond=COND, uncond=UNCOND, strong=3.0, weak=0.0, generator=rng)
    assert torch.equal(x, visits[-1].state)
    assert trace.rows == model.rows == plain.rows == visits[-1].rows
    before = 0
    for record, visit in zip(trace.records, visits, strict=True):
        assert isinstance(record, Record) and record.move == visit.move and record.knot == visit.knot
        assert record.rows == visit.rows - before
        before = visit.rows
        asked = isinstance(visit.move, Denoise | Invert) or (isinstance(visit.move, Shift) and visit.move.fresh)
        assert record.time == (model.solver.times[visit.move.i].item() if asked else None)
        for value in (record.delta, record.tau1, record.tau2):
            assert value is None or (value.shape == (B,) and value.device == x.device and not value.requires_grad)


def test_a_record_has_the_order_of_its_move() -> None:
    """Both ways over an interval read the same memory; a Renoise leaves none, and second evaluations count too."""
    model, T = Model("ddim"), 5
    grid = DDIM.stable_diffusion(T)

    def orders(method: Method, solver: Solver) -> list[int | None]:
        trace = Trace()
        sample(model, NOISE, solver, method, cond=COND, uncond=UNCOND, strong=3.0, weak=0.0, trace=trace)
        return [record.order for record in trace.records]

    ab3, ab2 = (AdamsBashforth.on(grid, order=k) for k in (3, 2))
    assert orders(ZSampling(), ab3) == [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3]
    assert orders(Resampling(), ab2) == [1, None, 1, *([2, None, 1] * 3), 2]
    assert orders(Z2Sampling(warmup=2), Heun.on(grid)) == [2, 2, 1, 2, 1, 2, 1, 1]  # the last step is Euler's
    assert orders(Standard(), grid) == [1] * T


@each_solver
@pytest.mark.parametrize("method", [ImplicitZ(), Z2Sampling(warmup=1)], ids=lambda m: type(m).__name__)
def test_the_delta_of_a_shift_is_how_far_it_shifts(method: object, name: str) -> None:
    """delta = |x~ - x|^2 = (b/a)^2 |gap|^2, gap = e_s - e_w where it was evaluated."""
    model = Model(name)
    visits, trace = traced(model, method)
    states, anchor = [NOISE, *(v.state for v in visits)], {}
    shifts = 0
    for k, (visit, record) in enumerate(zip(visits, trace.records, strict=True)):
        i, x = visit.move.i, states[k]
        if isinstance(visit.move, Denoise) or visit.move.fresh:
            anchor["gap"] = model.guided(x, i, 3.0) - model.guided(x, i, 0.0)
        if isinstance(visit.move, Shift):
            shifts += 1
            step = model.solver.step(i)
            want = norm(step.b / step.a * anchor["gap"]).square()
            slack = 256 * EPS * (1 + float(x.abs().max())) ** 2
            assert float((record.delta - norm(states[k + 1] - x).square()).abs().max()) <= slack
            assert float((record.delta - want).abs().max()) <= slack + 256 * EPS * float(want.max())
            assert float(record.delta.min()) > 0
        else:
            assert record.delta is None
    assert shifts == (T if isinstance(method, ImplicitZ) else T - 1)


@each_solver
@pytest.mark.parametrize("method", [ZSampling(steps=1, span=3), EndToEnd()], ids=lambda m: type(m).__name__)
def test_a_long_zigzag_reports_delta_where_it_comes_back(method: object, name: str) -> None:
    """The last Invert of a span is back at the knot where it began: delta = |x~_0 - x_0|^2, and no tau."""
    model = Model(name)
    visits, trace = traced(model, method)
    (k,) = [k for k, v in enumerate(visits) if v.move == Invert(1, 0)]
    want = norm(visits[k].state - NOISE).square()
    slack = 64 * EPS * (float(want.max()) + float(NOISE.abs().max()))
    assert float((trace.records[k].delta - want).abs().max()) <= slack and float(want.min()) > 100 * slack
    assert trace.records[k].tau1 is None and trace.records[k].tau2 is None
