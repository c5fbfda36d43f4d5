"""Paths, checked move by move: those of methods, which are known before the first model call, and users' own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from zigzag.guidance.base import finite
from zigzag.held import HeldStep, steps_of
from zigzag.methods import Method, is_steered
from zigzag.moves import Denoise, Invert, Move, Shift, Tol
from zigzag.solvers import Solver
from zigzag.strengths.base import NUMBER, check_strength

__all__ = ["check_cached", "check_move", "plan_path", "resolve_path"]

Plan: TypeAlias = tuple[tuple[Move, ...], list[HeldStep]]

MOST_KEPT = 16  # a sweep over a strength would keep one for each


def resolve_path(method: object, solver: Solver) -> tuple[Move, ...]:
    """The moves of a method on the grid of `solver`, or a user's own, checked as in `plan_path`."""
    return plan_path(method, solver)[0]


def plan_path(method: object, solver: Solver) -> Plan:
    """The moves of a method on the grid of `solver`, or a user's own, checked move by move, and their steps.

    What was planned for a method of this library is kept for the next walk on the solver: such methods are values, and
    a grid never changes. One with a rule in it is no value: rules that are equal need not act alike.

    Raises:
        TypeError: for what is neither a method nor moves, and for a method that is steered by its walk.
        ValueError: for a path that is empty, leaves the grid, does not connect, needs a step or an inverse that does
            not exist, or shifts by a gap that nothing has cached.
    """
    if type(method).__module__ != Method.__module__ or not isinstance(getattr(method, "strength", 1.0), NUMBER):
        return _plan(method, solver)
    kept, key = solver.plans, (method, solver.fresh_noise)
    known: Plan | None = kept.get(key)
    if known is None:
        known = _plan(method, solver)
        if len(kept) >= MOST_KEPT:
            kept.clear()
        kept[key] = known
    return known


def _plan(method: object, solver: Solver) -> Plan:
    if isinstance(method, Method) and not isinstance(method, type):
        path = tuple(method.path(len(solver)))
    elif is_steered(method):
        raise TypeError(
            f"{method!r} is steered by its walk: its path, and so its rows and its matched scale, are not known "
            "beforehand; use sample or walk, and a trace for the rows that ran"
        )
    elif isinstance(method, Iterable) and not isinstance(method, str):
        path = tuple(method)
    else:
        raise TypeError(f"method must have path(T) or be a tuple of moves, got {method!r}")
    if not path:
        raise ValueError("method: the path has no moves")
    for k, move in enumerate(path):
        check_move(path, k, move)
    steps = steps_of(path, solver)
    k = next((k for k, move in enumerate(path) if isinstance(move, Denoise | Shift)), 0)
    check_cached(k, path[k])  # the first that could leave a gap: what comes later has one
    return path, steps


def check_move(path: Sequence[Move], k: int, move: Move) -> None:
    """Holds `move`, number `k` of a path, against those before it.

    Raises:
        TypeError, ValueError: for what is no move, does not connect, or has another refinement or strength than there
            may be.
    """
    if not isinstance(move, Move):
        raise TypeError(f"move {k} of the path must be Denoise, Invert, Shift or Renoise, got {move!r}")
    start = move.start
    if not (isinstance(start, int) and isinstance(move.end, int)):
        raise TypeError(f"move {k} of the path, {move!r}, must go from knot to knot by integers")
    if k and start != path[k - 1].end:
        raise ValueError(
            f"the path does not connect: move {k}, {move!r}, starts at knot {start}, "
            f"but {path[k - 1]!r} before it ends at knot {path[k - 1].end}"
        )
    if isinstance(move, Shift):
        check_strength(move.strength, "move {} of the path, {!r}", k, move)
    elif isinstance(move, Invert):
        _check_inversion(path, k, move)


def _check_inversion(path: Sequence[Move], k: int, move: Invert) -> None:
    n = move.refine
    if not isinstance(n, Tol) and not (isinstance(n, int) and n >= 0):
        raise ValueError(
            f"move {k} of the path, {move!r}: refine must be an integer of at least 0, or Tol(1e-4), got {n!r}"
        )
    if move.strength != 1:
        finite(f"move {k} of the path, {move!r}: strength", move.strength)
        since = [m for m in path[:k] if isinstance(m, Denoise | Invert) and move.end in (m.start, m.end)]
        if not any(isinstance(m, Denoise) and m.start == move.end for m in since[-1:]):
            raise ValueError(
                f"move {k} of the path, {move!r}: a strength other than 1 is of what a zigzag moves the state by, "
                f"and no Denoise from knot {move.end} begins one"
            )


def check_cached(k: int, move: Move) -> None:
    """Raises ValueError for a cached Shift, as move `k`, where no Denoise or Shift comes before it."""
    if isinstance(move, Shift) and not move.fresh:
        raise ValueError(
            f"move {k} of the path, {move!r}, needs a cached gap, but no Denoise or fresh Shift comes before it"
        )
