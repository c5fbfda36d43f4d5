"""The cost of a method, counted by walking its path."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from zigzag.guidance import Guidance
from zigzag.methods import Method
from zigzag.moves import Move
from zigzag.sampling import sample
from zigzag.solvers import FlowEuler, Solver
from zigzag.trace import Trace

__all__ = ["count_rows"]


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

    Args:
        method: one of `zigzag.methods`, or a tuple of moves that connect.
        steps: how many, or the solver that has them.
        strong, weak: the guidances, as in `walk`.
        own_weak: whether weak predictions are of another predictor, `weak_fn`; or which conditions of their own they
            have, `("cond",)`, say, for `weak_cond`.
        plain, own_plain: the same of plain steps.

    Raises:
        TypeError, ValueError: as `walk`.
    """

    def silent(x: Tensor, t: Tensor, cond: object) -> Tensor:
        return x

    trace = Trace()
    x, solver = torch.zeros(1, 1, device="cpu"), steps if isinstance(steps, Solver) else FlowEuler.uniform(steps)
    other: dict[str, Any] = {}
    for role, own in (("weak", own_weak), ("plain", own_plain)):
        if isinstance(own, bool):
            other[f"{role}_fn"] = silent if own else None
        elif unknown := set(own) - {"cond", "uncond"}:
            raise ValueError(f"own_{role} must be a bool, or of cond and uncond, got {sorted(unknown)}")
        else:
            other |= {f"{role}_{branch}": object() for branch in own}
    sample(
        silent, x, solver, method, cond=None, uncond=None, strong=strong, weak=weak, plain=plain, trace=trace, **other
    )
    return trace.rows
