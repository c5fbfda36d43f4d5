"""A bench of 288 images has one digest, whichever engine ran it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("scipy")
from support import engine_bench
from zigzag.evaluation.cells import digest


@pytest.fixture(scope="module")
def by_one_process(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    engine_bench.main([str(folder)])
    return folder


def test_of_two_shards(by_one_process: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine_bench.main([str(tmp_path), "--shard", "1/2"])
    engine_bench.main([str(tmp_path), "--shard", "0/2"])
    said = capsys.readouterr().out.splitlines()
    assert "shard 1/2: all of its 18 cells are done; 18 of 36 are left" in said[0]
    assert "and so are all 36" in said[1]
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.jsonl")}
    engine_bench.main([str(tmp_path)])
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.jsonl")} == before
    assert digest(tmp_path) == digest(by_one_process)


def test_of_torchrun(by_one_process: Path, tmp_path: Path) -> None:
    script = str(engine_bench.__file__)
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", script, tmp_path]
    subprocess.run([*words, "--shard=auto"], env=os.environ, check=True, capture_output=True, timeout=120)
    assert digest(tmp_path) == digest(by_one_process)


def test_of_ray(by_one_process: Path, tmp_path: Path, ray_cluster: str) -> None:
    engine_bench.main([str(tmp_path), "--engine", "ray"])
    assert digest(tmp_path) == digest(by_one_process)
