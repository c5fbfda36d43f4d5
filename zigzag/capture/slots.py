"""Where on the device a path's memory lies: in which slot of one buffer each move finds what it reads."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import count
from typing import NamedTuple

from zigzag.held import HeldStep
from zigzag.moves import Move

__all__ = ["Slots", "slots_of"]


class Slots(NamedTuple):
    """The slots of a move.

    Attributes:
        reads: those of the step's memory, one for each knot of `HeldStep.reads`.
        spare: one that no move from this one on reads, to write to before the move has read its own.
        into: the one that what it leaves goes to; for a move that leaves nothing, one that no later move reads.
    """

    reads: tuple[int, ...]
    spare: int
    into: int


def slots_of(path: Sequence[Move], steps: Sequence[HeldStep]) -> list[Slots]:
    """The slots of each move, as few as the path needs: what `steps_of` forgets makes room.

    A move writes after it has read: what it leaves may take the place of what it was the last to read.
    """
    at: dict[int, int] = {}  # by knot, while a later move reads it
    slots: list[Slots] = []
    for move, held in zip(path, steps, strict=True):
        reads, spare = tuple(at[knot] for knot in held.reads), _first_free(at.values())
        for gone in held.forgets:
            if isinstance(gone, int):
                at.pop(gone)
        into = _first_free(at.values())
        if held.leaves:
            at[move.start] = into
        slots.append(Slots(reads, spare, into))
    return slots


def _first_free(taken: Collection[int]) -> int:
    return next(slot for slot in count() if slot not in taken)
