"""A bench of 288 images has one digest, whichever engine ran it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("scipy")
pytest.importorskip("diffusers")
from support import engine_bench
from zigzag.evaluation.cells import digest


def by(folder: Path, *more: str) -> None:
    engine_bench.main([f"--out={folder}", *more])


@pytest.fixture(scope="module")
def by_one_process(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    by(folder)
    return folder


def test_of_two_shards(by_one_process: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    by(tmp_path, "--shard", "1/2")
    by(tmp_path, "--shard", "0/2")  # finds the first stage done, and begins the second
    by(tmp_path, "--shard", "1/2")
    *waiting, last = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in waiting] == ["shard 1/2", "shard 0/2"]
    assert all("cells are not done, the first of" in line for line in waiting)
    assert "and so is all else. Now the same command without --shard: the tables" in last
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.jsonl")}
    assert not (tmp_path / "bench.txt").exists()
    by(tmp_path)
    said = capsys.readouterr().out
    assert f"{engine_bench.IMAGES} samples; digest of all images and verdicts" in said
    assert digest(by_one_process) in said
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.jsonl")} == before


def test_of_torchrun(by_one_process: Path, tmp_path: Path) -> None:
    script = str(engine_bench.__file__)
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", script]
    ran = subprocess.run(
        [*words, f"--out={tmp_path}", "--shard=auto"], env=os.environ, check=True, capture_output=True, timeout=120
    )
    assert ran.stdout.count(b"and so is all else") == 2, "they did not meet between the stages"
    assert digest(tmp_path) == digest(by_one_process)


def test_of_ray(by_one_process: Path, tmp_path: Path, ray_cluster: str, capsys: pytest.CaptureFixture[str]) -> None:
    by(tmp_path, "--engine", "ray")
    assert digest(by_one_process) in capsys.readouterr().out
    assert digest(tmp_path) == digest(by_one_process)
