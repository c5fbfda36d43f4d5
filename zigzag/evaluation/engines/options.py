"""The options `--shard` and `--engine` of commands that run cells."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

from zigzag.evaluation.engines.failures import Failed
from zigzag.evaluation.engines.shards import Shard, shard_of, take_device, wait_for_others

__all__ = ["add_engine_options", "meet", "sharing"]


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Adds them; where they are not given, one process does everything."""
    options = parser.add_argument_group("several processes")
    options.add_argument(
        "--shard",
        metavar="K/N",
        help="do every N-th part of the work, K from 0 to N − 1; 'auto': those of a SLURM array, srun or torchrun",
    )
    options.add_argument(
        "--engine",
        metavar="ray[=ADDRESS]",
        help="ray: a worker for each GPU, or for as many processors as torch has threads, on this machine or in the "
        "cluster at ADDRESS, with retries",
    )


@contextmanager
def sharing(args: argparse.Namespace) -> Iterator[Shard | None]:
    """The shard that is asked for, while its cells are run.

    With `auto`, `cuda` means a GPU of this process's own, and a process that is done, or has cells that failed, waits
    for the others of torchrun, which ends all as soon as one fails.

    Raises:
        ValueError: for what is no shard, and `auto` where nothing counts processes.
    """
    if args.shard is None:
        yield None
        return
    shard = shard_of(args.shard)
    if args.shard != "auto":
        yield shard
        return
    take_device()
    try:
        yield shard
    except Failed:
        meet(args)
        raise
    meet(args)


def meet(args: argparse.Namespace) -> None:
    """Waits until torchrun's other processes are where this one is; elsewhere, and without `auto`, for nobody."""
    if args.shard == "auto":
        wait_for_others()
