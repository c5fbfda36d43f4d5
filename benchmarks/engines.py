"""What an engine adds to the cells that it runs: one process, two shards, and Ray with two actors.

    python benchmarks/engines.py [--cells N] [--seconds S] [--engines one shards ray] [--json FILE]

A cell sleeps, so that no processor is in the way, and writes when it began and when it ended. `busy / own` is the time
from the first beginning to the last end in each process, over the time of the cells themselves: what is more than 1
went into asking for the next cell, looking whether it is done, and writing its file. `start` is what passes before the
first cell begins, once: the import of torch in each process and, with Ray, the start of a cluster.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from common import arguments, write

from zigzag.evaluation.engines import add_engine_options, run, sharing
from zigzag.support.files import write_json

ENGINES: Final = ("one", "shards", "ray")
SHARDS: Final = 2


@dataclass(frozen=True)
class NoModel:
    """What a cell that sleeps needs."""

    def load(self) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Sleeps:
    """Sleeps, and writes when."""

    folder: Path
    number: int
    seconds: float
    worker: NoModel = NoModel()
    cost: int = 1

    @property
    def digest(self) -> str:
        """Its number."""
        return str(self.number)

    @property
    def about(self) -> str:
        """Its number."""
        return f"cell {self.number}"

    @property
    def file(self) -> Path:
        """When it began and ended, and in which process."""
        return self.folder / f"{self.number}.json"

    def done(self) -> bool:
        """Whether it is written."""
        return self.file.exists()

    def run(self, model: None) -> None:
        """Sleeps, and writes."""
        begin = time.time()
        time.sleep(self.seconds)
        write_json(self.file, {"begin": begin, "end": time.time(), "process": os.getpid()})


def main() -> None:
    """Measures, prints and writes."""
    parser = arguments(__doc__)
    parser.add_argument("--cells", type=int, default=40, help="how many cells (default: 40)")
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds of each (default: 1)")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES, help="which (default: all)")
    parser.add_argument("--folder", type=Path, help="run the cells of this folder, and measure nothing")
    add_engine_options(parser)
    args = parser.parse_args()
    count, seconds = (4, 0.1) if args.quick else (args.cells, args.seconds)
    if args.folder is not None:
        with sharing(args) as shard:
            run(cells_of(args.folder, count, seconds), args.engine, shard)
        return
    results: dict[str, Any] = {}
    for name in args.engines:
        with TemporaryDirectory() as folder:
            results[name] = measure(name, cells_of(Path(folder), count, seconds))
        figures = results[name]
        said = (
            f"busy / own = {figures['ratio']:.4f}   ({figures['processes']} processes, start {figures['start']:.1f} s)"
        )
        print(f"{name:6} {said}")
    load = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    print(f"{count} cells of {seconds:g} s; load over 1, 5 and 15 minutes {load}")
    write(args.json, results, ["ray"] if "ray" in args.engines else [], cells=count, seconds=seconds, load=load)


def cells_of(folder: Path, count: int, seconds: float) -> list[Sleeps]:
    """The cells of a folder."""
    return [Sleeps(folder, k, seconds) for k in range(count)]


def measure(name: str, cells: list[Sleeps]) -> dict[str, float]:
    """Runs the cells by an engine, and reads what they wrote."""
    first, begin = cells[0], time.time()
    if name == "shards":
        given = [f"--folder={first.folder}", f"--cells={len(cells)}", f"--seconds={first.seconds}"]
        words = [sys.executable, __file__, *given]
        shards = [subprocess.Popen([*words, f"--shard={k}/{SHARDS}"]) for k in range(SHARDS)]
        codes = [shard.wait() for shard in shards]
        if any(codes):
            raise RuntimeError("a shard failed")
    elif failures := run(cells, "ray" if name == "ray" else None):
        raise RuntimeError(str(failures[0]))
    spans: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for cell in cells:
        what = json.loads(cell.file.read_text(encoding="utf-8"))
        spans[what["process"]].append((what["begin"], what["end"]))
    busy = sum(max(end for _, end in span) - min(start for start, _ in span) for span in spans.values())
    own = sum(end - start for span in spans.values() for start, end in span)
    start = min(start for span in spans.values() for start, _ in span) - begin
    return {"ratio": busy / own, "processes": len(spans), "start": start}


if __name__ == "__main__":
    main()
