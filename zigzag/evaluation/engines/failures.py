"""Cells that failed: one, all that were given up, and what no other would fare better with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zigzag.evaluation.cells import Cell
from zigzag.support.commands import Several

__all__ = ["ATTEMPTS", "Failed", "Failure", "Refused"]

ATTEMPTS = 3


@dataclass(frozen=True)
class Failure:
    """A cell that failed every time, and what it said the last time."""

    cell: Cell
    reason: str

    def __str__(self) -> str:
        return f"{self.cell.about}: {self.reason}"


class Refused(ValueError):
    """What a cell raises where no cell can be done as things are: it is not tried again, and ends the run."""


class Failed(Several):
    """Some of the cells failed every time; the others are done.

    Args:
        failures: those cells. cells: how many there were.
    """

    def __init__(self, failures: Sequence[Failure], cells: int) -> None:
        self.failures, self.cells = list(failures), cells
        said = f"{len(failures)} of {cells} cells failed {ATTEMPTS} times each; the others are done, and the same "
        super().__init__(f"{said}command tries them again", [str(failure) for failure in failures])

    @classmethod
    def together(cls, failed: Sequence[Failed]) -> Failed:
        """One of several, of different cells."""
        return cls([failure for each in failed for failure in each.failures], sum(each.cells for each in failed))
