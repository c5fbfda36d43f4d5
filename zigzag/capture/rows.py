r"""The rows of a path: what each move adds up, with which coefficients, settled in float64 before the first model call.

A move is a row, but for a cached Shift, which the Denoise before it takes in, for the repetitions of a refined
inversion, which are rows of their own, and for a step of two evaluations, which is two. Its first row leads to the
inner state `y = A·x + B·e_1` and keeps `x` as the anchor. At its second, which sees `y`, the first prediction is
`e_1 = (y − A·x)/B`, and so with `θ` the weight of `e_2`

.. math:: x_j = a\,x + b\,\big((1 - \theta)\,e_1 + \theta\,e_2\big) + r
              = \tfrac{b\,(1 - \theta)}{B}\,y + \Big(a - \tfrac{b\,(1 - \theta)\,A}{B}\Big)\,x + b\,\theta\,e_2 + r.

What is remembered is `p·x + q·e` for some `p`, `q`, and is written in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch

from zigzag.capture.slots import Slots, slots_of
from zigzag.capture.table import Kind, Row
from zigzag.checks import Settled
from zigzag.guidance import Guidance, LinearGuidance
from zigzag.held import HeldStep
from zigzag.moves import Denoise, Invert, Move, Renoise, Shift, gap_is_read
from zigzag.solvers import Inner, Solver, StepInfo

__all__ = ["plan_rows"]


def plan_rows(settled: Settled, solver: Solver, separate: bool) -> list[Row]:
    """The rows of a path; with `separate` the weak predictions have a model of their own.

    Raises:
        TypeError: for guidance that is not linear in the gap: it has no scale to put into a table.
        ValueError: for a step of two evaluations whose second state does not tell the first prediction (`B = 0`).
    """
    return _even(_shared(_Table(settled, solver, separate).rows))


class _Table:
    def __init__(self, settled: Settled, solver: Solver, separate: bool) -> None:
        self.solver, self.separate = solver, separate
        self.s, self.w = _linear("strong", settled.strong), _linear("weak", settled.weak)
        self.rows: list[Row] = []
        path, steps = settled.path, settled.steps
        reads, slots = gap_is_read(path), slots_of(path, steps)
        absorbed = False
        for k, (move, held) in enumerate(zip(path, steps, strict=True)):
            if absorbed:
                absorbed = False
                continue
            step = held.step
            match move:
                case Denoise():
                    follows = path[k + 1] if k + 1 < len(path) else None
                    absorbed = isinstance(follows, Shift) and not follows.fresh
                    gap = -float(steps[k + 1].step.d) if absorbed else 0.0
                    kept = _gap_is_read_first(path[k + 1 + absorbed :])
                    self._denoise(move, held, slots[k], gap, evaluate_weak=reads[k], keeps_gap=kept)
                case Shift(i, True):
                    at, kept = solver.info(i), _gap_is_read_first(path[k + 1 :])
                    row = self._row(at, at.t, 1.0, gap=-float(step.d), branches_of=(True, True), keeps_gap=kept)
                    self.rows.append(row._replace(into=slots[k].spare))
                case Shift(_, False):
                    self.rows.append(Row(Kind(adds_gap=True), n=-float(step.d)))
                case Invert():
                    self._invert(move, held, slots[k])
                case Renoise(j, i):
                    noise = held._replace(interval=(i, j), draws=True)
                    self.rows.append(Row(Kind(adds_noise=True), noise=noise, p=float(step.a), n=float(step.b)))

    def _denoise(
        self, move: Denoise, held: HeldStep, slots: Slots, gap: float, evaluate_weak: bool, keeps_gap: bool
    ) -> None:
        at, branches_of, inner = self.solver.info(move.i, move.j), (True, evaluate_weak), held.inner
        t, second = at.t, False
        # The coefficients of the state, of the anchor and of the prediction.
        x_j = float(held.step.a), 0.0, float(held.step.b)
        m = _remembered(self.solver, move.i) if held.leaves else (0.0, 0.0, 0.0)
        if inner is not None:
            first = self._row(at, t, float(inner.first.a), strong=float(inner.first.b), branches_of=branches_of)
            self.rows.append(first._replace(kind=replace(first.kind, keeps_anchor=True), into=slots.spare))
            t, second = self.solver.all_times[inner.told], True
            x_j = _with_second(*x_j, inner, move, self.solver)
            m = _with_second(*m, inner._replace(weight=0.0), move, self.solver)  # what is remembered is of the first
        s, (p, q, b) = self.s.at(at), x_j
        row = self._row(at, t, p, strong=b, gap=gap, branches_of=branches_of, keeps_gap=keeps_gap)
        kind = replace(row.kind, adds_anchor=second, leaves=held.leaves)
        row = row._replace(kind=kind, q=q, left=(m[0], m[1], m[2] * s, m[2] * (1 - s)), into=slots.into)
        self.rows.append(_holding(row, held, slots, 1.0))

    def _invert(self, move: Invert, held: HeldStep, slots: Slots) -> None:
        at, (c, d) = self.solver.info(move.i, move.j), (float(held.step.c), float(held.step.d))
        for r in range(1 + move.refine):
            row = self._row(at, at.t, c, weak=d, branches_of=(False, True))
            kind = replace(row.kind, keeps_anchor=r == 0 and move.refine > 0, from_anchor=r > 0)
            into = slots.into if r == move.refine else slots.spare
            row = _holding(row._replace(kind=kind, into=into), held, slots, -c)
            # The noise of the first of them is still in its buffer.
            self.rows.append(row if r == 0 else row._replace(noise=None))

    def _row(
        self,
        at: StepInfo,
        t: float,
        p: float,
        strong: float = 0.0,
        weak: float = 0.0,
        gap: float = 0.0,
        *,
        branches_of: tuple[bool, bool],
        keeps_gap: bool = False,
    ) -> Row:
        """The row `p·x + strong·e_s + weak·e_w + gap·(e_s − e_w)`; `branches_of` says whose branches are evaluated."""
        s, w = self.s.at(at), self.w.at(at)
        c_s, u_s = self.s.branches(at) if branches_of[0] else (False, False)
        c_w, u_w = self.w.branches(at) if branches_of[1] else (False, False)
        in_s, in_w = strong + gap, weak - gap
        # e_s is s·e_c + (1 − s)·e_u, and e_w likewise: of the same branches, unless they are another model's.
        c, u, c_own, u_own = in_s * s, in_s * (1 - s), in_w * w, in_w * (1 - w)
        if self.separate:
            kind, kept = Kind(c_s, u_s, c_w, u_w, keeps_gap=keeps_gap), (s, 1 - s, -w, w - 1)
        else:
            kind, kept = Kind(c_s or c_w, u_s or u_w, keeps_gap=keeps_gap), (s - w, w - s, 0.0, 0.0)
            c, u, c_own, u_own = c + c_own, u + u_own, 0.0, 0.0
        return Row(kind, None, t, p, c, u, c_own, u_own, gap=kept)


def _holding(row: Row, held: HeldStep, slots: Slots, sign: float) -> Row:
    """The row with `sign·r` added."""
    h = tuple(sign * float(coefficient) for coefficient in held.step.memory)
    kind = replace(row.kind, recalls=bool(h), adds_noise=held.interval is not None)
    noise, n = (held, sign * float(held.step.noise)) if held.interval is not None else (None, 0.0)
    return row._replace(kind=kind, noise=noise, n=n, h=h, slots=slots.reads)


def _remembered(solver: Solver, i: int) -> tuple[float, float, float]:
    """`p, 0, q` of what a Denoise leaves, `p·x + q·e`: read off what the solver makes of 1 and 0."""
    one, zero = torch.tensor([1.0, 0.0], dtype=torch.float64, device="cpu")
    return float(solver.remember(i, one, zero)), 0.0, float(solver.remember(i, zero, one))


def _with_second(
    a: float, q: float, b: float, inner: Inner, move: Denoise, solver: Solver
) -> tuple[float, float, float]:
    """`a·x + b·((1 − θ)·e_1 + θ·e_2)` as coefficients of `y = A·x + B·e_1`, of `x` and of `e_2`; `q` is 0."""
    A, B, theta = float(inner.first.a), float(inner.first.b), inner.weight
    if theta == 1 or b == 0:
        return 0.0, q + a, b
    if B == 0:
        raise ValueError(
            f"{move!r} cannot be captured: the state of the second evaluation of {solver!r} does not tell its first "
            "prediction (B = 0); use sample"
        )
    of_y = b * (1 - theta) / B
    return of_y, q + a - of_y * A, b * theta


def _shared(rows: Sequence[Row]) -> list[Row]:
    """The rows with as few kinds as coefficients allow: what a row does not hold, it adds with a coefficient of 0.

    Rows of the same evaluations become of one kind, which reads memory, leaves it and adds noise if any of them does.
    Where nothing is held, all stay what they are.
    """
    # A single evaluation beside steps of two may keep an anchor, which nobody reads, as the first of two does.
    halves = {_evaluations(row.kind) for row, second in pairwise(rows) if second.kind.adds_anchor}
    kinds = [kept if _evaluations(kept := replace(row.kind, keeps_anchor=True)) in halves else row.kind for row in rows]
    groups: dict[Kind, list[Kind]] = {}
    for kind in kinds:
        groups.setdefault(_evaluations(kind), []).append(kind)
    shared = {
        alike: replace(
            alike,
            recalls=any(kind.recalls for kind in group),
            leaves=any(kind.leaves for kind in group),
            adds_noise=any(kind.adds_noise for kind in group),
        )
        for alike, group in groups.items()
    }
    return [row._replace(kind=shared[_evaluations(kind)]) for row, kind in zip(rows, kinds, strict=True)]


def _evaluations(kind: Kind) -> Kind:
    return replace(kind, recalls=False, leaves=False, adds_noise=kind.adds_noise and not kind.rows)


def _even(rows: Sequence[Row]) -> list[Row]:
    """The rows with equally many coefficients `h`, 0 where a row reads less.

    Where a step reads all slots that any does, they stand in the order of the slots, and no row says which: then
    nothing has to be gathered.
    """
    width = max(len(row.h) for row in rows)
    depth = 1 + max((slot for row in rows for slot in row.slots), default=-1)
    even = []
    for row in rows:
        padding = width - len(row.h)
        if width == depth:
            by_slot = dict(zip(row.slots, row.h, strict=True))
            even.append(row._replace(slots=(), h=tuple(by_slot.get(slot, 0.0) for slot in range(depth))))
        else:
            even.append(row._replace(slots=row.slots + (0,) * padding, h=row.h + (0.0,) * padding))
    return even


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
