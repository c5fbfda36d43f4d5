"""A predictor, asked by the loop: in which calls its branches are evaluated, and what came back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from zigzag.conditions import MISSING, Conditions
from zigzag.guided import Answer, Query
from zigzag.solvers import Solver
from zigzag.solvers.affine import state_dtype

__all__ = ["Model", "Models", "Predictor", "mark"]

Predictor: TypeAlias = Callable[[Tensor, Tensor, Any], Tensor]


class Models:
    """The predictors of a walk, which answer its queries together: each evaluates its branches.

    Args:
        models: of the predictors, with the branches of each in their conditions.
        solver: whose times they are told. x: a state, as they are shown it.
    """

    def __init__(self, models: Sequence[Model], solver: Solver, x: Tensor) -> None:
        self.models = tuple(models)
        self.times = solver.told_times(x.device, state_dtype(x.dtype)).unbind()

    def __call__(self, query: Query) -> Answer:
        """The predictions asked for, and the rows they took."""
        for model in self.models:
            if model.watched:
                model.watch()
        return Answer(self.branches(query.x, self.times[query.told], query.branches), len(query.branches))

    def branches(self, x: Tensor, t: Tensor, branches: tuple[str, ...]) -> dict[str, Tensor]:
        """The predictions of `branches` at `x`, told `t`."""
        if len(self.models) == 1:
            return self.models[0](x, t, branches)
        found: dict[str, Tensor] = {}
        for model in self.models:
            if its := tuple(name for name in branches if name in model.conditions.each):
                found |= model(x, t, its)
        return found


class Model:
    """A predictor with its conditions.

    Args:
        name: of the predictor, for messages. fn: the predictor.
        conditions: of its branches. Where a tensor of them is written to, or replaced, between two calls (as null-text
            inversion does), the joined ones are made anew.
        x: a state, in the dtype that it is shown.
        checkpoint: whether its activations are computed anew on the way back (`torch.utils.checkpoint`).
    """

    def __init__(self, name: str, fn: Predictor, conditions: Conditions, x: Tensor, checkpoint: bool = False) -> None:
        self.name, self.fn, self.dtype, self.checkpoint = name, fn, x.dtype, checkpoint
        self.conditions = conditions
        self.watched = checkpoint or bool(conditions.joined)
        # A condition that is a tensor stays the one it is, and counts its writes; what others hold may be replaced.
        each = conditions.each.values()
        self._counted = [c for c in each if isinstance(c, Tensor) and not c.is_inference()]
        self._others = [c for c in each if not isinstance(c, Tensor) or c.is_inference()]
        self._stamp, self._marked = self._mark(), self._leaves()

    def __call__(self, x: Tensor, t: Tensor, branches: tuple[str, ...]) -> dict[str, Tensor]:
        """The predictions of `branches` at `x`, told `t`: in one call where their conditions could be joined."""
        x, found = x if x.dtype == self.dtype else x.to(self.dtype), {}
        told: Tensor | None = None
        for call in self._calls(branches):
            n = len(call)
            if told is None or len(told) != n * len(x):
                told = t.expand(n * len(x))
            if n == 1:
                found[call[0]] = self._predict(x, told, self.conditions.each[call[0]])
            else:
                e = self._predict(torch.cat([x] * n), told, self.conditions.joined[call])
                found |= zip(call, e.chunk(n), strict=True)
        return found

    def _calls(self, branches: tuple[str, ...]) -> Sequence[tuple[str, ...]]:
        try:
            return self.conditions.calls[branches]
        except KeyError:  # of a steered walk, at a step whose branches no step to a neighbour needs
            for name in branches:
                if self.conditions.each[name] is MISSING:
                    raise ValueError(f"{name} is missing, but a step of the walk needs that branch; pass it") from None
            return [(name,) for name in branches]

    def watch(self) -> None:
        """Joins the conditions anew, where one of them was changed since.

        Raises:
            ValueError: with `checkpoint`, which would compute earlier calls anew with what is in them now.
        """
        if (stamp := self._mark()) == self._stamp:
            return
        self._stamp, self._marked = stamp, self._leaves()
        if self.checkpoint:
            raise ValueError(
                "the conditions were changed during a walk with checkpoint=True, which would compute earlier calls "
                "anew with what is in them now; use checkpoint=False"
            )
        self.conditions = self.conditions.renewed()

    def _mark(self) -> object:
        """What changes when a tensor of the conditions is written to, or another takes its place."""
        return [c._version for c in self._counted] + [mark(c) for c in self._others]

    def _leaves(self) -> list[Any]:
        """What is marked by its identity: as long as it is held, nothing that takes its place can have the same."""
        return pytree.tree_leaves(self._others) if self.watched else []

    def _predict(self, x: Tensor, t: Tensor, cond: Any) -> Tensor:
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
        if self.conditions.joined:
            says += " (x is a doubled batch, the unconditional half first; batched=False calls it once a branch)"
        twice = [k for k, (a, b) in enumerate(zip(x.shape, e.shape, strict=False)) if b == 2 * a and k]
        if e.ndim == x.ndim and len(twice) == 1:
            says += f"; half of dimension {twice[0]} is a learned variance, perhaps: return e.chunk(2, {twice[0]})[0]"
        return says


def mark(tree: Any) -> object:
    """What is another one where a tensor of a pytree was written to, or another leaf took its place."""
    if isinstance(tree, Tensor):
        # What is made under inference mode keeps no count of writes: taken for written to, every time.
        return object() if tree.is_inference() else (id(tree), tree._version)
    leaves = pytree.tree_leaves(tree)
    return tuple(mark(leaf) if isinstance(leaf, Tensor) else id(leaf) for leaf in leaves)
