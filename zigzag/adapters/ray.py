"""A pool of Ray's actors: each is a process that keeps what it has loaded, on a GPU of its own where there are any."""

from __future__ import annotations

import logging
import os
import pickle
import re
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from zigzag.support.extras import require

__all__ = ["Actors", "actors", "connected"]

Do: TypeAlias = "Callable[[Any], str | None]"

# Read by Ray when it is imported and started: a cluster of one machine then listens on the loopback alone, and tells
# nobody that it is used. What the user has set stays.
_OWN = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


@dataclass(frozen=True)
class _Setting:
    """What an actor takes over from its driver. Sums over another number of threads round otherwise."""

    folder: str
    paths: tuple[str, ...]
    threads: int

    def enter(self) -> None:
        if not os.path.isdir(self.folder):
            raise FileNotFoundError(f"{socket.gethostname()} has no {self.folder}: all machines must share this folder")
        os.chdir(self.folder)
        sys.path += [path for path in self.paths if path not in sys.path]
        torch.set_num_threads(self.threads)


class _Actor:
    """What runs in the process of an actor."""

    def __init__(self, make: Callable[[], Do], setting: _Setting) -> None:
        self._make, self._setting = make, setting
        self._do: Do | None = None

    def do(self, item: bytes) -> str | None:
        if self._do is None:  # here, because Ray tells of what a constructor raises as of a death
            self._setting.enter()
            self._do = self._make()
        return self._do(pickle.loads(item))


class Actors:
    """Actors that are given one item at a time; one that dies is replaced.

    Attributes:
        count: how many. patience: seconds after which a file that one wrote is to be seen from here.
    """

    patience = 60.0  # as long as a client of NFS holds a folder for unchanged, by default

    def __init__(self, ray: Any, start: Callable[[], Any], count: int) -> None:
        self._ray, self._start, self.count = ray, start, count
        self._actors = [start() for _ in range(count)]
        self._busy: dict[Any, int] = {}

    def give(self, actor: int, item: Any) -> None:
        """Lets an actor begin an item."""
        # As bytes: it is to be read after the actor has the driver's paths.
        self._busy[self._actors[actor].do.remote(self._ray.cloudpickle.dumps(item))] = actor

    def wait(self) -> tuple[int, str | None]:
        """Waits for any of those that have one.

        Returns:
            Which it was, and what it answered, or that it died.

        Raises:
            Exception: what it raised.
        """
        (reference, *_), _ = self._ray.wait(list(self._busy), num_returns=1)
        actor = self._busy.pop(reference)
        try:
            return actor, self._ray.get(reference)
        except self._ray.exceptions.RayActorError:
            self._ray.kill(self._actors[actor])  # one that cannot be reached may be alive
            self._actors[actor] = self._start()
            return actor, "its worker's process died: killed, out of memory, or crashed"
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from None

    def close(self) -> None:
        """Ends them."""
        for actor in self._actors:
            self._ray.kill(actor)


@contextmanager
def actors(make: Callable[[], Do], most: int, address: str | None = None) -> Iterator[Actors]:
    """As many actors as there are GPUs or, without any, as often as the processors have this process's threads.

    Args:
        make: what each makes for itself, and gives its items to. most: no more actors than that.
        address: of a running cluster, "auto" for the one of this machine; None starts one here, and ends it.

    Raises:
        ImportError: without Ray, naming the extra that brings it.
        ConnectionError: where there is no cluster.
        ValueError: where no machine of the cluster has a GPU, or as many processors as this process has threads.
    """
    with connected(address or "local") as ray:
        pool = _pool(ray, make, most)
        try:
            yield pool
        finally:
            pool.close()


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """The module `ray`, connected to the cluster at `address` ("local": one that is started here, and ended), unless
    this process is connected to one already.

    Raises:
        ImportError, ConnectionError: as `actors`.
    """
    for name, value in _OWN.items():
        os.environ.setdefault(name, value)
    ray = require("ray", "--engine ray needs Ray", "ray")
    if ray.is_initialized():
        yield ray
        return
    _answers(address)
    ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield ray
    finally:
        ray.shutdown()


def _answers(address: str) -> None:
    """Raises ConnectionError where nothing listens, which Ray itself takes minutes to say."""
    found = re.fullmatch(r"(?:ray://)?(.+):(\d+)", address)
    if found is None:  # "auto", "local"
        return
    try:
        socket.create_connection((found[1], int(found[2])), timeout=10).close()
    except OSError as error:
        raise ConnectionError(f"engine ray={address}: nothing answers there: {error}") from error


def _pool(ray: Any, make: Callable[[], Do], most: int) -> Actors:
    threads = torch.get_num_threads()
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = sum(int(has.get("GPU", 0)) for has in machines)
    count = gpus or sum(int(has.get("CPU", 0)) // threads for has in machines)
    if not count:
        raise ValueError(
            f"no machine of Ray's cluster has a GPU, nor {threads} processors for as many threads: set OMP_NUM_THREADS"
        )
    needs = {"num_gpus": 1, "num_cpus": 0} if gpus else {"num_cpus": threads}
    kind = ray.remote(_Actor).options(max_restarts=0, max_task_retries=0, **needs)
    setting = _Setting(os.getcwd(), tuple(os.path.abspath(path) for path in sys.path), threads)
    return Actors(ray, lambda: kind.remote(make, setting), min(count, most))
