"""What a method is held to."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zigzag.matched import matched_cfg
from zigzag.methods import Method, Standard, Steered
from zigzag.moves import Denoise, Invert, Move, Renoise, Shift
from zigzag.rows import row_bounds
from zigzag.sampling import sample
from zigzag.solvers import FlowEuler
from zigzag.strengths.base import NUMBER
from zigzag.testing.steps import near
from zigzag.trace import Trace

__all__ = ["check_method"]


def check_method(method: Method | Steered, T: int = 8) -> None:
    """Holds a method to what goes without saying of a path, on a flow of `T` steps.

    It begins at knot 0 and ends at knot `T`, and is the same path when it is asked for again. The rows that run are
    those that are counted beforehand, and the calls of the model. Where strong and weak guidance are one and the
    predictions do not depend on the state, a zigzag changes nothing: it is standard sampling; and where they are two,
    it is plain guidance at the matched scale. (Of the last two not: paths that renoise, that invert by other
    coefficients, or are plain in part.) Of a method that is steered by its walk there is no path beforehand, and
    neither the count nor the matched scale are looked at.

    Args:
        method: with `path(T)` or `steer(T)`. T: how many steps.

    Raises:
        AssertionError: for what does not hold. TypeError, ValueError: for a path that cannot be walked, as `sample`.
    """
    solver, trace = FlowEuler.uniform(T), Trace()
    x, c, u = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    asked: list[int] = []

    def constant(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        asked.append(len(x))
        return cond

    def run(fn: Any, path: Any, strong: Any, weak: Any, trace: Trace | None = None) -> Tensor:
        g = torch.Generator().manual_seed(1)
        return sample(fn, x, solver, path, cond=c, uncond=u, strong=strong, weak=weak, generator=g, trace=trace)

    zigzag = run(constant, method, 3.0, 0.5, trace)
    moves = [record.move for record in trace.records]
    _check_ends(method, moves, T)
    rows = sum(asked) / len(x)
    if trace.rows != rows:
        raise AssertionError(f"{method!r}: {rows:g} rows ran, but the trace has {trace.rows}")
    if isinstance(method, Method):
        if tuple(method.path(T)) != tuple(method.path(T)):
            raise AssertionError(f"{method!r}: path({T}) is another one when it is asked for again")
        fewest, most = row_bounds(method, T, 3.0, 0.5)
        if not fewest <= rows <= most:
            raise AssertionError(f"{method!r}: {rows:g} rows ran, but {fewest} to {most} were counted beforehand")
    if any(_changes(move) for move in moves):
        return
    plain = run(constant, Standard(), 3.0, 3.0)
    size = 1e-10 * (1 + plain.abs() + zigzag.abs()) * len(moves)
    near(run(constant, method, 3.0, 3.0), plain, size, f"{method!r}: without a gap it is not standard sampling")
    if isinstance(method, Method) and not any(_ruled(move) for move in moves):
        matched = matched_cfg(method, solver, 3.0, 0.5)
        near(
            zigzag,
            run(constant, Standard(), matched, 0.5),
            size,
            f"{method!r} is not plain guidance at its matched scale",
        )


def _check_ends(method: object, moves: list[Move], T: int) -> None:
    if moves[0].start != 0:
        raise AssertionError(f"{method!r}: the path begins at knot {moves[0].start}, not at noise, knot 0")
    if moves[-1].end != T:
        raise AssertionError(f"{method!r}: the path ends at knot {moves[-1].end}, not at data, knot {T}")


def _changes(move: Move) -> bool:
    """Whether it does more than to inject a gap."""
    match move:
        case Denoise(plain=plain):
            return plain
        case Invert(j, i, _, coefficients):
            return coefficients not in (None, (i, j))
    return isinstance(move, Renoise)


def _ruled(move: Move) -> bool:
    return isinstance(move, Shift) and not isinstance(move.strength, NUMBER)
