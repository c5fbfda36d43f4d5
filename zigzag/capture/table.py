r"""A path as a table on the device, and the one step function that walks it, for captured and compiled loops.

Under guidance that is linear in the gap, every move is a linear combination of what it reads: with `g = e_c − e_u`,
`e_s = e_u + s·g` and `e_w = e_u + w·g`, a Denoise together with the cached Shift that follows it is

.. math:: x' = a\,x + b\,e_s - d\,(e_s - e_w) = p\,x + c_u\,e_u + c_c\,e_c, \qquad
          c_c = b\,s - d\,(s - w), \quad c_u = b - c_c,

with `d` the coefficient of the *next* step's inverse, and 0 where no Shift follows. So Z²-Sampling needs one kind of
step and no cache, and the latents are read once and written once. The coefficients of a whole path are computed in
float64, cast once, and looked up by a step counter on the device: no host number enters a step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from zigzag.capture.kernels import combine
from zigzag.checks import Settled
from zigzag.guidance import Guidance, LinearGuidance
from zigzag.moves import Denoise, Invert, Move, Renoise, Shift, gap_is_read
from zigzag.sampling import Model
from zigzag.solvers import Solver, StepInfo

__all__ = ["Carry", "Kind", "Plan", "Row", "plan_rows", "step_function"]


@dataclass(frozen=True, slots=True)
class Kind:
    """What tells one step function, and so one graph, from another.

    Attributes:
        cond, uncond: the branches evaluated by the model. weak_cond, weak_uncond: by the weak predictions' own model.
        from_anchor: `p` multiplies the state that an inversion began from (a refinement of it).
        keeps_anchor: the state is kept for such refinements. keeps_gap: the gap is kept for a Shift further on.
        adds_gap, adds_noise: a Shift by the kept gap, or a Renoise; nothing is evaluated.
    """

    cond: bool = False
    uncond: bool = False
    weak_cond: bool = False
    weak_uncond: bool = False
    from_anchor: bool = False
    keeps_anchor: bool = False
    keeps_gap: bool = False
    adds_gap: bool = False
    adds_noise: bool = False

    @property
    def rows(self) -> int:
        """Model rows per sample of one step."""
        return self.cond + self.uncond + self.weak_cond + self.weak_uncond


class Row(NamedTuple):
    """The coefficients of one step: `x' = p·x + c·e_c + u·e_u + c_w·e'_c + u_w·e'_u + n·(noise or gap)`, at time `t`.

    `e'` are predictions of the weak model, if it is another. `gap` is the kept gap's own combination of the branches
    `(e_c, e_u, e'_c, e'_u)`.
    """

    kind: Kind
    t: float = 0.0
    p: float = 1.0
    c: float = 0.0
    u: float = 0.0
    c_w: float = 0.0
    u_w: float = 0.0
    n: float = 0.0
    gap: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)


class Plan(NamedTuple):
    """The columns of the rows as tensors `(n,)` on one device, `gap` `(n, 4)`, and their kinds on the host."""

    kinds: tuple[Kind, ...]
    t: Tensor
    p: Tensor
    c: Tensor
    u: Tensor
    c_w: Tensor
    u_w: Tensor
    n: Tensor
    gap: Tensor

    @classmethod
    def of(cls, rows: Sequence[Row], solver: Solver, device: torch.device, dtype: torch.dtype) -> Plan:
        """The rows in the state's dtype, the times as the solver's are."""
        kinds, *columns = zip(*rows, strict=True)
        t, *rest = (torch.tensor(column, dtype=torch.float64) for column in columns)
        t = t.to(device, dtype) if solver.times.is_floating_point() else t.long().to(device)
        return cls(kinds, t, *(column.to(device, dtype) for column in rest))

    def refill(self, other: Plan) -> None:
        """Takes over the numbers of another plan of the same kinds, in place: graphs go on reading these tensors.

        Raises:
            ValueError: if the kinds differ: the branches needed, or the moves.
        """
        if other.kinds != self.kinds:
            raise ValueError("the new scales need other branches than those captured: capture again")
        for old, new in zip(self[1:], other[1:], strict=True):
            old.copy_(new)


def plan_rows(settled: Settled, solver: Solver, separate: bool) -> list[Row]:
    """The rows of a path; with `separate` the weak predictions have a model of their own.

    Raises:
        TypeError: for guidance that is not linear in the gap: it has no scale to put into a table.
    """
    return _Table(settled, solver, separate).rows


class _Table:
    def __init__(self, settled: Settled, solver: Solver, separate: bool) -> None:
        self.solver, self.separate = solver, separate
        self.s, self.w = _linear("strong", settled.strong), _linear("weak", settled.weak)
        self.rows: list[Row] = []
        path, absorbed = settled.path, False
        reads = gap_is_read(path)
        for k, move in enumerate(path):
            follows = path[k + 1] if k + 1 < len(path) else None
            if absorbed:
                absorbed = False
                continue
            match move:
                case Denoise(i, j):
                    at, step = solver.info(i, j), solver.step(i, j)
                    absorbed = isinstance(follows, Shift) and not follows.fresh
                    d = -float(solver.step(j).d) if absorbed else 0.0
                    kept = _gap_is_read_first(path[k + 1 + absorbed :])
                    self._add(at, float(step.a), strong=float(step.b), gap=d, evaluate_weak=reads[k], keeps_gap=kept)
                case Shift(i, True):
                    at = solver.info(i)
                    self._add(
                        at,
                        1.0,
                        gap=-float(solver.step(i).d),
                        evaluate_weak=True,
                        keeps_gap=_gap_is_read_first(path[k + 1 :]),
                    )
                case Shift(i, False):
                    self.rows.append(Row(Kind(adds_gap=True), n=-float(solver.step(i).d)))
                case Invert(j, i, refine, coefficients):
                    step = solver.step(*(coefficients or (i, j)))
                    for r in range(1 + refine):
                        self._add(solver.info(i, j), float(step.c), weak=float(step.d))
                        anchor = {"keeps_anchor": r == 0 and refine > 0, "from_anchor": r > 0}
                        self.rows[-1] = self.rows[-1]._replace(kind=replace(self.rows[-1].kind, **anchor))
                case Renoise(j, i):
                    noise = solver.noise_step(j, i)
                    self.rows.append(Row(Kind(adds_noise=True), p=float(noise.a), n=float(noise.b)))

    def _add(
        self,
        at: StepInfo,
        p: float,
        strong: float = 0.0,
        weak: float = 0.0,
        gap: float = 0.0,
        evaluate_weak: bool = False,
        keeps_gap: bool = False,
    ) -> None:
        """The row `p·x + strong·e_s + weak·e_w + gap·(e_s − e_w)`."""
        s, w = self.s.at(at), self.w.at(at)
        uses_strong, uses_weak = strong != 0 or evaluate_weak, weak != 0 or evaluate_weak
        c_s, u_s = self.s.branches(at) if uses_strong else (False, False)
        c_w, u_w = self.w.branches(at) if uses_weak else (False, False)
        in_s, in_w = strong + gap, weak - gap
        # e_s is s·e_c + (1 − s)·e_u, and e_w likewise: of the same branches, unless they are another model's.
        c, u, c_own, u_own = in_s * s, in_s * (1 - s), in_w * w, in_w * (1 - w)
        if self.separate:
            kind, kept = Kind(c_s, u_s, c_w, u_w, keeps_gap=keeps_gap), (s, 1 - s, -w, w - 1)
        else:
            kind, kept = Kind(c_s or c_w, u_s or u_w, keeps_gap=keeps_gap), (s - w, w - s, 0.0, 0.0)
            c, u, c_own, u_own = c + c_own, u + u_own, 0.0, 0.0
        self.rows.append(Row(kind, at.t, p, c, u, c_own, u_own, gap=kept))


def _gap_is_read_first(rest: Sequence[Move]) -> bool:
    """Whether a cached Shift comes in the rest of a path before the gap is written anew."""
    for move in rest:
        if isinstance(move, Shift):
            return not move.fresh
        if isinstance(move, Denoise):
            return False
    return False


def _linear(name: str, guidance: Guidance) -> LinearGuidance:
    if not isinstance(guidance, LinearGuidance):
        raise TypeError(
            f"{name}={guidance!r} is not linear in the gap: it has no scale to put into a table; use sample"
        )
    return guidance


class Carry(NamedTuple):
    """What goes from step to step: the state, the kept gap, and the state that an inversion began from."""

    x: Tensor
    gap: Tensor
    anchor: Tensor


def step_function(
    kind: Kind, plan: Plan, model: Model, weak_model: Model, combine: Callable[..., Tensor] = combine
) -> Callable[[Tensor, Carry, Tensor], Carry]:
    """The step of a kind as a pure function `(k, carry, noise) -> carry`; `k` is the row of the plan, `(1,)` int64.

    It reads no value on the host and draws no noise, so that it can be captured, and traced with `fullgraph=True`.
    """

    def step(k: Tensor, carry: Carry, noise: Tensor) -> Carry:
        def row(column: Tensor) -> Tensor:
            return column.index_select(0, k)

        x, gap, anchor = carry
        if kind.adds_gap or kind.adds_noise:
            return Carry(row(plan.p) * x + row(plan.n) * (gap if kind.adds_gap else noise), gap, anchor)
        t = row(plan.t)
        branches = [*model.branches(x, t, kind.cond, kind.uncond)]
        branches += weak_model.branches(x, t, kind.weak_cond, kind.weak_uncond)
        there = [(m, e) for m, e in enumerate(branches) if e is not None]
        columns = (plan.c, plan.u, plan.c_w, plan.u_w)
        new = combine(row(plan.p), anchor if kind.from_anchor else x, [(row(columns[m]), e) for m, e in there])
        if kind.keeps_gap:
            of_gap = row(plan.gap)[0]
            gap = combine(torch.zeros_like(t, dtype=x.dtype), x, [(of_gap[m : m + 1], e) for m, e in there])
        return Carry(new, gap, x if kind.keeps_anchor else anchor)

    return step
