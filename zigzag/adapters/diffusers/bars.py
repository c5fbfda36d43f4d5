"""A pipeline's progress bar, which counts calls where they are more than its steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from zigzag.adapters.diffusers.progress import Progress
from zigzag.methods import is_steered

__all__ = ["counting"]


def counting(bar: Any, now: Progress, asks: Callable[[int, int], Sequence[int]]) -> Callable[[int], Any] | None:
    """Has the bar tick once a call: the pipeline would tick for the last `T` of them alone.

    Args:
        bar: that the pipeline has made. now: what is attached.
        asks: of a part of the grid, by its start and length, the calls of the path.

    Returns:
        What ticks it, once the pipeline does not any more; None where it is left to the pipeline.
    """
    total, plan = getattr(bar, "total", None), now.plan
    if plan is None or not isinstance(total, int):
        return None
    calls: int | None = total
    if is_steered(now.method):
        calls = None
    elif total <= len(groups := plan.rehearsed.groups) or total == len(now.grid):
        start = groups[-total].first if 0 < total <= len(groups) else 0
        try:
            calls = len(asks(start, len(now.grid) - start))
        except ValueError:  # said when the loop begins
            return None
    if calls == total and not total == len(now.scheduler.timesteps) != len(now.grid):
        return None
    bar.total, tick = calls, bar.update
    bar.update = lambda n=1: None
    ticks: Callable[[int], Any] = tick
    return ticks
