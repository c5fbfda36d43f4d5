"""Runs what is left of a list of cells, by an engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from zigzag.evaluation.cells import Cell, Worker, each_once
from zigzag.evaluation.engines.agenda import Agenda
from zigzag.evaluation.engines.failures import Failure
from zigzag.evaluation.engines.hand import Hand
from zigzag.evaluation.engines.shards import Shard, share

__all__ = ["Hands", "run"]


class Hands(Protocol):
    """Several hands, each of which has at most one cell at a time.

    Attributes:
        count: how many. patience: seconds after which what one of them wrote is to be seen from here.
    """

    count: int
    patience: float

    def give(self, hand: int, cell: Cell) -> None:
        """Lets a hand begin a cell."""

    def wait(self) -> tuple[int, str | None]:
        """Waits for any of those that have one; which it was, and None or why it failed, as `Hand` says."""


def run(
    cells: Sequence[Cell],
    engine: str | None = None,
    shard: Shard | None = None,
    tick: Callable[[int], object] = lambda rows: None,
    *,
    each: Callable[[Cell], object] = lambda cell: None,
) -> list[Failure]:
    """Runs the cells that are not done, each once; one that fails is tried again after the others, three times in all.

    Args:
        engine: None for this process, the cells in the order given; "ray" for Ray on this machine, or "ray=address"
            on a running cluster, the longest cells first.
        shard: k of n: every n-th of the cells by cost is run, the others are left to other processes.
        tick: is told the rows of each cell as it is done. each: is told the cell.

    Returns:
        Those that failed every time.

    Raises:
        ValueError: for another engine.
        ImportError: without Ray, naming the extra that brings it.
        Exception: whatever keeps a model from being loaded.
        Refused: by a cell.
        OSError: where nothing more can be written.
    """
    left = [cell for cell in share(each_once(cells), shard) if not cell.done()]
    if not left:
        return []
    with _hands(engine, len(left)) as hands:
        if hands.count > 1:  # the longest first, so that no hand is left with one in the end
            left.sort(key=lambda cell: -cell.cost)
        return _drive(hands, left, tick, each)


@contextmanager
def _hands(engine: str | None, most: int) -> Iterator[Hands]:
    if engine is None:
        yield _OwnHand(Hand())
        return
    name, _, address = engine.partition("=")
    if name != "ray":
        raise ValueError(f"engine must be ray or ray=address, got {engine!r}")
    from zigzag.adapters.ray import actors

    with actors(Hand, most, address or None) as hands:
        yield hands


class _OwnHand:
    """This process, which does a cell while it is waited for."""

    count, patience = 1, 0.0

    def __init__(self, hand: Hand) -> None:
        self._hand = hand
        self._cells: list[Cell] = []

    def give(self, hand: int, cell: Cell) -> None:
        self._cells.append(cell)

    def wait(self) -> tuple[int, str | None]:
        return 0, self._hand(self._cells.pop())


def _drive(
    hands: Hands, cells: Sequence[Cell], tick: Callable[[int], object], each: Callable[[Cell], object]
) -> list[Failure]:
    agenda = Agenda(cells)
    finished: list[Cell] = []
    last: dict[int, Worker | None] = dict.fromkeys(range(hands.count))
    busy: dict[int, Cell] = {}
    while True:
        for hand in last.keys() - busy.keys():
            if (cell := agenda.take(last[hand])) is not None:
                busy[hand], last[hand] = cell, cell.worker
                hands.give(hand, cell)
        if not busy:
            return agenda.failures + _unseen(finished, hands.patience)
        hand, reason = hands.wait()
        cell = busy.pop(hand)
        if reason is None:
            finished.append(cell)
            tick(cell.cost)
            each(cell)
        else:
            agenda.failed(cell, reason)


def _unseen(cells: Sequence[Cell], patience: float) -> list[Failure]:
    """Those whose files another machine wrote, and that are not here: a network's file system may take its time."""
    until = time.monotonic() + patience
    while left := [cell for cell in cells if not cell.done()]:
        if time.monotonic() >= until:
            reason = "its file was written on another machine, and is not here: all must share one folder"
            return [Failure(cell, reason) for cell in left]
        time.sleep(1)
    return []
