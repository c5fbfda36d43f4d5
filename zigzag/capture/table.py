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

The coefficients of a whole path are computed in float64, cast once into one table, and looked up by a step counter on
the device: no host number enters a step. `zigzag.capture.rows` computes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from torch import Tensor

from zigzag.capture.kernels import ZERO, Numbers, Term, combine
from zigzag.held import HeldStep
from zigzag.model import Models
from zigzag.roles import BRANCHES
from zigzag.solvers import Solver, StepInfo
from zigzag.strengths.base import Seen, StrengthRule, apply_rule

__all__ = ["Carry", "Kind", "Plan", "Row", "step_function"]


@dataclass(frozen=True, slots=True)
class Kind:
    """What tells one step function, and so one graph, from another.

    Attributes:
        branches: those evaluated, of `zigzag.roles.BRANCHES`.
        from_anchor: `p` multiplies the anchor, the state that an inversion began from (a refinement of it).
        adds_anchor: the anchor is added besides (a second evaluation). keeps_anchor: the state is kept as the anchor.
        merges: the anchor is added besides, as the state that an earlier step left from (a part of a zigzag).
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
    merges: bool = False
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


# The columns of the numbers of a plan; ZERO and ONE are the first two, and the coefficients `h` of the memory the last.
P, Q, N = 2, 3, 4
ON, GAP, STRONG = (5 + k * len(BRANCHES) for k in range(3))
LEFT = STRONG + len(BRANCHES)
INFO = LEFT + 2 + len(BRANCHES)
H = INFO + len(StepInfo._fields)


class Plan(NamedTuple):
    """The rows as tensors on one device.

    Attributes:
        kinds, noise, depth, reads: on the host: the kinds of the rows, the noise that they read, how many slots the
            memory has, and how many of them a row reads.
        times: `(n,)`. numbers: `(n, width)`, in the state's dtype. slots: `(n, reads)`, or `(n, 0)`. into: `(n,)`.
    """

    kinds: tuple[Kind, ...]
    noise: tuple[HeldStep | None, ...]
    depth: int
    reads: int
    times: Tensor
    numbers: Tensor
    slots: Tensor
    into: Tensor

    @classmethod
    def of(cls, rows: Sequence[Row], solver: Solver, device: torch.device, dtype: torch.dtype) -> Plan:
        """The rows in the state's dtype, the times as the solver's are."""
        table = [
            (0.0, 1.0, row.p, row.q, row.n, *row.on, *row.gap, *row.strong, *row.left, *row.info, *row.h)
            for row in rows
        ]
        exact = torch.tensor([row.t for row in rows], dtype=torch.float64, device="cpu")
        times = exact.to(device, dtype) if solver.times.is_floating_point() else exact.long().to(device)
        numbers = torch.tensor(table, dtype=torch.float64, device="cpu").to(device, dtype)
        slots, into = (
            torch.tensor(column, dtype=torch.int64, device="cpu").to(device)
            for column in ([row.slots for row in rows], [row.into for row in rows])
        )
        depth = max((1 + row.into for row in rows if row.kind.leaves), default=0)
        kinds, noise = tuple(row.kind for row in rows), tuple(row.noise for row in rows)
        return cls(kinds, noise, depth, len(rows[0].h), times, numbers, slots, into)

    def check(self, other: Plan) -> None:
        """Raises ValueError unless another plan is one of the same kinds, in the branches needed and in the moves."""
        if other.kinds != self.kinds:
            raise ValueError("the new scales need other branches than those captured: capture again")

    def refill(self, other: Plan) -> None:
        """Takes over the numbers of another plan, in place: graphs go on reading these tensors."""
        for old, new in zip(self[4:], other[4:], strict=True):
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
) -> Callable[[Tensor, Carry, Tensor], None]:
    """The step of a kind as a function `(k, carry, noise)` that advances the carry in place.

    `k` is the row of the plan, `(1,)` int64. What is to be remembered goes to the slot that `plan.into` says. The
    function reads no value on the host and draws no noise, so that it can be captured, and traced with
    `fullgraph=True`.
    """

    def step(k: Tensor, carry: Carry, noise: Tensor) -> None:
        numbers, (x, gap, anchor, memory, before, strong) = Numbers(plan.numbers, k), carry
        if kind.rule is not None:
            row = numbers.row()
            seen, at = Seen(x, strong, row[N]), StepInfo(*(number[0] for number in row[INFO:H]))  # type: ignore[arg-type]
            x.add_(row[N] * apply_rule(kind.rule, gap, before, at, seen))
            return
        if not kind.rows:
            combine(numbers, x, P, [], [(N, gap if kind.adds_gap else noise)], out=x)
            return
        found = models.branches(x, plan.times.index_select(0, k), kind.branches)

        def terms(first: int) -> list[Term]:
            return [(first + BRANCHES.index(name), e) for name, e in found.items()]

        held = [(Q, anchor)] if kind.adds_anchor or kind.merges else []
        if kind.recalls:
            # Gathered only where there are more slots than a step reads.
            gathered = plan.slots.shape[1] > 0
            read = memory.index_select(0, plan.slots.index_select(0, k)[0]) if gathered else memory[: plan.reads]
            held += enumerate(read.unbind(), H)
        if kind.adds_noise:
            held.append((N, noise))
        # What is kept of the old state, and of predictions that may lie in its memory, is written before the new one.
        left = None
        if kind.leaves:
            left = combine(numbers, x, LEFT, terms(LEFT + 2), [(LEFT + 1, anchor)] if kind.adds_anchor else [])
        if kind.keeps_gap:
            if before.numel():
                before.copy_(gap)
            combine(numbers, x, ZERO, terms(GAP), out=gap)
            if kind.keeps_strong:
                combine(numbers, x, ZERO, terms(STRONG), out=strong)
        if kind.keeps_anchor:
            anchor.copy_(x)
        combine(numbers, anchor if kind.from_anchor else x, P, terms(ON), held, out=x)
        if left is not None:
            memory.index_copy_(0, plan.into.index_select(0, k), left.unsqueeze(0))

    return step
