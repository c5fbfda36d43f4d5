"""What is read off a scheduler before its first step: the solver that it is, or why it is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from zigzag.adapters.diffusers import refusals
from zigzag.adapters.diffusers.groups import Group, groups_of
from zigzag.adapters.diffusers.knots import Chain, chain_of, off_knots
from zigzag.adapters.diffusers.layout import Layout
from zigzag.adapters.diffusers.natives import native_of
from zigzag.adapters.diffusers.rehearsal import Rehearsal
from zigzag.adapters.diffusers.rehearsed import Rehearsed
from zigzag.adapters.diffusers.remedies import Refused
from zigzag.adapters.diffusers.stepping import NotLinear, corrects
from zigzag.solvers import Solver

__all__ = ["Plan", "levels_of", "plan_of"]

ELSEWHERE: Final = 1e-4  # off the next knot, of a step's terms: float32 tables and clamps of diffusers are below it


@dataclass(frozen=True)
class Plan:
    """A scheduler's steps.

    Attributes:
        solver: the library's own solver that makes them, where there is one; else `rehearsed`.
        rehearsed: the steps as they were read off the scheduler.
        corrected: whether the scheduler has a corrector, which was left out.
    """

    solver: Solver
    rehearsed: Rehearsed
    corrected: bool

    @cached_property
    def layout(self) -> Layout:
        """Where the knots are among the scheduler's calls."""
        return Layout(self.rehearsed)


def plan_of(scheduler: Any, step_kwargs: Mapping[str, Any] | None = None) -> Plan:
    """The plan of a scheduler on the grid that it has; it is neither stepped nor changed.

    A last step that does nothing, as it ends at the level that it starts from, is left out.

    Raises:
        ValueError: for steps that are not affine, or cannot be led, or do not lead from knot to knot from noise to
            data; with the reason, and what works, by having been tried.
    """
    try:
        return _plan_of(scheduler, step_kwargs)
    except Refused as refused:
        raise refused.with_remedy(_leads) from refused


def _leads(scheduler: Any) -> bool:
    """Whether its steps can be led."""
    try:
        _plan_of(scheduler, None)
    except ValueError:
        return False
    return True


def _plan_of(scheduler: Any, step_kwargs: Mapping[str, Any] | None) -> Plan:
    rehearsal = Rehearsal(scheduler, step_kwargs)
    try:
        mismatch = rehearsal.mismatch()
        while rehearsal.calls > 1 and rehearsal.rows()[-1].idle:
            rehearsal = Rehearsal(scheduler, step_kwargs, calls=rehearsal.calls - 1)
        rows = rehearsal.rows()
    except NotLinear as error:
        raise refusals.of_rehearsal(scheduler, error) from error
    if mismatch is not None:
        raise refusals.of_bending(scheduler, mismatch)
    chain = None
    try:
        chain = chain_of(rehearsal)
        if any(row.constant for row in rows):
            raise NotLinear("its steps add a constant")
        groups = groups_of(rehearsal, chain)
        if groups is None:
            raise NotLinear("the calls of one step cannot be told from those of the next")
        if chain is not None and _runs_up(chain):
            raise refusals.of_upward(scheduler)
        if chain is not None and (k := _leading_elsewhere(rehearsal, chain, groups)) is not None:
            raise refusals.of_leading(scheduler, k, chain)
        rehearsed = Rehearsed(rehearsal, chain, groups)
    except NotLinear as error:
        raise refusals.of_steps(scheduler, error) from error
    except ValueError as error:
        if chain is None or isinstance(error, Refused):
            raise
        raise refusals.of_grid(scheduler, chain, error) from error
    native = None if chain is None else native_of(rehearsed, chain, rehearsal.step_kwargs)
    return Plan(native or rehearsed, rehearsed, _corrects(scheduler, rehearsal))


def levels_of(scheduler: Any, plan: Plan | None) -> list[tuple[float, float]] | None:
    """`(α, σ)` of every knot of its grid, by its plan, which is made where there is none; None where none are read."""
    try:
        solver = (plan or plan_of(scheduler)).solver
    except ValueError:
        return None
    return [*zip(solver.alphas.tolist(), solver.sigmas.tolist(), strict=True)]


def _leading_elsewhere(rehearsal: Rehearsal, chain: Chain, groups: list[Group]) -> int | None:
    """The first step of one call that, taken alone, leads elsewhere than to the next knot.

    A knot of pure noise is left out, where a prediction may say nothing of the data; and so is the last step, which
    ends where it ends.
    """
    firsts = [first for first, last in groups[:-1] if first == last and chain.alphas[first] > ELSEWHERE]
    data, _ = off_knots(rehearsal.scheduler, [rehearsal.row(k, k) for k in firsts], chain)
    return next((k for k, off in zip(firsts, data, strict=True) if off > ELSEWHERE), None)


def _runs_up(chain: Chain) -> bool:
    return chain.alphas[0] * chain.sigmas[-1] > chain.alphas[-1] * chain.sigmas[0]


def _corrects(scheduler: Any, rehearsal: Rehearsal) -> bool:
    if not corrects(scheduler):
        return False
    with_it = Rehearsal(scheduler, rehearsal.step_kwargs, corrector=True, calls=rehearsal.calls)
    return any(with_it.row(k).terms() != rehearsal.row(k).terms() for k in range(rehearsal.calls))
