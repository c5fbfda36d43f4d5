"""Small cells for engines: what each does when it is run, besides writing its file."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zigzag.support.files import replacing

TESTS = Path(__file__).parents[1]


@dataclass(frozen=True)
class Loads:
    """A model that is a number; each load is noted in a file."""

    number: int = 0
    log: Path | None = None

    def load(self) -> int:
        if self.log is not None:
            note(self.log, f"load {self.number}")
        return self.number


@dataclass(frozen=True)
class Unloadable:
    """A model that is not to be had."""

    def load(self) -> int:
        raise OSError("cannot load model nowhere: there are no weights")


@dataclass(frozen=True)
class Writes:
    """Writes its name and its model; `log` has a line for each time that it was begun."""

    folder: Path
    name: str
    worker: Any = Loads()
    cost: int = 1
    seconds: float = 0.0

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.name.encode()).hexdigest()

    @property
    def about(self) -> str:
        return f"Z, {self.name!r}"

    @property
    def file(self) -> Path:
        return self.folder / "results" / f"{self.name}.txt"

    def done(self) -> bool:
        return self.file.exists()

    def run(self, model: int) -> None:
        note(self.folder / "log", self.name)
        time.sleep(self.seconds)
        self.before()
        with replacing(self.file) as temporary:
            temporary.write_text(f"{self.name} by {model}\n" * 1000)

    def before(self) -> None:
        """What goes wrong with it."""


@dataclass(frozen=True)
class Raises(Writes):
    """Raises as often as `times` says, over all processes."""

    times: int = 99
    error: Exception = ValueError("the sky is\nred")  # noqa: RUF009

    def before(self) -> None:
        if begun(self.folder).count(self.name) <= self.times:
            raise self.error


@dataclass(frozen=True)
class Kills(Writes):
    """Kills its process as often as `times` says."""

    times: int = 99

    def before(self) -> None:
        if begun(self.folder).count(self.name) <= self.times:
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Forgets(Writes):
    """Writes nothing."""

    def run(self, model: int) -> None:
        pass


# Runs the cells of `argv[2]`, an expression, as another process would, once `argv[4]` processes are up.
CHILD = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from support.cells import *
from zigzag.evaluation.engines import run
folder = Path(sys.argv[3])
(folder / str(os.getpid())).touch()
while len(list(folder.iterdir())) < int(sys.argv[4]):
    time.sleep(0.01)
run(eval(sys.argv[2]), *sys.argv[5:])
"""


def start(cells: str, folder: Path, count: int = 1, engine: str | None = None) -> list[subprocess.Popen[bytes]]:
    """Several processes, each of which runs the same cells when all are up."""
    folder.mkdir()
    words = [sys.executable, "-c", CHILD, TESTS, cells, folder, str(count), *([engine] if engine else [])]
    return [subprocess.Popen(words, env=os.environ) for _ in range(count)]


def note(log: Path, line: str) -> None:
    """Adds a line, in one write, as several processes do."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        file.write(f"{line}\n")


def begun(folder: Path) -> list[str]:
    """The names of the cells that were begun, in order."""
    log = folder / "log"
    return log.read_text().splitlines() if log.exists() else []


def digest_of(folder: Path) -> str:
    """The digest of all results: of the names and the bytes of the files there."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            digest.update(f"{file.relative_to(folder)}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def writers(folder: Path, count: int, **given: Any) -> list[Writes]:
    """Cells that write, of different costs."""
    return [Writes(folder, f"prompt-{k}", cost=1 + k * 7 % 5, **given) for k in range(count)]
