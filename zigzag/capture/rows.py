r"""The rows of a path: what each move adds up, with which coefficients, settled in float64 before the first model call.

A move is a row, but for a cached Shift, which the Denoise before it takes in, for the repetitions of a refined
inversion, which are rows of their own, and for a step of two evaluations, which is two. Its first row leads to the
inner state `y = A·x + B·e_1` and keeps `x` as the anchor. At its second, which sees `y`, the first prediction is
`e_1 = (y − A·x)/B`, and so with `θ` the weight of `e_2`

.. math:: x_j = a\,x + b\,\big((1 - \theta)\,e_1 + \theta\,e_2\big) + r
              = \tfrac{b\,(1 - \theta)}{B}\,y + \Big(a - \tfrac{b\,(1 - \theta)\,A}{B}\Big)\,x + b\,\theta\,e_2 + r.

What is remembered is `p·x + q·e` for some `p`, `q`, and is written in the same way. Where a part `λ` of a zigzag is
kept, the state that begins it is the anchor, and its last inversion leads to `λ·(c·x_j + d·e_w − c·r) + (1 − λ)·x`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from numbers import Real
from types import MappingProxyType

import torch

from zigzag.capture.slots import Slots, slots_of
from zigzag.capture.table import Kind, Row
from zigzag.checks import Settled
from zigzag.guidance import LinearGuidance
from zigzag.guidance.base import needs_state
from zigzag.held import HeldStep
from zigzag.moves import Denoise, Invert, Move, Renoise, Shift, evaluations, gap_is_read
from zigzag.roles import BRANCHES, STRONG, WEAK, Role, RoleName, Roles, in_order, roles_asked
from zigzag.solvers import Inner, Solver, StepInfo
from zigzag.steered import Steering
from zigzag.strengths.base import StrengthRule

__all__ = ["plan_rows"]


def plan_rows(settled: Settled, solver: Solver) -> list[Row]:
    """The rows of a path.

    Raises:
        TypeError: for a path that is steered, and guidance that is not linear in the gap: it has no scale to put into a
            table.
        ValueError: for a step of two evaluations whose second state does not tell the first prediction (`B = 0`), and
            for a part of a zigzag beside others that want an anchor.
    """
    if isinstance(settled.path, Steering):
        raise TypeError("method is steered by its walk, and a table needs the path beforehand; use sample")
    return _even(_shared(_Table(settled.path, settled.steps, settled.roles, solver).rows))


class _Table:
    def __init__(self, path: Sequence[Move], steps: Sequence[HeldStep], roles: Roles, solver: Solver) -> None:
        self.solver, self.roles = solver, roles
        self.rules = {role.name: _linear(role) for role in roles}
        self.rows: list[Row] = []
        rules = [move.strength for move in path if isinstance(move, Shift) and isinstance(move.strength, StrengthRule)]
        self.keeps_strong = any(rule.reads_state for rule in rules)
        reads, slots, begun = gap_is_read(path), slots_of(path, steps), _begun_parts(path, steps)
        absorbed = False
        for k, (move, held) in enumerate(zip(path, steps, strict=True)):
            if absorbed:
                absorbed = False
                continue
            step = held.step
            match move:
                case Denoise():
                    follows = path[k + 1] if k + 1 < len(path) else None
                    # With rules on the path every gap is kept, for the one after it too, and nothing is absorbed.
                    absorbed = isinstance(follows, Shift) and not follows.fresh and not rules
                    gap = _strength(follows) * -float(steps[k + 1].step.d) if absorbed else 0.0
                    kept = reads[k] if rules else _gap_is_read_first(path[k + 1 + absorbed :])
                    self._denoise(move, held, slots[k], gap, roles_asked(move, reads[k]), keeps_gap=kept)
                    if k in begun:
                        self.rows[-1] = _anchored(self.rows[-1])
                case Shift(i, fresh, strength):
                    at, n = solver.info(i), -float(step.d)
                    if fresh:
                        kept, by = (
                            bool(rules) or _gap_is_read_first(path[k + 1 :]),
                            0.0 if rules else _strength(move) * n,
                        )
                        row = self._row(at, at.t, 1.0, gap=by, asked=STRONG + WEAK, keeps_gap=kept)
                        self.rows.append(row._replace(into=slots[k].spare))
                    if isinstance(strength, StrengthRule):
                        self.rows.append(Row(Kind(adds_gap=True, rule=strength), n=n, info=tuple(map(float, at))))
                    elif rules or not fresh:
                        self.rows.append(Row(Kind(adds_gap=True), n=_strength(move) * n))
                case Invert():
                    self._invert(move, held, slots[k])
                case Renoise(j, i):
                    noise = held._replace(interval=(i, j), draws=True)
                    self.rows.append(Row(Kind(adds_noise=True), noise=noise, p=float(step.a), n=float(step.b)))

    def _denoise(
        self, move: Denoise, held: HeldStep, slots: Slots, gap: float, asked: Sequence[RoleName], keeps_gap: bool
    ) -> None:
        at, own, inner = self.solver.info(move.i, move.j), asked[0], held.inner
        t, second = at.t, False
        # The coefficients of the state, of the anchor and of the prediction.
        x_j = float(held.step.a), 0.0, float(held.step.b)
        m = _remembered(self.solver, move.i) if held.leaves else (0.0, 0.0, 0.0)
        if inner is not None:
            first = self._row(at, t, float(inner.first.a), asked=asked, on={own: float(inner.first.b)})
            self.rows.append(first._replace(kind=replace(first.kind, keeps_anchor=True), into=slots.spare))
            t, second = self.solver.all_times[inner.told], True
            x_j = _with_second(*x_j, inner, move, self.solver)
            m = _with_second(*m, inner._replace(weight=0.0), move, self.solver)  # what is remembered is of the first
        p, q, b = x_j
        row = self._row(at, t, p, gap=gap, asked=asked, keeps_gap=keeps_gap, on={own: b})
        kind = replace(row.kind, adds_anchor=second, leaves=held.leaves)
        row = row._replace(kind=kind, q=q, left=(m[0], m[1], *self._on(at, {own: m[2]})), into=slots.into)
        self.rows.append(_holding(row, held, slots, 1.0))

    def _invert(self, move: Invert, held: HeldStep, slots: Slots) -> None:
        at, part = self.solver.info(move.i, move.j), float(move.strength)
        c, d = part * float(held.step.c), part * float(held.step.d)
        last = evaluations(move, "a captured loop") - 1
        for r in range(1 + last):
            row = self._row(at, at.t, c, on={"weak": d}, asked=WEAK)
            kind = replace(row.kind, keeps_anchor=r == 0 and last > 0, from_anchor=r > 0, merges=part != 1)
            into = slots.into if r == last else slots.spare
            row = _holding(row._replace(kind=kind, into=into, q=1 - part), held, slots, -c)
            # The noise of the first of them is still in its buffer.
            self.rows.append(row if r == 0 else row._replace(noise=None))

    def _row(
        self,
        at: StepInfo,
        t: float,
        p: float,
        *,
        gap: float = 0.0,
        asked: Sequence[RoleName],
        keeps_gap: bool = False,
        on: Mapping[str, float] = MappingProxyType({}),
    ) -> Row:
        """The row `p·x + Σ on·e + gap·(e_s − e_w)`, by role; `asked` says whose branches are evaluated."""
        branches = in_order(*(getattr(self.roles, name).needs(at) for name in asked))
        kind = Kind(branches, keeps_gap=keeps_gap, keeps_strong=keeps_gap and self.keeps_strong)
        on = {**on, "strong": on.get("strong", 0.0) + gap, "weak": on.get("weak", 0.0) - gap}
        of_gap, of_strong = self._on(at, {"strong": 1.0, "weak": -1.0}), self._on(at, {"strong": 1.0})
        row = Row(kind, None, t, p, self._on(at, on))
        return row._replace(gap=of_gap, strong=of_strong) if keeps_gap else row

    def _on(self, at: StepInfo, on: Mapping[str, float]) -> tuple[float, ...]:
        """`Σ on·e` by role as coefficients of the branches: `e` is `w·e_c + (1 − w)·e_u`."""
        total = dict.fromkeys(BRANCHES, 0.0)
        for role in self.roles:
            if coefficient := on.get(role.name, 0.0):
                w = self.rules[role.name].at(at)
                if isinstance(w, torch.Tensor):
                    raise TypeError(f"{role} has one scale a sample, and a table has one a move; use sample")
                total[role.cond] += coefficient * w
                total[role.uncond] += coefficient * (1 - w)
        return tuple(total.values())


def _anchored(row: Row) -> Row:
    return row._replace(kind=replace(row.kind, keeps_anchor=True))


def _begun_parts(path: Sequence[Move], steps: Sequence[HeldStep]) -> set[int]:
    """Which Denoise moves of a path begin a zigzag of which a part is kept: there is one anchor for all.

    Raises:
        ValueError: where something else wants it: a part within a part, a refinement, or steps of two evaluations.
    """
    begun: dict[int, int] = {}
    for k, move in enumerate(path):
        if isinstance(move, Invert) and move.strength != 1:
            first = max(m for m, before in enumerate(path[:k]) if isinstance(before, Denoise) and before.i == move.i)
            if any(first <= end for end in begun.values()):
                raise ValueError(f"{move!r} cannot be captured: it keeps a part of a zigzag within another; use sample")
            begun[first] = k
    refined = any(isinstance(move, Invert) and move.refine != 0 for move in path)
    if begun and (refined or any(held.inner is not None for held in steps)):
        raise ValueError(
            "a part of a zigzag (strength) cannot be captured together with refine, or on steps of two evaluations; "
            "use sample"
        )
    return set(begun)


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


def _strength(shift: Move | None) -> float:
    assert isinstance(shift, Shift) and isinstance(shift.strength, Real)
    return float(shift.strength)


def _linear(role: Role) -> LinearGuidance:
    if needs_state(role.rule):
        raise TypeError(f"{role} reads the state, of which a table of coefficients knows nothing; use sample")
    if not isinstance(role.rule, LinearGuidance):
        raise TypeError(f"{role} is not linear in the gap: it has no scale to put into a table; use sample")
    return role.rule
