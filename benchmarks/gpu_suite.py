"""All that is to be measured on a GPU, in three calls of under ten minutes each.

    python benchmarks/gpu_suite.py 1 [--out FOLDER]      the tests for a GPU, the kernel, a small network
    python benchmarks/gpu_suite.py 2 [--out FOLDER]      SDXL, at 512² and 1024², batch 1 and 4
    python benchmarks/gpu_suite.py 3 [--out FOLDER]      Hunyuan-DiT, and Flux
    python benchmarks/gpu_suite.py --report FILE ...     what they wrote, as the section of RESULTS.md

Each figure is taken in a process of its own with a time limit of its own (`gpu.py`, `kernel.py`, pytest), so that none
that dies or hangs costs another. `gpu.json` in the folder ($OUT, or out/gpu) is written after each; figures that are in
it are not taken again, so that a second call goes on where the budget ended the first. What is left out is named, with
the reason.

It runs from any folder, on the checkout that it lies in, which needs no installation. Wheels in the checkout's folder
.whl, or in $WHEELS, are unpacked for it: pure Python ones, for a machine that has torch and no index. Call 1 needs
torch alone (and pytest, hypothesis for the tests); the other two need diffusers, with importlib_metadata and what else
it imports, and say where it is missing.

`--dry` runs a call on a CPU, on small networks and with CUDA's calls stubbed: it shows that the suite works.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent
BENCHMARKS: Final = ROOT / "benchmarks"
STARTING = 15.0  # seconds that a process takes before it measures


class Figure(NamedTuple):
    """What is measured, by which command, in how many seconds at most.

    needs: a distribution without which it is left out.
    """

    name: str
    command: tuple[str, ...]
    limit: float
    needs: str = "torch"


def of(figure: str, network: str, size: int, batch: int, limit: float, dry: bool) -> Figure:
    """A figure of `gpu.py`. A dry one is of a small network of the same kind."""
    name = f"{network}, {size}², batch {batch}: {figure}"
    small = {"sdxl": "small-unet", "hunyuan": "small-hunyuan", "flux": "small-flux"}
    more = ["--dry", "--quick", "--steps", "4"] if dry else []
    command = (
        str(BENCHMARKS / "gpu.py"), figure, "--network", small.get(network, network) if dry else network,
        "--size", str(8 if dry else size), "--batch", str(batch), *more,
    )  # fmt: skip
    return Figure(name, command, limit, "torch" if network == "plain" else "diffusers")


def figures(call: int, dry: bool) -> list[Figure]:
    """Those of a call, what matters most first."""
    if call == 1:
        tests = (
            ("tests/capture/test_graphs_gpu.py",) if dry else ("tests/capture", "tests/adapters/test_attach_graphs.py")
        )
        kernel = ("--device", "cpu", "--quick") if dry else ()
        plain = {"speed": 60, "methods": 60, "syncs": 45, "memory": 45, "compiled": 150, "reduce-overhead": 120}
        return [
            Figure("tests", ("-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *tests), 240, "pytest"),
            Figure("kernel", (str(BENCHMARKS / "kernel.py"), *kernel), 90),
            *(of(name, "plain", 32, 1, limit, dry) for name, limit in plain.items()),
        ]
    if call == 2:
        wanted = [
            ("speed", 64, 1, 90), ("speed", 128, 1, 90), ("compiled", 64, 1, 240), ("attach", 64, 1, 90),
            ("speed", 64, 4, 90), ("speed", 128, 4, 120), ("methods", 128, 1, 120), ("syncs", 64, 1, 60),
            ("memory", 128, 1, 90), ("reduce-overhead", 64, 1, 240), ("compiled", 128, 1, 240), ("attach", 128, 1, 90),
        ]  # fmt: skip
        return [of(name, "sdxl", size, batch, limit, dry) for name, size, batch, limit in wanted]
    listed = [
        ("speed", "hunyuan", 64, 1, 90), ("speed", "hunyuan", 128, 1, 90), ("speed", "flux", 128, 1, 150),
        ("compiled", "hunyuan", 64, 1, 240), ("methods", "hunyuan", 128, 1, 120), ("speed", "flux", 64, 1, 120),
        ("speed", "hunyuan", 64, 4, 90), ("memory", "flux", 128, 1, 150), ("syncs", "hunyuan", 64, 1, 60),
    ]  # fmt: skip
    return [of(*each, dry) for each in listed]


def unpacked(folders: Sequence[Path], into: Path) -> list[str]:
    """Unpacks the wheels of the folders, and names them. A pure one is a folder of packages, zipped."""
    wheels = sorted(wheel for folder in folders if folder.is_dir() for wheel in folder.glob("*.whl"))
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(into)
    return [wheel.name for wheel in wheels]


def environment(site: Path) -> dict[str, str]:
    """Of the processes: this checkout before all that is installed, what was unpacked after it."""
    paths = [str(ROOT), str(BENCHMARKS), str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


def has(package: str, env: dict[str, str]) -> bool:
    """Whether a process can import it."""
    done = subprocess.run([sys.executable, "-c", f"import {package}"], env=env, capture_output=True, cwd=ROOT)
    return done.returncode == 0


def taken(figure: Figure, env: dict[str, str], limit: float) -> dict[str, Any]:
    """The record of a figure: what it printed and wrote, or why there is none."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "figure.json"
        tests = figure.command[0] == "-m"
        command = [sys.executable, *figure.command, *(() if tests else ("--json", str(file)))]
        try:
            done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=limit)
        except subprocess.TimeoutExpired as late:
            told = late.stdout.decode() if isinstance(late.stdout, bytes) else late.stdout or ""
            return {"left_out": f"took more than {limit:.0f} s", "lines": told.splitlines()[-5:]}
        record: dict[str, Any] = {"seconds": round(time.monotonic() - began, 1), "code": done.returncode}
        printed = done.stdout.splitlines()
        said = (done.stderr.strip() or "died without a word").splitlines()[-1]
        if tests:
            record["lines"] = [line for line in printed if re.match(r"FAILED|ERROR|.* (passed|failed|skipped)\b", line)]
            return record if record["lines"] else {**record, "left_out": said}
        record["lines"] = printed
        if file.exists():
            record["figure"] = json.loads(file.read_text())
        elif done.returncode:
            record["left_out"] = said
        return record


class Book:
    """The records, in a file that is whole at any time."""

    def __init__(self, file: Path, dry: bool) -> None:
        self.file, self.dry = file, dry
        self.records: dict[str, dict[str, Any]] = {}
        if file.exists():
            known = json.loads(file.read_text())
            if known["dry"] == dry:
                self.records = known["records"]

    def __contains__(self, name: str) -> bool:
        return name in self.records and "left_out" not in self.records[name]

    def put(self, name: str, record: dict[str, Any]) -> None:
        """Keeps a record, and says it."""
        self.records[name] = record
        self.file.parent.mkdir(parents=True, exist_ok=True)
        part = self.file.with_suffix(".part")
        part.write_text(json.dumps({"dry": self.dry, "records": self.records}, indent=1))
        part.replace(self.file)
        print(f"== {name} ({record.get('seconds', '-')} s)", flush=True)
        for line in [*record.get("lines", ()), *filter(None, [record.get("left_out")])]:
            print(f"   {line}", flush=True)


def run(todo: Sequence[Figure], book: Book, budget: float, wheels: Sequence[Path]) -> None:
    """Takes the figures, as long as there is time."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for name in unpacked(wheels, Path(folder)):
            print(f"unpacked {name}")
        env, known = environment(Path(folder)), {}
        for figure in todo:
            if figure.name in book:
                continue
            left = budget - (time.monotonic() - began)
            if figure.needs not in known:
                known[figure.needs] = has(figure.needs, env)
            if not known[figure.needs]:
                book.put(figure.name, {"left_out": f"{figure.needs} is not installed"})
            elif left < 2 * STARTING:
                book.put(figure.name, {"left_out": "no time"})
            else:
                book.put(figure.name, taken(figure, env, min(figure.limit, left)))


# What a captured loop is expected to do, to be contradicted by measurement.
WANTED: Final = (
    "Wanted: captured over eager 1.00 to 1.05 at 1024², 1.5 to 2.5 at 512² and on the small network; the fused kernel "
    "at 0.8 of a copy at least; Z² over standard at most 1.005; no host sync in a captured step; all tests passed."
)


def report(files: Sequence[Path]) -> Iterator[str]:
    """The section of RESULTS.md, line by line.

    Raises:
        ValueError: for a file of a dry run, whose figures mean nothing.
    """
    records: dict[str, dict[str, Any]] = {}
    for file in files:
        known = json.loads(file.read_text())
        if known["dry"]:
            raise ValueError(f"{file} is of a dry run, on a CPU: its figures mean nothing")
        records |= known["records"]
    made = [record["figure"] for record in records.values() if "figure" in record]
    yield "## gpu_suite.py: on a GPU"
    yield ""
    yield "`python benchmarks/gpu_suite.py 1`, `2` and `3`" + (f", {made[0]['date']}:" if made else ":")
    yield ""
    yield "```"
    for name, record in records.items():
        if "left_out" not in record:
            yield f"{name}:"
            yield from (f"  {line}" for line in record["lines"] if not made or line not in _places(made))
    yield from sorted(_places(made))
    yield "```"
    yield ""
    if left := [f"{name} ({record['left_out']})" for name, record in records.items() if "left_out" in record]:
        yield f"Left out: {'; '.join(left)}."
        yield ""
    yield WANTED


def _places(made: Sequence[dict[str, Any]]) -> set[str]:
    return {f"{figure['machine']}; {figure['versions']}" for figure in made}


def main(given: Sequence[str] | None = None) -> int:
    """Runs a call, or prints the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("call", nargs="?", type=int, choices=(1, 2, 3))
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT") or ROOT / "out/gpu"))
    parser.add_argument("--budget", type=float, default=560, help="seconds in all (default: 560)")
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="the figures whose names hold one of these texts")
    parser.add_argument("--dry", action="store_true", help="on a CPU, with CUDA's calls stubbed")
    parser.add_argument(
        "--report", nargs="+", type=Path, metavar="FILE", help="print the section of RESULTS.md, and end"
    )
    args = parser.parse_args(given)
    if args.report:
        try:
            print("\n".join(report(args.report)))
        except ValueError as error:
            print(error, file=sys.stderr)
            return 2
        return 0
    if args.call is None:
        parser.error("which call? 1, 2 or 3")
    todo = [f for f in figures(args.call, args.dry) if not args.only or any(text in f.name for text in args.only)]
    book = Book(args.out / "gpu.json", args.dry)
    wheels = [Path(os.environ["WHEELS"])] if os.environ.get("WHEELS") else [ROOT / ".whl"]
    run(todo, book, args.budget, wheels)
    return int(any(book.records[f.name].get("code") for f in todo))


if __name__ == "__main__":
    sys.exit(main())
