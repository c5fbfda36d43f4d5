"""Runs cells to the end, with a bar, and says what is left."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from zigzag.evaluation.cells import Cell, each_once
from zigzag.evaluation.engines.failures import Failed
from zigzag.evaluation.engines.running import run
from zigzag.evaluation.engines.shards import Shard, share
from zigzag.support.progress import rows_bar

__all__ = ["complete", "left_of"]


def complete(
    cells: Sequence[Cell],
    engine: str | None = None,
    shard: Shard | None = None,
    progress: bool = False,
    each: Callable[[Cell], object] = lambda cell: None,
) -> None:
    """`zigzag.evaluation.engines.run`, with a bar of the rows that are left.

    Raises:
        Failed: after the others are done, where cells failed every time.
        Exception: as `run`.
    """
    mine = share(each_once(cells), shard)
    left = [cell for cell in mine if not cell.done()]
    with rows_bar(sum(cell.cost for cell in left), progress) as tick:
        failures = run(left, engine, tick=tick, each=each)
    if failures:
        raise Failed(failures, len(mine))


def left_of(cells: Sequence[Cell], shard: Shard, result: str) -> str:
    """What is to be done after a shard, in a line.

    Args:
        result: what the same command makes of all cells, "the table".
    """
    (k, n), left = shard, sum(not cell.done() for cell in cells)
    mine = f"shard {k}/{n}: all of its {len(share(cells, shard))} cells are done"
    if left:
        return f"{mine}; {left} of {len(cells)} are left to others. Then the same command without --shard: {result}"
    return f"{mine}, and so are all {len(cells)}. Now the same command without --shard: {result}"
