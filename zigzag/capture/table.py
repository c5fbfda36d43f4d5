r"""A path as a table on the device, and the one step function that walks it, for captured and compiled loops.

Under guidance that is linear in the gap, every move is a linear combination of what it reads: with `g = e_c − e_u`,
`e_s = e_u + s·g` and `e_w = e_u + w·g`, a Denoise together with the cached Shift that follows it is

.. math:: x' = a\,x + b\,e_s - d\,(e_s - e_w) + r = p\,x + c_u\,e_u + c_c\,e_c + r, \qquad
          c_c = b\,s - d\,(s - w), \quad c_u = b - c_c,

with `d` the coefficient of the *next* step's inverse, and 0 where no Shift follows. So Z²-Sampling needs one kind of
step and no cache, and the latents are read once and written once. What a step holds besides is

.. math:: r = \sum_k h_k\,m_k + n\,z + q\,\hat x,

of the memory `m_k` of a multistep solver, the noise `z` of a stochastic one, and the anchor `x̂`, the state that a step
of two evaluations began from. A Denoise leaves `m = p_m·x + q_m·x̂ + u_m·e_u + c_m·e_c`, of the state before the Shift,
for later steps. Memory lies in the slots of one buffer; which slots a step reads and writes is in the table too, and a
step of lower order has a coefficient of 0. So all orders are one kind of step. A step that holds nothing adds nothing.

The coefficients of a whole path are computed in float64, cast once, and looked up by a step counter on the device: no
host number enters a step. `zigzag.capture.rows` computes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from torch import Tensor

from zigzag.capture.kernels import combine
from zigzag.held import HeldStep
from zigzag.model import Models
from zigzag.roles import BRANCHES
from zigzag.solvers import Solver, StepInfo
from zigzag.strengths import Seen, StrengthRule, apply_rule

__all__ = ["Carry", "Kind", "Plan", "Row", "step_function"]


@dataclass(frozen=True, slots=True)
class Kind:
    """What tells one step function, and so one graph, from another.

    Attributes:
        branches: those evaluated, of `zigzag.roles.BRANCHES`.
        from_anchor: `p` multiplies the anchor, the state that an inversion began from (a refinement of it).
        adds_anchor: the anchor is added besides (a second evaluation). keeps_anchor: the state is kept as the anchor.
        keeps_gap: the gap is kept for a Shift further on.
        recalls: memory is added. leaves: a prediction is remembered. adds_noise: noise is added, by a stochastic step
            or, where nothing is evaluated, by a Renoise.
        adds_gap: a Shift by the kept gap; nothing is evaluated. rule: the rule of its strength.
        keeps_strong: the strong prediction is kept beside the gap, for a rule.
    """

    branches: tuple[str, ...] = ()
    from_anchor: bool = False
    adds_anchor: bool = False
    keeps_anchor: bool = False
    keeps_gap: bool = False
    recalls: bool = False
    leaves: bool = False
    adds_noise: bool = False
    adds_gap: bool = False
    rule: StrengthRule | None = None
    keeps_strong: bool = False

    @property
    def rows(self) -> int:
        """Model rows per sample of one step."""
        return len(self.branches)


NONE: Final = (0.0,) * len(BRANCHES)


class Row(NamedTuple):
    """The coefficients of one step, at time `t`:

    `x' = p·x + Σ on·e + q·x̂ + n·(noise or gap) + Σ h·m`.

    `on`, `gap` and `strong` have a coefficient for every branch of `zigzag.roles.BRANCHES`, 0 for those that are not
    evaluated: the state's, those of the gap that is kept, and of the strong prediction. `x̂` is the anchor. `left` is
    what is remembered, a combination of `(x, x̂, *branches)`. `info` is what a rule is told of the step.
    `slots` are those of the `m` (the first ones, if none are given), `into` the one that what is remembered goes to.
    `noise` says which noise the step reads; it is put into the buffer before the step. None: that which is there.
    """

    kind: Kind
    noise: HeldStep | None = None
    t: float = 0.0
    p: float = 1.0
    on: tuple[float, ...] = NONE
    q: float = 0.0
    n: float = 0.0
    gap: tuple[float, ...] = NONE
    strong: tuple[float, ...] = NONE
    left: tuple[float, ...] = (0.0, 0.0, *NONE)
    info: tuple[float, ...] = (0.0,) * 7
    h: tuple[float, ...] = ()
    slots: tuple[int, ...] = ()
    into: int = 0


class Plan(NamedTuple):
    """The columns of the rows as tensors on one device, `(n,)`, or `(n, k)` for tuples.

    On the host: their kinds, the noise that they read, and how many slots the memory has.
    """

    kinds: tuple[Kind, ...]
    noise: tuple[HeldStep | None, ...]
    depth: int
    t: Tensor
    p: Tensor
    on: Tensor
    q: Tensor
    n: Tensor
    gap: Tensor
    strong: Tensor
    left: Tensor
    info: Tensor
    h: Tensor
    slots: Tensor
    into: Tensor

    @classmethod
    def of(cls, rows: Sequence[Row], solver: Solver, device: torch.device, dtype: torch.dtype) -> Plan:
        """The rows in the state's dtype, the times as the solver's are."""
        kinds, noise, t, *columns, slots, into = zip(*rows, strict=True)
        times = torch.tensor(t, dtype=torch.float64, device="cpu")
        times = times.to(device, dtype) if solver.times.is_floating_point() else times.long().to(device)
        rest = (torch.tensor(k, dtype=torch.float64, device="cpu").to(device, dtype) for k in columns)
        where = (torch.tensor(k, dtype=torch.int64, device="cpu").to(device) for k in (slots, into))
        depth = max((1 + row.into for row in rows if row.kind.leaves), default=0)
        return cls(kinds, noise, depth, times, *rest, *where)

    def refill(self, other: Plan) -> None:
        """Takes over the numbers of another plan of the same kinds, in place: graphs go on reading these tensors.

        Raises:
            ValueError: if the kinds differ: the branches needed, or the moves.
        """
        if other.kinds != self.kinds:
            raise ValueError("the new scales need other branches than those captured: capture again")
        for old, new in zip(self[3:], other[3:], strict=True):
            old.copy_(new)


class Carry(NamedTuple):
    """What goes from step to step: the state, the kept gap, the anchor, and the memory `(slots, B, …)`.

    And what rules read: the gap before the kept one, and the strong prediction that it is of; `(0,)` where none does.
    """

    x: Tensor
    gap: Tensor
    anchor: Tensor
    memory: Tensor
    before: Tensor
    strong: Tensor


def step_function(
    kind: Kind, plan: Plan, models: Models, combine: Callable[..., Tensor] = combine
) -> Callable[[Tensor, Carry, Tensor], tuple[Carry, Tensor | None]]:
    """The step of a kind as a pure function `(k, carry, noise) -> (carry, m)`.

    `k` is the row of the plan, `(1,)` int64. `m` is what is to be remembered, in the slot that `plan.into` says, or
    None; the memory in the carry stays as it was. The function reads no value on the host and draws no noise, so that
    it can be captured, and traced with `fullgraph=True`.
    """

    def step(k: Tensor, carry: Carry, noise: Tensor) -> tuple[Carry, Tensor | None]:
        def row(column: Tensor) -> Tensor:
            return column.index_select(0, k)

        def numbers(column: Tensor) -> tuple[Tensor, ...]:
            return torch.split(row(column)[0], 1)

        x, gap, anchor, memory, before, strong = carry
        if kind.rule is not None:
            seen = Seen(x, strong, row(plan.n))
            at = StepInfo(*row(plan.info)[0].unbind())  # type: ignore[arg-type]
            return carry._replace(x=x + row(plan.n) * apply_rule(kind.rule, gap, before, at, seen)), None
        if not kind.rows:
            new = row(plan.p) * x + row(plan.n) * (gap if kind.adds_gap else noise)
            return carry._replace(x=new), None
        found = models.branches(x, row(plan.t), kind.branches)

        def terms(coefficients: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
            return [(coefficients[BRANCHES.index(name)], e) for name, e in found.items()]

        held = [(row(plan.q), anchor)] if kind.adds_anchor else []
        if kind.recalls:
            # Gathered only where there are more slots than a step reads.
            width = plan.h.shape[1]
            read = memory.index_select(0, row(plan.slots)[0]) if plan.slots.shape[1] else memory[:width]
            held += zip(numbers(plan.h), read.unbind(), strict=True)
        if kind.adds_noise:
            held.append((row(plan.n), noise))
        new = combine(row(plan.p), anchor if kind.from_anchor else x, terms(numbers(plan.on)), held)
        if kind.keeps_gap:
            nothing = torch.zeros_like(row(plan.p))
            before, gap = gap if before.numel() else before, combine(nothing, x, terms(numbers(plan.gap)))
            if kind.keeps_strong:
                strong = combine(nothing, x, terms(numbers(plan.strong)))
        left = None
        if kind.leaves:
            on_x, on_anchor, *on_branches = numbers(plan.left)
            left = combine(on_x, x, terms(on_branches), [(on_anchor, anchor)] if kind.adds_anchor else [])
        return Carry(new, gap, x if kind.keeps_anchor else anchor, memory, before, strong), left

    return step
