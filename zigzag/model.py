"""A predictor, and all that stands between a query of the loop and its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from zigzag.conditions import MISSING, Conditions
from zigzag.guided import Answer, Query
from zigzag.solvers import Solver
from zigzag.solvers.affine import state_dtype

__all__ = ["Model", "Predictor"]

Predictor: TypeAlias = Callable[[Tensor, Tensor, Any], Tensor]


class Model:
    """A predictor with its two conditions, which answers queries.

    Args:
        name: of the predictor, for messages. fn: the predictor.
        conditions: the two, and both as one. Where a tensor of them is written to, or replaced, between two calls (as
            null-text inversion does), the doubled one is made anew.
        solver: whose times it is told. x: a state, in the dtype that it is shown.
        checkpoint: whether its activations are computed anew on the way back (`torch.utils.checkpoint`).
    """

    def __init__(
        self, name: str, fn: Predictor, conditions: Conditions, solver: Solver, x: Tensor, checkpoint: bool = False
    ) -> None:
        self.name, self.fn, self.dtype, self.checkpoint = name, fn, x.dtype, checkpoint
        self.conditions = conditions
        self._watched = checkpoint or conditions.doubled is not MISSING
        self._stamp = self._mark()
        self.times = solver.told_times(x.device, state_dtype(x.dtype))

    def __call__(self, query: Query) -> Answer:
        """The predictions asked for, and the rows they took."""
        if self._watched and (stamp := self._mark()) != self._stamp:
            self._renew(stamp)
        e_c, e_u = self.branches(query.x, self.times[query.told], query.cond, query.uncond)
        return Answer(e_c, e_u, query.cond + query.uncond)

    def branches(self, x: Tensor, t: Tensor, cond: bool, uncond: bool) -> tuple[Tensor | None, Tensor | None]:
        """The predictions at `x`, told `t`: in one call where the conditions could be doubled, else in two."""
        x = x.to(self.dtype)
        both = self.conditions.doubled
        if cond and uncond and both is not MISSING:
            e = self._predict(torch.cat([x, x]), t, both)
            return e[len(x) :], e[: len(x)]
        e_u = self._predict(x, t, self.conditions.uncond) if uncond else None
        return self._predict(x, t, self.conditions.cond) if cond else None, e_u

    def _mark(self) -> object:
        """What changes when a tensor of the conditions is written to, or another takes its place."""
        return _mark(self.conditions.cond), _mark(self.conditions.uncond)

    def _renew(self, stamp: object) -> None:
        self._stamp = stamp
        if self.checkpoint:
            raise ValueError(
                "the conditions were changed during a walk with checkpoint=True, which would compute earlier calls "
                "anew with what is in them now; use checkpoint=False"
            )
        if self.conditions.doubled is not MISSING:
            self.conditions = self.conditions.renewed()

    def _predict(self, x: Tensor, t: Tensor, cond: Any) -> Tensor:
        t = t.expand(len(x))
        if self.checkpoint and torch.is_grad_enabled():
            from torch.utils.checkpoint import checkpoint

            e = checkpoint(self.fn, x, t, cond, use_reentrant=False)
        else:
            e = self.fn(x, t, cond)
        if not isinstance(e, Tensor):
            raise TypeError(f"{self.name} must return a tensor, got {type(e).__name__}")
        if e.shape != x.shape:
            raise ValueError(self._other_shape(x, e))
        return e

    def _other_shape(self, x: Tensor, e: Tensor) -> str:
        says = f"{self.name} must return the shape of x, {tuple(x.shape)}, got {tuple(e.shape)}"
        if self.conditions.doubled is not MISSING:
            says += " (x is a doubled batch, the unconditional half first; batched=False calls it once a branch)"
        twice = [k for k, (a, b) in enumerate(zip(x.shape, e.shape, strict=False)) if b == 2 * a and k]
        if e.ndim == x.ndim and len(twice) == 1:
            says += f"; half of dimension {twice[0]} is a learned variance, perhaps: return e.chunk(2, {twice[0]})[0]"
        return says


def _mark(tree: Any) -> object:
    if isinstance(tree, Tensor):
        # What is made under inference mode keeps no count of writes: taken for written to, every time.
        return object() if tree.is_inference() else (id(tree), tree._version)
    leaves = pytree.tree_leaves(tree)
    return tuple(_mark(leaf) if isinstance(leaf, Tensor) else id(leaf) for leaf in leaves)
