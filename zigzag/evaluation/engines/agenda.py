"""What is left to do, in which order, and how often it was tried."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

from zigzag.evaluation.cells import Cell, Worker
from zigzag.evaluation.engines.failures import ATTEMPTS, Failure

__all__ = ["Agenda"]


class Agenda:
    """Cells by worker, so that models are loaded seldom; those that failed come again last.

    Attributes:
        failures: what was given up, after `ATTEMPTS` failures each.
    """

    def __init__(self, cells: Sequence[Cell]) -> None:
        self.failures: list[Failure] = []
        self._left: dict[Worker, deque[Cell]] = {}
        for cell in cells:
            self._left.setdefault(cell.worker, deque()).append(cell)
        self._cost = Counter({worker: sum(cell.cost for cell in group) for worker, group in self._left.items()})
        self._hands: Counter[Worker] = Counter()  # by the worker whose cells they took last
        self._failed: Counter[str] = Counter()

    def take(self, last: Worker | None) -> Cell | None:
        """The next cell for a hand whose last cell was of this worker; None where nothing is left.

        Where nothing is left of this worker, the one with the most rows left for each hand at it.
        """
        worker = last if last is not None and self._left.get(last) else self._another(last)
        if worker is None:
            return None
        cell = self._left[worker].popleft()
        self._cost[worker] -= cell.cost
        return cell

    def _another(self, last: Worker | None) -> Worker | None:
        if last is not None:
            self._hands[last] -= 1
        workers = [worker for worker, group in self._left.items() if group]
        found = max(workers, key=lambda worker: self._cost[worker] / (1 + self._hands[worker]), default=None)
        if found is not None:
            self._hands[found] += 1
        return found

    def failed(self, cell: Cell, reason: str) -> None:
        """Takes a cell back, or gives it up."""
        self._failed[cell.digest] += 1
        if self._failed[cell.digest] == ATTEMPTS:
            self.failures.append(Failure(cell, reason))
        else:
            self._left[cell.worker].append(cell)
            self._cost[cell.worker] += cell.cost
