"""The unit of work: pure, named by all that it depends on, and written whole, so that any engine may run it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

__all__ = ["Cell", "Loaded", "Worker", "digest", "hashed"]

ROOMS = ("images", "verdicts")  # of an evaluation's folder: what a rerun reproduces


class Worker(Hashable, Protocol):
    """What cells need to run: a model, and where it comes from. Frozen and picklable; equal ones share one model."""

    def load(self) -> Any:
        """The model, loaded now."""
        ...


class Cell(Protocol):
    """One unit of work. Picklable; it holds no model."""

    @property
    def digest(self) -> str:
        """The hash of all that its result depends on: not the device, not the engine."""
        ...

    @property
    def worker(self) -> Worker:
        """What loads the model that it runs on."""
        ...

    @property
    def cost(self) -> int:
        """Model rows that it will take."""
        ...

    @property
    def about(self) -> str:
        """Its method and its first prompt, for whoever watches, and where it failed."""
        ...

    def done(self) -> bool:
        """Whether its file is there, whole.

        Raises:
            ValueError: for a damaged one that is not to be replaced.
        """
        ...

    def run(self, model: Any) -> None:
        """Computes its result, and writes its file by a temporary name and a rename."""
        ...


@dataclass(frozen=True, eq=False)
class Loaded:
    """A worker of a model that is there already, and that travels whole to where it is needed."""

    model: Any

    def load(self) -> Any:
        """The model."""
        return self.model


def hashed(content: Any) -> str:
    """The SHA-256 of what JSON takes, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def digest(folder: Path) -> str:
    """One hash of all images and verdicts in a folder: the same for every engine, any number of workers, any stops.

    It is of the names and the bytes of the files in `images` and `verdicts`. The seconds, which no rerun reproduces,
    are in `timings`, and the scores, which are made of the images, in `scores`.
    """
    whole = hashlib.sha256()
    for room in ROOMS:
        for path in sorted((folder / room).rglob("*")):
            if path.is_file() and not path.name.startswith("."):  # a temporary name of a process that was killed
                whole.update(f"{path.relative_to(folder).as_posix()} ".encode())
                whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()
