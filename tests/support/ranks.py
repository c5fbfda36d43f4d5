"""Checks that run on several processes of a gloo group on the loopback: what is imported is imported once, and forked.

A file of checks calls `main(CHECKS)` as a script, and a test reads what came of them by `failures(file, sizes)`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor

Check: TypeAlias = Callable[[int, int], None]
SECONDS = 60  # of an exchange, where it is not what a check is about
LIMIT = 180  # of a file of checks, on any number of processes


def failures(file: Path, sizes: Sequence[int]) -> dict[str, str]:
    """By check, number of ranks and rank, what was raised; and what the processes left unsaid."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(file), folder, *map(str, sizes)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        with subprocess.Popen(
            command, env=environment, start_new_session=True, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:  # fmt: skip
            try:
                said, _ = process.communicate(timeout=LIMIT)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                said, _ = process.communicate()
        found: dict[str, str] = {}
        for size in sizes:
            for rank in range(size):
                report = Path(folder) / f"{rank} of {size}.json"
                results = json.loads(report.read_text()) if report.exists() else {}
                if not results.pop("all", None):
                    found[f"rank {rank} of {size}"] = f"has not made all checks; the processes said: {said}"
                found |= {f"{name}, rank {rank} of {size}": error for name, error in results.items() if error}
        return found


def main(checks: Mapping[str, Check], limit: int = LIMIT) -> None:
    """Runs checks on the numbers of processes that the command line says, and writes what came of them to its folder.

    The last one may end its process.
    """
    folder, *sizes = sys.argv[1:]
    for size in map(int, sizes):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        children = []
        for rank in range(size):
            if not (child := os.fork()):
                signal.alarm(limit)  # which ends it, wherever it is
                _rank(checks, rank, size, port, Path(folder) / f"{rank} of {size}.json")
            children.append(child)
        for child in children:
            os.waitpid(child, 0)


def _rank(checks: Mapping[str, Check], rank: int, size: int, port: int, report: Path) -> None:
    results: dict[str, object] = {}
    try:
        address, limit = f"tcp://127.0.0.1:{port}", timedelta(seconds=SECONDS)
        dist.init_process_group("gloo", init_method=address, rank=rank, world_size=size, timeout=limit)
        for name, check in checks.items():
            results["all"] = name == list(checks)[-1]
            report.write_text(json.dumps(results))
            try:
                check(rank, size)
            except BaseException:
                results[name] = traceback.format_exc()
            report.write_text(json.dumps(results))
    finally:
        os._exit(0)


def same_on_all(x: Tensor) -> bool:
    """Whether all ranks have the same bits."""
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x.contiguous())
    return all(torch.equal(part, x) for part in parts)


@contextmanager
def raises(kind: type[BaseException], *words: str) -> Iterator[None]:
    """That the block raises, and says these words."""
    try:
        yield
    except kind as error:
        missing = [word for word in words if word not in str(error)]
        assert type(error) is kind and not missing, f"{error!r} does not say {missing}"
    else:
        raise AssertionError(f"{kind.__name__} was not raised")
