"""Every cell is in one shard, shards cost alike, and `auto` reads what SLURM and torchrun document."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from support.cells import Writes
from zigzag.evaluation.engines.shards import shard_of, share, take_device, wait_for_others

costs = st.lists(st.integers(1, 50), max_size=40)


def of(costs: list[int]) -> list[Writes]:
    return [Writes(Path("nowhere"), str(k), cost=cost) for k, cost in enumerate(costs)]


@given(costs, st.integers(1, 9))
def test_every_cell_is_in_one_shard(costs: list[int], n: int) -> None:
    cells = of(costs)
    shares = [share(cells, (k, n)) for k in range(n)]
    assert Counter(cell.name for mine in shares for cell in mine) == Counter(cell.name for cell in cells)
    for mine in shares:
        assert mine == [cell for cell in cells if cell in mine], "not in the order given"


@given(costs, st.integers(1, 9))
def test_no_shard_is_dearer_than_another_by_more_than_the_dearest_cell(costs: list[int], n: int) -> None:
    totals = [sum(cell.cost for cell in share(of(costs), (k, n))) for k in range(n)]
    assert max(totals) - min(totals) <= max(costs, default=0)


def test_without_a_shard_all_are_mine() -> None:
    assert share(of([3, 1, 2]), None) == of([3, 1, 2])


def test_a_shard_is_counted_from_nought() -> None:
    assert shard_of("0/8") == (0, 8)
    assert shard_of("7/8") == (7, 8)


@pytest.mark.parametrize("text", ["8/8", "1/0", "-1/8", "1", "a/b", "1/2/3", "0.5/2", ""])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"shard .*k/n"):
        shard_of(text)


def array(number: int, least: int, most: int, step: int, count: int) -> dict[str, str]:
    values = {"ID": number, "MIN": least, "MAX": most, "STEP": step, "COUNT": count}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


SRUN = {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "4"}
TORCHRUN = {"RANK": "2", "WORLD_SIZE": "3"}


@pytest.mark.parametrize(
    ("environ", "shard"),
    [
        (array(0, 0, 7, 1, 8), (0, 8)),
        (array(8, 1, 8, 1, 8), (7, 8)),  # --array=1-8
        (array(6, 0, 9, 3, 4), (2, 4)),  # --array=0-9:3
        (array(5, 5, 5, 1, 1), (0, 1)),  # one task again: all that is left
        (SRUN, (1, 4)),
        (TORCHRUN, (2, 3)),
        ({**SRUN, **TORCHRUN}, (2, 3)),  # torchrun started by srun counts over all machines
        ({**array(2, 0, 3, 1, 4), **SRUN}, (9, 16)),
        ({**array(2, 0, 3, 1, 4), **TORCHRUN}, (8, 12)),
        ({**array(2, 0, 3, 1, 4), "SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, (2, 4)),  # the batch script itself
    ],
)  # fmt: skip
def test_auto_is_the_place_among_all_processes(environ: dict[str, str], shard: tuple[int, int]) -> None:
    assert shard_of("auto", environ) == shard


def test_the_processes_of_an_array_of_jobs_have_every_place_once() -> None:
    places = [
        shard_of("auto", {**array(a, 0, 3, 1, 4), "RANK": str(p), "WORLD_SIZE": "3"})
        for a in range(4)
        for p in range(3)
    ]
    assert sorted(places) == [(k, 12) for k in range(12)]


def test_auto_where_nothing_counts_processes_is_refused() -> None:
    with pytest.raises(ValueError, match="pass k/n"):
        shard_of("auto", {"SLURM_PROCID": "0", "SLURM_NTASKS": "4"})


def test_an_array_with_gaps_is_refused() -> None:
    with pytest.raises(ValueError, match=r"without gaps.*got 2 tasks from 3 to 7"):
        shard_of("auto", array(3, 3, 7, 1, 2))


@pytest.mark.parametrize(("environ", "device"), [({"LOCAL_RANK": "3"}, 1), ({"SLURM_LOCALID": "0"}, 0), ({}, None)])
def test_a_process_takes_its_own_gpu(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], device: int | None
) -> None:
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    take_device(environ)
    assert taken == ([] if device is None else [device])


def test_elsewhere_than_under_torchrun_nobody_waits() -> None:
    wait_for_others({"RANK": "0", "WORLD_SIZE": "2"})


CHILD = """
import sys, time
from pathlib import Path
from zigzag.evaluation.engines.shards import shard_of, wait_for_others
k, n = shard_of("auto")
if k == 0:
    wait_for_others(every=0.05)  # it failed first, and torchrun would end the other
    sys.exit(3)
time.sleep(1)
(Path(sys.argv[1]) / "rest").touch()
wait_for_others(every=0.05)
"""


def test_a_process_that_failed_does_not_end_the_others_of_torchrun(tmp_path: Path) -> None:
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", script, tmp_path]
    ended = subprocess.run(words, env=os.environ, capture_output=True, timeout=60)
    assert ended.returncode != 0
    assert (tmp_path / "rest").exists()
