"""The cost of a method, counted by walking its path."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from zigzag.guidance import Guidance
from zigzag.guidance.base import batch_of
from zigzag.methods import Method
from zigzag.moves import Invert, Move, Tol
from zigzag.paths import resolve_path
from zigzag.sampling import sample
from zigzag.solvers import FlowEuler, Solver
from zigzag.trace import Trace

__all__ = ["count_rows", "row_bounds"]


def count_rows(
    method: Method | Sequence[Move],
    steps: int | Solver,
    strong: float | Guidance = 5.5,
    weak: float | Guidance = 0.0,
    own_weak: bool | Collection[str] = False,
    plain: float | Guidance | None = None,
    own_plain: bool | Collection[str] = False,
) -> int:
    """The model rows per sample that a method takes on a grid of `steps` steps: those that run when it is walked.

    The rows depend on the path and on the branches that the guidances need. On the solver they depend where its steps
    make two evaluations (`Heun`), or a guidance's scale depends on α and σ: then pass the solver itself.

    Where inversions are refined to a tolerance (`Tol`), the rows depend on the model: `row_bounds` has the fewest and
    the most.

    Args:
        method: one of `zigzag.methods`, or a tuple of moves that connect.
        steps: how many, or the solver that has them.
        strong, weak: the guidances, as in `walk`.
        own_weak: whether weak predictions are of another predictor, `weak_fn`; or which conditions of their own they
            have, `("cond",)`, say, for `weak_cond`.
        plain, own_plain: the same of plain steps.

    Raises:
        TypeError, ValueError: as `walk`, and for rows that are not known beforehand.
    """
    fewest, most = row_bounds(method, steps, strong, weak, own_weak, plain, own_plain)
    if fewest != most:
        raise ValueError(
            f"{method!r} takes as many rows as its inversions need to converge, from {fewest} to {most}: "
            "sample(…, trace=trace) counts those that ran, in trace.rows"
        )
    return most


def row_bounds(
    method: Method | Sequence[Move],
    steps: int | Solver,
    strong: float | Guidance = 5.5,
    weak: float | Guidance = 0.0,
    own_weak: bool | Collection[str] = False,
    plain: float | Guidance | None = None,
    own_plain: bool | Collection[str] = False,
) -> tuple[int, int]:
    """The fewest and the most model rows per sample that a method takes. Everything else is as in `count_rows`.

    They differ where inversions are refined to a tolerance: between one evaluation and `most`.
    """
    batches = [batch for rule in (strong, weak, plain) if (batch := batch_of(rule)) is not None]
    trace, x = Trace(), torch.zeros(*batches[:1] or [1], 1, device="cpu")
    solver = steps if isinstance(steps, Solver) else FlowEuler.uniform(steps)
    path = resolve_path(method, solver)
    more = [move.refine.most - 1 if isinstance(move, Invert) and isinstance(move.refine, Tol) else 0 for move in path]
    once = [
        replace(move, refine=0) if k and isinstance(move, Invert) else move for k, move in zip(more, path, strict=True)
    ]
    sample(
        _silent, x, solver, once if any(more) else method, cond=None, uncond=None, strong=strong, weak=weak,
        plain=plain, trace=trace, **_own(own_weak, own_plain),
    )  # fmt: skip
    return trace.rows, trace.rows + sum(k * record.rows for k, record in zip(more, trace.records, strict=True))


def _silent(x: Tensor, t: Tensor, cond: object) -> Tensor:
    return x


def _own(own_weak: bool | Collection[str], own_plain: bool | Collection[str]) -> dict[str, Any]:
    """The arguments of `sample` that say whose predictor and conditions the two roles have."""
    other: dict[str, Any] = {}
    for role, own in (("weak", own_weak), ("plain", own_plain)):
        if isinstance(own, bool):
            other[f"{role}_fn"] = _silent if own else None
        elif isinstance(own, str) or (unknown := set(own) - {"cond", "uncond"}):
            got = own if isinstance(own, str) else sorted(unknown)
            raise ValueError(f"own_{role} must be a bool, or of cond and uncond, as ('cond',) is, got {got!r}")
        else:
            other |= {f"{role}_{branch}": object() for branch in own}
    return other
