"""What a predictor is held to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from zigzag.model import Predictor
from zigzag.solvers import Solver, StepInfo
from zigzag.testing.steps import near

__all__ = ["check_predictor"]


def check_predictor(
    fn: Predictor,
    x: Tensor,
    solver: Solver,
    cond: Any,
    *,
    tol: float = 1e-4,
    truth: Callable[[Tensor, StepInfo], Tensor] | None = None,
) -> None:
    """Holds a predictor to what the loop takes for granted of it, at every time of a solver.

    It returns a finite tensor of the shape of `x`, and the same when it is called again; it writes neither to `x` nor
    to what it has returned before; and where the leaves of the condition are tensors with the batch first, what it says
    of a sample does not depend on its batch: a doubled batch says the same of both halves.

    Args:
        fn: `fn(x, t, cond)`. x: `(B, …)`, a state to ask at. solver: whose times it is told. cond: the condition.
        tol: how far two answers may be apart, of their size: the arithmetic of another batch may round otherwise.
        truth: `truth(x, step)` gives what it should predict there, where that is known.

    Raises:
        AssertionError: for what does not hold, with the knot.
    """
    leaves, tree = pytree.tree_flatten(cond)
    by_sample = all(isinstance(leaf, Tensor) and leaf.ndim and len(leaf) == len(x) for leaf in leaves)
    times = solver.model_times(x.device, torch.promote_types(x.dtype, torch.float32))
    for i, t in enumerate(times):
        says, given = f"the predictor at knot {i} of {solver!r}", x.clone()
        e = fn(given, t.expand(len(x)), cond)
        if not isinstance(e, Tensor) or e.shape != x.shape:
            got = tuple(e.shape) if isinstance(e, Tensor) else type(e).__name__
            raise AssertionError(f"{says} must return the shape of x, {tuple(x.shape)}, got {got}")
        if not torch.equal(given, x):
            raise AssertionError(f"{says} writes to x")
        kept, bound = e.clone(), tol * (1 + e.abs().double())
        again = fn(given, t.expand(len(x)), cond)
        near(again, kept, bound, f"{says} says something else when it is asked again")
        fn(given.flip(0) + 1, t.expand(len(x)), cond)
        if not torch.equal(e, kept):
            raise AssertionError(f"{says} overwrites what it returned before; return a clone")
        if by_sample and leaves:
            other, turned = 2 * x.flip(0) + 1, [leaf.flip(0) for leaf in leaves]
            alone = fn(other.clone(), t.expand(len(x)), pytree.tree_unflatten(turned, tree)).clone()
            joined = [torch.cat(pair) for pair in zip(leaves, turned, strict=True)]
            both = fn(torch.cat([x, other]), t.expand(2 * len(x)), pytree.tree_unflatten(joined, tree)).chunk(2)
            for half, e in zip(both, (kept, alone), strict=True):
                near(half, e, tol * (1 + e.abs().double()), f"{says}: what it says of a sample depends on its batch")
        if truth is not None:
            near(kept, truth(x, solver.info(i)), bound, f"{says} is not the true prediction")
