"""A loop on tables that holds the wrong thing is told from `sample`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

from support.tables import COND, UNCOND, X, check_same, eps_fn, generator
from zigzag import DDIM, Standard, Z2Sampling, ZSampling, sample
from zigzag.capture import graphs
from zigzag.capture.graphs import TableLoop
from zigzag.capture.rows import plan_rows
from zigzag.capture.table import LEFT, Carry, Kind, Plan, Row, step_function
from zigzag.checks import Settled
from zigzag.held import steps_of
from zigzag.solvers import DPMSolver, Heun, Solver

T = 6
GRID = DDIM.stable_diffusion(T, spacing="trailing")
ETA = DDIM.stable_diffusion(T, spacing="trailing", eta=1.0)
FRESH = DDIM.stable_diffusion(T, spacing="trailing", eta=1.0, fresh_noise=True)
ONE, TWO, THREE = (DPMSolver.on(GRID, order=order, lower_order_final=False) for order in (1, 2, 3))
HEUN = Heun.on(GRID)

Rows = Callable[[Settled, Solver], list[Row]]


def each(change: Callable[[Row], Row]) -> Rows:
    return lambda *given: [change(row) for row in plan_rows(*given)]


def on_the_way_up(change: Callable[[Row], Row]) -> Rows:
    """Only an inversion asks for the unconditional branch alone."""
    return each(lambda row: change(row) if row.kind.branches == ("uncond",) else row)


def of_another(solver: Solver) -> Rows:
    """With the steps of another solver on the same grid."""
    return lambda settled, own: plan_rows(settled._replace(steps=steps_of(settled.path, solver)), own)


def redrawn(row: Row) -> Row:
    return row if row.noise is None else row._replace(noise=row.noise._replace(draws=True))


def told_the_first_time(*given: Any) -> list[Row]:
    rows = plan_rows(*given)
    return [row._replace(t=rows[k - 1].t) if row.kind.adds_anchor else row for k, row in enumerate(rows)]


MUTANTS: dict[str, tuple[Solver, Any, Rows]] = {
    "a slot is not written": (
        THREE, Z2Sampling(2), each(lambda row: row._replace(left=(0.0,) * 8)),
    ),
    "all goes into one slot": (THREE, Z2Sampling(2), each(lambda row: row._replace(into=1))),
    "what nobody reads goes into a slot that is read": (TWO, ZSampling(), each(lambda row: row._replace(into=0))),
    "the slots are mistaken for each other": (THREE, Z2Sampling(2), each(lambda row: row._replace(h=row.h[::-1]))),
    "the slots gathered are others": (
        TWO, ZSampling(span=2), each(lambda row: row._replace(slots=tuple(1 - min(slot, 1) for slot in row.slots))),
    ),
    "memory is not read on the way up": (
        TWO, ZSampling(), on_the_way_up(lambda row: row._replace(h=(0.0,) * len(row.h))),
    ),
    "memory is added on the way up": (
        TWO, ZSampling(), on_the_way_up(lambda row: row._replace(h=tuple(-h for h in row.h))),
    ),
    "order 1 in place of 2": (TWO, Z2Sampling(2), of_another(ONE)),
    "order 2 in place of 3": (THREE, Z2Sampling(2), of_another(TWO)),
    "order 3 in place of 2": (TWO, Z2Sampling(2), of_another(THREE)),
    "what is remembered lacks the state": (
        TWO, Z2Sampling(2), each(lambda row: row._replace(left=(0.0, *row.left[1:]))),
    ),
    "noise is drawn anew on the way up": (ETA, ZSampling(), on_the_way_up(redrawn)),
    "noise is drawn anew by every move": (ETA, ZSampling(), each(redrawn)),
    "noise is held where it is to be fresh": (FRESH, ZSampling(), of_another(ETA)),
    "noise is added on the way up": (ETA, ZSampling(), on_the_way_up(lambda row: row._replace(n=-row.n))),
    "the anchor is forgotten": (HEUN, Z2Sampling(2), each(lambda row: row._replace(q=0.0))),
    "the second evaluation is told the first one's time": (HEUN, Standard(), told_the_first_time),
}  # fmt: skip


def check(solver: Solver, method: Any) -> None:
    given = {"cond": COND, "uncond": UNCOND}
    expected = sample(eps_fn, X, solver, method, generator=generator(), **given)
    check_same(TableLoop(eps_fn, X, solver, method, **given)(X, generator=generator()), expected)


@pytest.mark.parametrize("name", list(MUTANTS))
def test_a_mutant_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    solver, method, rows = MUTANTS[name]
    check(solver, method)
    monkeypatch.setattr(graphs, "plan_rows", rows)
    with pytest.raises(AssertionError):
        check(solver, method)


def test_what_is_remembered_is_of_the_state_before_the_shift(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(kind: Kind, plan: Plan, *given: Any) -> Callable[..., Any]:
        step = step_function(kind, plan, *given)

        def after(k: Tensor, carry: Carry, noise: Tensor) -> None:
            old = carry.x.clone()
            step(k, carry, noise)
            if kind.leaves:
                late = plan.numbers[k, LEFT] * (carry.x - old)
                carry.memory.index_add_(0, plan.into[k], late.unsqueeze(0))

        return after

    monkeypatch.setattr(graphs, "step_function", late)
    with pytest.raises(AssertionError):
        check(TWO, Z2Sampling(2))
