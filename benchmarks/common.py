"""What the benchmarks share: timing in turns, the line that says where, and the file of figures."""

from __future__ import annotations

import argparse
import datetime
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

from zigzag.support.files import write_json
from zigzag.support.machine import machine, versions

__all__ = ["Loop", "Ratio", "arguments", "in_turns", "median", "ratio", "write"]

Loop: TypeAlias = Callable[[], object]
CLOCKS: Final[dict[str, Callable[[], float]]] = {"wall": time.perf_counter, "cpu": time.process_time}


class Ratio(NamedTuple):
    """The median ratio of neighbouring runs, and the quartiles around it."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f} [{self.low:.3f}, {self.high:.3f}]"


def in_turns(
    loops: Sequence[Loop], runs: int, warm: int = 2, clock: str = "wall", synchronize: Loop | None = None
) -> list[list[float]]:
    """Seconds of every run of every loop, taken in turns: each round runs each loop once, in another order.

    Args:
        warm: rounds before the first that counts, which fill caches and compile.
        clock: "wall", or "cpu" for the time that this process had the processor.
        synchronize: waits for the device; called before the clock is read.
    """
    seconds: list[list[float]] = [[] for _ in loops]
    wait, now = synchronize or (lambda: None), CLOCKS[clock]
    for k in range(warm + runs):
        order = [(k // 2 + n) % len(loops) for n in range(len(loops))]
        for n in reversed(order) if k % 2 else order:  # so that none always follows the same one
            wait()
            start = now()
            loops[n]()
            wait()
            if k >= warm:
                seconds[n].append(now() - start)
    return seconds


def ratio(mine: Sequence[float], other: Sequence[float]) -> Ratio:
    """Of two lists that `in_turns` gave."""
    ratios = [a / b for a, b in zip(mine, other, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return Ratio(middle, low, high)


def median(seconds: Sequence[float], per: float = 1.0) -> float:
    """Of one list, for the record: the figure is always the ratio."""
    return statistics.median(seconds) / per


def arguments(doc: str | None, runs: int | None = None, clock: bool = False) -> argparse.ArgumentParser:
    """The options that every benchmark has; with `runs` by default, if it times, and on request the choice of clock."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if runs is not None:
        parser.add_argument("--runs", type=int, default=runs, help=f"runs of each side (default: {runs})")
    parser.add_argument("--quick", action="store_true", help="smallest sizes, few runs: shows that the script works")
    if clock:
        text = "wall time (default), or this process's own, which neighbours on a shared machine disturb less"
        parser.add_argument("--clock", choices=CLOCKS, default="wall", help=f"{text}; needs OMP_NUM_THREADS=1")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser


def write(path: Path | None, results: Any, packages: Sequence[str] = (), *, announce: bool = True, **more: Any) -> None:
    """Prints where the figures were taken, and with a path writes them there, all at once or not at all."""
    if announce:
        print(f"{machine()}; {versions(packages)}")
    if path is None:
        return
    record = {
        "command": " ".join(sys.argv),
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "versions": versions(packages),
        **more,
        "results": results,
    }
    write_json(path, record)
