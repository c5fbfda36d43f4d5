"""Where a walk stands."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from zigzag.moves import Move

__all__ = ["Visit"]


class Visit(NamedTuple):
    """Where a walk stands after a move.

    Attributes:
        move: the move that was made. knot: the knot it reached.
        state: `(B, …)` at that knot, in the state's dtype. It is never overwritten.
        prediction: what the move was made with: `e_s` of a Denoise, the last `e_w` of an Invert, else None.
        rows: model rows per sample so far.
        gap: `e_s − e_w`, where the next Shift takes it from the cache; after every Denoise of a steered path.
    """

    move: Move
    knot: int
    state: Tensor
    prediction: Tensor | None
    rows: int
    gap: Tensor | None = None
