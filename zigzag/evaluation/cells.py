"""The unit of work: pure, named by all that it depends on, and written whole, so that any engine may run it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

__all__ = ["AnyCell", "Cell", "Loaded", "Worker", "clock_of", "decided", "digest", "each_once", "hashed"]

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


AnyCell = TypeVar("AnyCell", bound=Cell)


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


def decided(content: Mapping[str, Any]) -> str:
    """The hash of what a file says that it depends on, but for "sampler", the names, on which nothing depends."""
    return hashed({key: value for key, value in content.items() if key != "sampler"})


def each_once(cells: Iterable[AnyCell]) -> list[AnyCell]:
    """The cells, those with one result once."""
    return list({cell.digest: cell for cell in cells}.values())


def clock_of(device: torch.device) -> Callable[[], float]:
    """What times cells: on a CPU the processor, whose time other processes do not lengthen; a GPU's work is not in
    that, and has the clock on the wall."""
    return time.process_time if device.type == "cpu" else time.perf_counter


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
