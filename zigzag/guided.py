"""The guided predictions that moves are made of: which branches a move asks for, and how they are joined."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor

from zigzag.guidance import Guidance
from zigzag.solvers import StepInfo

__all__ = ["Answer", "Guided", "Query"]


class Query(NamedTuple):
    """What the loop asks: predictions at `x`; with `weak`, of the weak predictions' model.

    `told` is which of the solver's `all_times` the model is told: that of the knot, but for an evaluation between two.
    """

    x: Tensor
    told: int
    cond: bool
    uncond: bool
    weak: bool


class Answer(NamedTuple):
    """The predictions asked for, in the shape of `x`, and the model rows per sample that they took."""

    cond: Tensor | None
    uncond: Tensor | None
    rows: int


T = TypeVar("T")
Branches: TypeAlias = tuple[Tensor | None, Tensor | None]
Asking: TypeAlias = Generator[Query, Any, T]


class Guided:
    """The predictions that the moves are made of: the branches asked for, joined by the two guidances.

    `told` is which time the model is told, where it is not that of the knot `at.i`.
    """

    def __init__(self, strong: Guidance, weak: Guidance, separate: bool) -> None:
        self.e_s, self.e_w, self.separate, self.rows = strong, weak, separate, 0
        for guidance in (strong, weak):
            if (reset := getattr(guidance, "reset", None)) is not None:
                reset()

    def weak(self, x: Tensor, at: StepInfo, told: int | None = None) -> Asking[Tensor]:
        """`e_w` at `x`."""
        needed = self.e_w.branches(at)
        branches = yield from self._ask(x, at, needed, weak=self.separate, told=told)
        return _guide(self.e_w, needed, branches, at)

    def pair(self, x: Tensor, at: StepInfo, told: int | None = None) -> Asking[tuple[Tensor, Tensor]]:
        """`e_s` and `e_w` at `x`, from one evaluation of the branches that both need."""
        if self.separate:
            e_s, _ = yield from self.strong(x, at, told=told)
            return e_s, (yield from self.weak(x, at, told))
        n_s, n_w = self.e_s.branches(at), self.e_w.branches(at)
        branches = yield from self._ask(x, at, (n_s[0] or n_w[0], n_s[1] or n_w[1]), told=told)
        return _guide(self.e_s, n_s, branches, at), _guide(self.e_w, n_w, branches, at)

    def gap(self, x: Tensor, at: StepInfo) -> Asking[Tensor]:
        """`e_s − e_w` at `x`."""
        e_s, e_w = yield from self.pair(x, at)
        return e_s - e_w

    def strong(
        self, x: Tensor, at: StepInfo, weak_too: bool = False, told: int | None = None
    ) -> Asking[tuple[Tensor, Tensor | None]]:
        """`e_s` at `x`, and on request `e_w` where the branches of `e_s` suffice for it."""
        n_s = self.e_s.branches(at)
        branches = yield from self._ask(x, at, n_s, told=told)
        e_s = _guide(self.e_s, n_s, branches, at)
        # A diagnosis must change nothing: a weak guidance with state is not called for one.
        if not weak_too or self.separate or hasattr(self.e_w, "reset"):
            return e_s, None
        n_w = self.e_w.branches(at)
        suffices = all(s or not w for s, w in zip(n_s, n_w, strict=True))
        return e_s, _guide(self.e_w, n_w, branches, at) if suffices else None

    def _ask(
        self, x: Tensor, at: StepInfo, needed: tuple[bool, bool], weak: bool = False, told: int | None = None
    ) -> Asking[Branches]:
        answer: Answer = yield Query(x, at.i if told is None else told, *needed, weak)
        self.rows += answer.rows
        # Cast before guidance: a gap in half precision would have lost its digits.
        e_c, e_u = answer.cond, answer.uncond
        return _cast(e_c, x.dtype), _cast(e_u, x.dtype)


def _cast(e: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return e if e is None or e.dtype == dtype else e.to(dtype)


def _guide(guidance: Guidance, needed: tuple[bool, bool], branches: Branches, at: StepInfo) -> Tensor:
    (cond, uncond), (e_c, e_u) = needed, branches
    e = guidance(e_c if cond else None, e_u if uncond else None, at)
    like = e_c if cond else e_u
    if not isinstance(e, Tensor) or (like is not None and e.shape != like.shape):
        got = tuple(e.shape) if isinstance(e, Tensor) else type(e).__name__
        wanted = None if like is None else tuple(like.shape)
        raise ValueError(f"{guidance!r} must return a prediction of shape {wanted}, as its branches have, got {got}")
    return e
