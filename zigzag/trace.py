"""What a walk leaves behind: the diagnostics of the Z-Sampling paper, at no extra evaluation."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from zigzag.guided import Guided
from zigzag.held import HeldStep
from zigzag.moves import Denoise, Invert, Move, Renoise, Shift, leaves_for_good
from zigzag.solvers import AffineStep
from zigzag.solvers.affine import flat, norms

__all__ = ["Record", "Trace"]


@dataclass(frozen=True, slots=True)
class Record:
    r"""One move of a walk.

    Attributes:
        move: the move. knot: the knot it reached.
        time: the time the model was told, or None if it was not asked.
        rows: model rows per sample that ran for this move.
        order: how many predictions the move combines, its own and those that it remembers; None where it reads none
            (Renoise), and in a pipeline's own steps.
        delta: `δ = ‖x̃ − x‖²` per sample `(B,)`, for a move that returns to a knot: `x̃` is the state it brings back, `x`
            the one that left the knot (for a Shift, the one before it). Else None.
        tau1, tau2: `‖τ₁‖`, `‖τ₂‖` per sample `(B,)`, for an exact Invert that undoes all of the Denoise just before it:

            .. math:: \tau_1 = e_s(x_i) - e_w(\tilde x_i), \qquad \tau_2 = e_w(\tilde x_i) - \bar e,
                      \qquad \tilde x_i - x_i = (b/a)(\tau_1 + \tau_2)

            with `ē` the prediction the inversion used last. They are filled in by the Denoise that follows, if it
            computes the branches that `e_w` needs; else None.
        beta: `β` per sample `(B,)`, of a Denoise that leaves a knot for good to which the path has come back, or at
            which it has shifted: by how much larger a scale of plain guidance would have moved the state alike,

            .. math:: \beta = \frac{\langle \Delta, g\rangle}{\langle g, g\rangle}, \qquad
                      \Delta = (a/b)\,(\tilde x_i - x_i), \qquad g = e_c(\tilde x_i) - e_\varnothing(\tilde x_i)

            with `x_i` the state that came down to the knot in this descent, `x̃_i` the one that leaves it, and `w` and
            the branches those of the role that moves it (strong, or plain): as far as `Δ` lies along `g`, the step is
            that of plain guidance at the scale `w + β`. On a field whose branches do not depend on the state, and a
            solver without memory, that is `matched_cfg`'s scale; a memory holds the larger gap of plain guidance, and
            not what a zigzag added. 0 for a sample whose branches are equal. None where nothing was injected, where one
            of the two branches was not evaluated, and on a path that is steered.

    Tensors are on the device of the walk, in the state's dtype, without gradients and without a host sync.
    Source: Z-Sampling, Theorems 1 and 2; β is this library's.
    """

    move: Move
    knot: int
    time: float | None
    rows: int
    order: int | None = None
    delta: Tensor | None = None
    tau1: Tensor | None = None
    tau2: Tensor | None = None
    beta: Tensor | None = None


class Trace:
    """Filled by `sample(…, trace=trace)`, from empty: one `Record` a move, and the rows that ran.

    Attributes:
        records: in the order of the moves.
        rows: model rows per sample, all moves together.

    While a path is under way, the trace holds the state and the prediction at every knot it will still return to: one
    of each for zigzags of span 1, T of each for `EndToEnd`; and the last prediction's branches.
    """

    def __init__(self) -> None:
        self.begin(())

    def __repr__(self) -> str:
        return f"Trace({len(self.records)} moves, {self.rows} rows)"

    @property
    def rows(self) -> int:
        """Model rows per sample that ran."""
        return sum(record.rows for record in self.records)

    @property
    def beta(self) -> Tensor | None:
        """The mean `β` of the steps that leave a knot for good, `(B,)`, 0 where nothing was injected.

        None where no step has one, or one that something was injected at has none, and on a path that is steered.
        """
        known = [record.beta for record in self.records if record.beta is not None]
        return torch.stack(known).sum(0) / self._descents if known and not self._unknown else None

    def begin(self, path: Sequence[Move] | None) -> None:
        """Empties the trace for a walk along `path`; None is one that is not known beforehand, and has no `β`."""
        self.records: list[Record] = []
        # How often the path comes back to each knot: who does not know keeps all.
        unknown = math.inf if path is None else 0
        self._returns: dict[int, float] = defaultdict(lambda: unknown)
        path = () if path is None else path
        for move in path:
            self._returns[move.end] += isinstance(move, Invert | Renoise)
        self._left: dict[int, tuple[Tensor, Tensor]] = {}
        self._last: Move | None = None
        self._zigzag: tuple[Tensor, Tensor] | None = None
        # Whether each move leaves its knot for good, and the states that came down to knots where more is to happen.
        self._for_good = leaves_for_good(path)
        self._descents = sum(self._for_good)
        self._injected = {move.end for move in path if not isinstance(move, Denoise)}
        self._arrived: dict[int, Tensor] = {}
        self._unknown = False  # whether something was injected of which no `β` is known

    def replaced(self, x: Tensor) -> None:
        """A callback put `x` in the place of the last state: the zigzag under way has no error terms now.

        A state that has just come down to its knot has done so as `x`; of another `Δ` would be the callback's too.
        """
        if self._last is not None and (end := self._last.end) in self._arrived:
            if isinstance(self._last, Denoise):
                self._arrived[end] = x
            else:
                del self._arrived[end]
                self._unknown = True
        self._last = self._zigzag = None

    @torch.no_grad()
    def log(
        self,
        move: Move,
        time: float | None,
        rows: int,
        before: Tensor,
        after: Tensor,
        e: Tensor | None,
        guided: Guided | None = None,
        held: HeldStep | None = None,
    ) -> None:
        """Records a move by the step `held`, from `before` to `after`, with prediction `e`.

        `guided` knows what else was answered.
        """
        last, self._last = self._last, move
        zigzag, self._zigzag = self._zigzag, None
        delta = beta = None
        if not self.records and move.start in self._injected:
            self._arrived[move.start] = before
        match move:
            case Denoise(i, j) if e is not None:
                if zigzag is not None and guided is not None and (e_w := guided.known("weak")) is not None:
                    e_s, e_bar = zigzag
                    self.records[-1] = replace(self.records[-1], tau1=norms(e_s - e_w), tau2=norms(e_w - e_bar))
                if self._returns[i]:
                    self._left[i] = before, e
                if self._for_good[len(self.records) :][:1] == [True] and guided is not None and held is not None:
                    beta = self._beta(i, before, guided.direction, held.step)
                if j in self._injected:
                    self._arrived[j] = after
            case Invert(j, i, _, coefficients, strength) if e is not None:
                delta = self._delta(i, after)
                if last == Denoise(i, j) and coefficients in (None, (i, j)) and strength == 1:
                    self._zigzag = self._left[i][1], e
            case Shift():
                delta = norms(after - before) ** 2
            case Renoise(_, i):
                delta = self._delta(i, after)
        self._forget(move)
        order = None if held is None or isinstance(move, Renoise) else held.order
        self.records.append(Record(move, move.end, time, rows, order, delta, beta=beta))

    def _beta(self, i: int, x: Tensor, g: Tensor | None, step: AffineStep) -> Tensor | None:
        """`β` where the walk leaves knot `i` for good, from the state `x`."""
        arrived = self._arrived.pop(i, None)
        if arrived is None or arrived is x:
            return None
        if g is None:
            self._unknown = True
            return None
        g, moved = flat(g), flat(x - arrived) * float(step.a / step.b)
        size = (g * g).sum(1)
        return ((moved * g).sum(1) / size).masked_fill(size == 0, 0.0)

    def _delta(self, i: int, after: Tensor) -> Tensor | None:
        return norms(after - self._left[i][0]) ** 2 if i in self._left else None

    def _forget(self, move: Move) -> None:
        if isinstance(move, Invert | Renoise):
            self._returns[move.end] -= 1
            if not self._returns[move.end]:
                self._left.pop(move.end, None)
