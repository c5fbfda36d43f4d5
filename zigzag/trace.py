"""What a walk leaves behind: the diagnostics of the Z-Sampling paper, at no extra evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from zigzag.moves import Denoise, Invert, Move, Renoise, Shift

__all__ = ["Record", "Trace"]


@dataclass(frozen=True, slots=True)
class Record:
    r"""One move of a walk.

    Attributes:
        move: the move. knot: the knot it reached.
        time: the time the model was told, or None if it was not asked.
        rows: model rows per sample that ran for this move.
        delta: `δ = ‖x̃ − x‖²` per sample `(B,)`, for a move that returns to a knot: `x̃` is the state it brings back, `x`
            the one that left the knot (for a Shift, the one before it). Else None.
        tau1, tau2: `‖τ₁‖`, `‖τ₂‖` per sample `(B,)`, for an exact Invert that undoes the Denoise just before it:

            .. math:: \tau_1 = e_s(x_i) - e_w(\tilde x_i), \qquad \tau_2 = e_w(\tilde x_i) - \bar e,
                      \qquad \tilde x_i - x_i = (b/a)(\tau_1 + \tau_2)

            with `ē` the prediction the inversion used last. They are filled in by the Denoise that follows, if it
            computes the branches that `e_w` needs; else None.

    Tensors are on the device of the walk, in the state's dtype, without gradients and without a host sync.
    Source: Z-Sampling, Theorems 1 and 2.
    """

    move: Move
    knot: int
    time: float | None
    rows: int
    delta: Tensor | None = None
    tau1: Tensor | None = None
    tau2: Tensor | None = None


class Trace:
    """Filled by `sample(…, trace=trace)`, from empty: one `Record` a move, and the rows that ran.

    Attributes:
        records: in the order of the moves.
        rows: model rows per sample, all moves together.

    While a path is under way, the trace holds the state and the prediction at every knot it will still return to: one
    of each for zigzags of span 1, T of each for `EndToEnd`.
    """

    def __init__(self) -> None:
        self.begin(())

    def __repr__(self) -> str:
        return f"Trace({len(self.records)} moves, {self.rows} rows)"

    @property
    def rows(self) -> int:
        """Model rows per sample that ran."""
        return sum(record.rows for record in self.records)

    def begin(self, path: Sequence[Move]) -> None:
        """Empties the trace for a walk along `path`."""
        self.records: list[Record] = []
        self._returns = Counter(move.end for move in path if isinstance(move, Invert | Renoise))
        self._left: dict[int, tuple[Tensor, Tensor]] = {}
        self._last: Move | None = None
        self._zigzag: tuple[Tensor, Tensor] | None = None

    def replaced(self) -> None:
        """A callback put another state in the place of the last one: the zigzag under way has no error terms now."""
        self._last = self._zigzag = None

    @property
    def awaits_weak(self) -> bool:
        """Whether `e_w` at the state reached would complete `τ₁` and `τ₂` of the Invert that reached it."""
        return self._zigzag is not None

    @torch.no_grad()
    def log(
        self,
        move: Move,
        time: float | None,
        rows: int,
        before: Tensor,
        after: Tensor,
        e: Tensor | None,
        e_w: Tensor | None,
    ) -> None:
        """Records a move from `before` to `after` with prediction `e`; `e_w` is the weak one at `before`, if known."""
        last, self._last = self._last, move
        zigzag, self._zigzag = self._zigzag, None
        delta = None
        match move:
            case Denoise(i, _) if e is not None:
                if zigzag is not None and e_w is not None:
                    e_s, e_bar = zigzag
                    self.records[-1] = replace(self.records[-1], tau1=_norm(e_s - e_w), tau2=_norm(e_w - e_bar))
                if self._returns[i]:
                    self._left[i] = before, e
            case Invert(j, i, _, coefficients) if e is not None:
                delta = self._delta(i, after)
                if last == Denoise(i, j) and coefficients in (None, (i, j)):
                    self._zigzag = self._left[i][1], e
            case Shift():
                delta = _norm(after - before) ** 2
            case Renoise(_, i):
                delta = self._delta(i, after)
        self._forget(move)
        self.records.append(Record(move, move.end, time, rows, delta))

    def _delta(self, i: int, after: Tensor) -> Tensor | None:
        return _norm(after - self._left[i][0]) ** 2 if i in self._left else None

    def _forget(self, move: Move) -> None:
        if isinstance(move, Invert | Renoise):
            self._returns[move.end] -= 1
            if not self._returns[move.end]:
                self._left.pop(move.end, None)


def _norm(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=tuple(range(1, x.ndim))) if x.ndim > 1 else x.abs()
