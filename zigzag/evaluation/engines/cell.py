"""What an engine runs: a unit of work that is pure, named by all that it depends on, and written whole."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["Cell", "Failure", "Worker"]


class Worker(Hashable, Protocol):
    """How a model is had. Equal ones load the same model, so that cells with equal workers share a loaded one."""

    def load(self) -> Any:
        """The model, loaded now: once for each process that needs it.

        Raises:
            Exception: whatever keeps it from being had; it ends the run, as no cell could do without.
        """


class Cell(Protocol):
    """One unit of work. It holds no model, and can be pickled."""

    @property
    def digest(self) -> str:
        """Of all that the result depends on: not of the device, nor of the engine."""

    @property
    def worker(self) -> Worker:
        """What loads the model that it runs with."""

    @property
    def cost(self) -> int:
        """The model rows that it will take, whatever of it is done."""

    @property
    def about(self) -> str:
        """What it is, for reports of failure: the method and its first prompt."""

    def done(self) -> bool:
        """Whether its file is there, whole."""

    def run(self, model: Any) -> None:
        """Computes its result, and writes it by a temporary name and a rename."""


@dataclass(frozen=True)
class Failure:
    """A cell that was given up, and what it said the last time."""

    cell: Cell
    reason: str

    def __str__(self) -> str:
        return f"{self.cell.about}: {self.reason}"
