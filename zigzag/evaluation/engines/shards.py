"""Which cells are whose, where several processes share them without knowing of one another."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from itertools import count

import torch
from torch.distributed.rendezvous import rendezvous

from zigzag.evaluation.cells import AnyCell

__all__ = ["Shard", "shard_of", "share", "take_device", "wait_for_others"]

Shard = tuple[int, int]  # k of n, counted from 0

# A name in the environment for k and one for n, as torchrun and srun document them, the first that is there counting.
# SLURM_NTASKS is no n: a batch script has it too, in which there is one process whatever it says.
_TASKS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"))
_LOCAL = ("LOCAL_RANK", "SLURM_LOCALID")
_meetings = count()


def share(cells: Sequence[AnyCell], shard: Shard | None) -> list[AnyCell]:
    """The cells of a shard, in the order given: every n-th of those ordered by cost, so that shards cost alike.

    It depends on nothing but the cells: not on what is done, which another shard may be changing just now.
    """
    if shard is None:
        return list(cells)
    k, n = shard
    mine = sorted(range(len(cells)), key=lambda i: -cells[i].cost)[k::n]
    return [cells[i] for i in sorted(mine)]


def shard_of(text: str, environ: Mapping[str, str] = os.environ) -> Shard:
    """The shard that `k/n` names, or for `auto` the place of this process in a SLURM array, srun or torchrun.

    Tasks of an array that are several processes each, by srun or torchrun, are counted through: process p of P in the
    a-th task of A is `(a·P + p)/(A·P)`.

    Raises:
        ValueError: for anything else, k out of range, `auto` where none of these is around, and an array with gaps.
    """
    if text == "auto":
        return _place(environ)
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if found is None:
        raise ValueError(f"shard must be k/n, as 0/8, or auto, got {text!r}")
    k, n = int(found[1]), int(found[2])
    if k >= n:
        raise ValueError(f"shard k/n must have k from 0 to n − 1, got {text}")
    return k, n


def _place(environ: Mapping[str, str]) -> Shard:
    array = _array(environ)
    names = next((names for names in _TASKS if all(name in environ for name in names)), None)
    if array is None and names is None:
        raise ValueError(
            "shard auto found neither a SLURM array (SLURM_ARRAY_TASK_ID), nor srun (SLURM_PROCID and "
            "SLURM_STEP_NUM_TASKS), nor torchrun (RANK and WORLD_SIZE): pass k/n"
        )
    a, jobs = array or (0, 1)
    p, each = (int(environ[name]) for name in names) if names else (0, 1)
    return a * each + p, jobs * each


def _array(environ: Mapping[str, str]) -> Shard | None:
    if "SLURM_ARRAY_TASK_ID" not in environ:
        return None
    number, tasks, least, most, step = (
        int(environ[f"SLURM_ARRAY_TASK_{name}"]) for name in ("ID", "COUNT", "MIN", "MAX", "STEP")
    )
    if tasks == 1:
        return 0, 1
    if (most - least) // step + 1 != tasks:
        raise ValueError(
            f"shard auto needs an array without gaps, as --array=0-7, got {tasks} tasks from {least} to {most}: "
            "pass k/n"
        )
    return (number - least) // step, tasks


def take_device(environ: Mapping[str, str] = os.environ) -> None:
    """Makes `cuda` mean this process's own GPU among those that it sees, where srun or torchrun count it on its
    machine.
    """
    local = next((int(environ[name]) for name in _LOCAL if name in environ), None)
    if local is not None and torch.cuda.is_available():
        torch.cuda.set_device(local % torch.cuda.device_count())


def wait_for_others(environ: Mapping[str, str] = os.environ, every: float = 1.0) -> None:
    """Returns once all of torchrun's processes have called it as often as this one; elsewhere at once.

    It ends them all as soon as one of them fails.
    """
    if "TORCHELASTIC_RUN_ID" not in environ:
        return
    store, _, processes = next(iter(rendezvous("env://")))
    name = f"zigzag: processes at their meeting {next(_meetings)}"
    arrived = store.add(name, 1)
    while arrived < processes:
        time.sleep(every)
        arrived = store.add(name, 0)
