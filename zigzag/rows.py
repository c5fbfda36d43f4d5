"""The cost of a method, counted by walking its path."""

from __future__ import annotations

from collections.abc import Sequence

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
    own_weak: bool = False,
) -> int:
    """The model rows per sample that a method takes on a grid of `steps` steps: those that run when it is walked.

    The rows depend on the path and on the branches that the guidances need. On the solver they depend where its steps
    make two evaluations (`Heun`), or a guidance's scale depends on α and σ: then pass the solver itself.

    Args:
        method: one of `zigzag.methods`, or a tuple of moves that connect.
        steps: how many, or the solver that has them.
        strong, weak: the guidances, as in `walk`.
        own_weak: whether weak predictions are of another predictor, `weak_fn`.

    Raises:
        TypeError, ValueError: as `walk`.
    """

    def silent(x: Tensor, t: Tensor, cond: None) -> Tensor:
        return x

    trace = Trace()
    x, solver = torch.zeros(1, 1, device="cpu"), steps if isinstance(steps, Solver) else FlowEuler.uniform(steps)
    weak_fn = silent if own_weak else None
    sample(silent, x, solver, method, cond=None, uncond=None, strong=strong, weak=weak, weak_fn=weak_fn, trace=trace)
    return trace.rows
