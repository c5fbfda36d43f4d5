"""A bench of tiny random pipelines and a tiny random score, killed in the midst, in shards, by Ray: one result."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
pytest.importorskip("PIL")
from support.clips import clip_in
from zigzag.cli import main
from zigzag.evaluation.cells import digest

SIZES = {"stable_diffusion_xl": 16, "hunyuan_dit": 64}


@pytest.fixture(scope="module")
def score(tmp_path_factory: pytest.TempPathFactory) -> str:
    """CLIP score by a random CLIP."""
    folder = tmp_path_factory.mktemp("clip")
    clip_in(folder)
    return f"clip:weights={folder}"


@pytest.fixture(scope="module")
def by_one_process(folders: Any, score: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Of a pipeline, the folder of its bench; made once."""
    made: dict[str, Path] = {}

    def bench(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            assert main(words(folders(name), name, score, made[name])) == 0
        return made[name]

    return bench


def words(model: Path, name: str, score: str, out: Path) -> list[str]:
    """Standard sampling, Z, and what waits for it, on three prompts: nine cells of images and as many of scores."""
    (out.parent / "prompts.txt").write_text("a dog\na cat\na red cube\n", encoding="utf-8")
    given = {
        "model": model, "prompts": out.parent / "prompts.txt", "methods": "z", "baselines": "standard,effective",
        "steps": 3, "strong": 4, "image-size": SIZES[name], "device": "cpu", "dtype": "float32", "scores": score,
        "out": out,
    }  # fmt: skip
    return ["bench", *(f"--{option}={value}" for option, value in given.items())]


def lines_of(out: Path) -> Any:
    return json.loads((out / "bench.json").read_text(encoding="utf-8"))["lines"]


@pytest.mark.parametrize("name", SIZES)
def test_a_bench_that_was_killed_is_ended_by_shards(
    name: str, folders: Any, score: str, by_one_process: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    given = words(folders(name), name, score, out)
    running = subprocess.Popen([sys.executable, "-m", "zigzag", *given], stdout=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not (kept := list(out.glob("images/*.json"))):
        assert running.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    assert running.wait(30) == -signal.SIGKILL
    before = {file: file.stat().st_mtime_ns for file in kept}
    for turn in range(6):  # the stages wait for one another: images, those at the effective scale, scores
        assert main([*given, "--shard", f"{turn % 2}/2"]) == 0
    assert "and so is all else" in capsys.readouterr().out
    assert main(given) == 0
    assert {file: file.stat().st_mtime_ns for file in kept} == before
    assert digest(out) == digest(by_one_process(name)) and lines_of(out) == lines_of(by_one_process(name))


def test_ray_makes_what_one_process_makes(folders: Any, score: str, by_one_process: Any, tmp_path: Path) -> None:
    if find_spec("ray") is None:
        pytest.skip("needs ray, which the extra ray brings")
    from zigzag.adapters.ray import connected

    name = "hunyuan_dit"
    with connected("local"):
        assert main([*words(folders(name), name, score, tmp_path / "out"), "--engine=ray"]) == 0
    assert digest(tmp_path / "out") == digest(by_one_process(name))
    assert lines_of(tmp_path / "out") == lines_of(by_one_process(name))
