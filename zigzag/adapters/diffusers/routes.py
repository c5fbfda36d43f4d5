"""Where a method leads a part of a scheduler's grid, in the scheduler's own model calls."""

from __future__ import annotations

from collections.abc import Sequence

from zigzag.adapters.diffusers.layout import Part
from zigzag.adapters.diffusers.loop import asked_times, is_plain, moved, moves_of, stood_at
from zigzag.adapters.diffusers.plans import Plan
from zigzag.checks import plan_path
from zigzag.methods import Method, Standard
from zigzag.moves import Move

__all__ = ["asks_on", "is_standard", "path_on", "stood_on"]


def path_on(
    method: Method | Sequence[Move], plan: Plan | None, start: int, count: int
) -> tuple[tuple[Move, ...], Part]:
    """The moves on a part of the grid, of `count` times from `start` on, from its own knot 0; and where it is.

    plan: of the scheduler's steps; None where they are left to the scheduler.
    """
    part = Part(start, count) if plan is None else plan.layout.part(start, count)
    return moves_of(method, part.steps), part


def asks_on(method: Method | Sequence[Move], plan: Plan | None, start: int, count: int) -> Sequence[int]:
    """Of every model call on that part: which of its times the model is told."""
    path, part = path_on(method, plan, start, count)
    if is_plain(path) or plan is None:
        return range(count)
    laid, steps = plan_path([moved(move, part.knot) for move in path], plan.solver)
    return [plan.layout.call(told) - start for told in asked_times(laid, steps)]


def stood_on(method: Method | Sequence[Move], plan: Plan, start: int, count: int) -> list[int | None]:
    """Of every model call on that part: at which of the scheduler's calls its state stands; None where it is data."""
    path, part = path_on(method, plan, start, count)
    if is_plain(path):
        return [*range(start, start + count)]
    laid, steps = plan_path([moved(move, part.knot) for move in path], plan.solver)
    return [None if at is None else plan.layout.call(at) for at in stood_at(laid, steps, len(plan.solver))]


def is_standard(method: Method | Sequence[Move], steps: int | None = None) -> bool:
    """Whether the method is standard sampling, on so many steps, or whatever their number (None)."""
    if steps is None:
        return isinstance(method, Standard) or (isinstance(method, Sequence) and is_plain(method))
    try:
        return is_plain(moves_of(method, steps))
    except ValueError:
        return False
