"""Ray's actors run every cell once, whoever is killed; they make what one process makes."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

from support.cells import Forgets, Kills, Raises, Unloadable, Writes, begun, digest_of, start, writers
from zigzag.evaluation.engines import run

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_whatever_fails_the_rest_is_done_once(tmp_path: Path) -> None:
    good = writers(tmp_path / "ray", 9)
    flaky, killed = Raises(tmp_path / "ray", "flaky", times=2), Kills(tmp_path / "ray", "killed", times=1)
    bad, idle = Raises(tmp_path / "ray", "bad"), Forgets(tmp_path / "ray", "idle")
    rows: list[int] = []
    failures = run([bad, *good[:5], flaky, killed, idle, *good[5:]], engine="ray", tick=rows.append)
    said = {failure.cell.about: failure.reason for failure in failures}
    assert set(said) == {"Z, 'bad'", "Z, 'idle'"} and said["Z, 'bad'"].endswith(": the sky is red")
    times = Counter(begun(tmp_path / "ray"))
    assert times == {"bad": 3, "flaky": 3, "killed": 2, **{cell.name: 1 for cell in good}}
    assert sum(rows) == sum(cell.cost for cell in [*good, flaky, killed])
    run([*writers(tmp_path / "one", 9), Writes(tmp_path / "one", "flaky"), Writes(tmp_path / "one", "killed")])
    assert digest_of(tmp_path / "ray/results") == digest_of(tmp_path / "one/results")


def test_a_killed_driver_loses_nothing_and_repeats_nothing(tmp_path: Path, ray_cluster: str) -> None:
    cells = f"writers(Path({str(tmp_path)!r}), 12, seconds=0.2)"
    (driver,) = start(cells, tmp_path / "up", engine=f"ray={ray_cluster}")
    finished: list[Path] = []
    while len(finished) < 3:
        assert driver.poll() is None
        time.sleep(0.02)
        finished = list((tmp_path / "results").glob("*.txt"))
    driver.send_signal(signal.SIGKILL)
    assert driver.wait(30) == -signal.SIGKILL
    kept = {file: file.stat().st_mtime_ns for file in finished}
    run(writers(tmp_path, 12), engine="ray")
    assert all(cell.done() for cell in writers(tmp_path, 12))
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert all(begun(tmp_path).count(file.stem) == 1 for file in kept)
    run(writers(tmp_path / "one", 12))
    assert digest_of(tmp_path / "results") == digest_of(tmp_path / "one/results")


def test_a_model_that_is_not_to_be_had_ends_the_run_in_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"^cannot load model nowhere: there are no weights$"):
        run([Writes(tmp_path, "x", worker=Unloadable())], engine="ray")


def test_it_is_alone_on_this_machine(ray_cluster: str) -> None:
    import ray

    assert ray_cluster.startswith("127.0.0.1:")
    assert [node["NodeManagerAddress"] for node in ray.nodes()] == ["127.0.0.1"]
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


def test_machines_with_too_few_processors_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 999)
    with pytest.raises(ValueError, match=r"999 processors.*OMP_NUM_THREADS"):
        run(writers(tmp_path, 1), engine="ray")
