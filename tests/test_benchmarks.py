"""Every benchmark runs with its quickest settings, prints its ratios and writes its figures."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers")

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"


def python(*arguments: Any, code: int = 0) -> subprocess.CompletedProcess[str]:
    """A run of this Python with one thread, from the root of the checkout."""
    paths = os.pathsep.join([str(ROOT), str(BENCHMARKS)])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == code, done.stderr
    return done


def figures(name: str, folder: Path, *arguments: Any) -> tuple[str, Any]:
    """What a benchmark prints, and the results that it writes."""
    done = python(BENCHMARKS / f"{name}.py", "--quick", "--json", folder / "figures.json", *arguments)
    record = json.loads((folder / "figures.json").read_text())
    assert {"command", "date", "machine", "versions", "results"} <= record.keys()
    assert record["versions"] in done.stdout
    assert f"torch {torch.__version__}" in record["versions"]
    assert all(math.isfinite(value) for value in numbers(record["results"]))
    assert [path.name for path in folder.iterdir()] == ["figures.json"]
    return done.stdout, record["results"]


def numbers(tree: Any) -> Iterator[float]:
    if isinstance(tree, dict | list):
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from numbers(value)
    elif isinstance(tree, int | float):
        yield tree


def test_overhead(tmp_path: Path) -> None:
    printed, results = figures("overhead", tmp_path, "--without-peers")
    assert [(r["peer"], r["calls"]) for r in results] == [
        ("diffusers", "unguided"),
        ("diffusers", "two calls"),
        ("diffusers", "one doubled batch"),
    ]
    assert printed.count("zigzag / diffusers") == sum(len(r["methods"]) for r in results) == 5
    assert all(row["ratio"]["low"] <= row["ratio"]["median"] <= row["ratio"]["high"] for row in results[0]["methods"])


@pytest.mark.skipif(not (ROOT / "out/peers/installed.txt").exists(), reason="needs the environment of overhead.py")
def test_overhead_beside_k_diffusion_and_azula(tmp_path: Path) -> None:
    printed, results = figures("overhead", tmp_path)
    assert {r["peer"] for r in results} == {"diffusers", "k-diffusion", "azula"}
    assert "zigzag / k-diffusion" in printed
    assert "zigzag / azula" in printed


def test_engines(tmp_path: Path) -> None:
    # Without Ray, whose cluster takes its time to start: what it adds is in tests/evaluation/engines.
    printed, results = figures("engines", tmp_path, "--engines", "one", "shards")
    assert {name: r["processes"] for name, r in results.items()} == {"one": 1, "shards": 2}
    assert printed.count("busy / own = ") == 2 and "load over 1, 5 and 15 minutes" in printed
    assert all(r["ratio"] >= 1 for r in results.values())


def test_overhead_makes_no_environment_in_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("ten years of work")
    done = python(BENCHMARKS / "overhead.py", "--quick", "--peers", tmp_path, code=1)
    assert f"{tmp_path} is not an environment of this script" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_memory(tmp_path: Path) -> None:
    printed, results = figures("memory", tmp_path)
    by_name = {(r["calls"], r["method"]): r for r in results}
    for calls in ("two calls", "one doubled batch"):
        z2 = by_name[calls, "Z2Sampling"]
        # One latent more than standard sampling, the cached gap, and no more; a fraction would be a miscount.
        assert set(z2["over_standard"].values()) <= {0.0, 1.0}
        assert by_name[calls, "Standard"]["over_standard"] == {"held": 0.0, "peak": 0.0}
        assert calls in printed
    training = json.loads((tmp_path / "figures.json").read_text())["training"]
    for method in ("Standard", "Z2Sampling"):
        grown = {r["how"]: r["peaks"]["10"] / r["peaks"]["5"] for r in training if r["method"] == method}
        # Twice the steps: twice the activations kept; with checkpoints, and of the last steps alone, not.
        assert 1.8 < grown["grad=True"] < 2.2
        assert grown["grad=True, checkpoint=True"] < 1.8 and grown["grad=2"] < 1.05


def test_methods(tmp_path: Path) -> None:
    printed, results = figures("methods", tmp_path)
    assert [r["network"] for r in results] == ["small-unet", "small-hunyuan"]
    rows = {row["method"]: row["rows"] for row in results[0]["methods"]}
    # Of 3 steps of two rows: two rows more a step, resampled at two of three; five for six; five on average.
    assert rows == {
        "Z2Sampling": 1,
        "ImplicitZ": 2,
        "Resampling": pytest.approx(5 / 3),
        "EndToEnd": 2.5,
        "ZSampling": 2.5,
    }
    for result in results:
        assert result["wanted"] == pytest.approx((2 + result["r"]["median"]) / 3)
    assert printed.count("explicit Z over released") == 2


def test_batching(tmp_path: Path) -> None:
    printed, results = figures("batching", tmp_path)
    assert [(r["network"], r["size"], r["batch"]) for r in results] == [("small-unet", 8, 1), ("small-hunyuan", 8, 1)]
    assert printed.count("doubled / two calls = ") == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what it says without a GPU")
@pytest.mark.parametrize("name", ["gpu.py", "kernel.py"])
def test_what_needs_a_gpu_says_so(name: str, tmp_path: Path) -> None:
    figure = ["speed"] if name == "gpu.py" else []
    done = python(BENCHMARKS / name, *figure, "--json", tmp_path / "figures.json", code=2)
    assert f"{name} needs a CUDA device" in done.stderr
    assert not done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_kernel_on_a_cpu(tmp_path: Path) -> None:
    printed, results = figures("kernel", tmp_path, "--device", "cpu")
    assert [r["numbers"] for r in results] == [2**14, 2**14]
    assert printed.count("compiled / plain = ") == 2


@pytest.mark.gpu
def test_kernel(tmp_path: Path) -> None:
    printed, _ = figures("kernel", tmp_path)
    assert printed.count("fused / copy = ") == 2


@pytest.mark.gpu
@pytest.mark.parametrize("figure", ["speed", "methods", "memory", "syncs", "compiled", "reduce-overhead"])
def test_gpu(figure: str, tmp_path: Path) -> None:
    printed, results = figures("gpu", tmp_path, figure)
    assert all(line in printed for line in results["lines"])


def test_gpu_networks_and_loop() -> None:
    """The published networks have their published sizes, and the plain loop samples what zigzag samples."""
    script = """
import torch
from gpu import METHODS
from gpu_loops import Case, diffusers_loop, eager_loop
from models import build, parameters
for name in ("small-unet", "small-hunyuan"):
    case = Case(build(name, 8), batch=2, steps=5)
    ours, theirs = eager_loop(case, METHODS["Standard"])(), diffusers_loop(case)()
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))
    assert not torch.allclose(eager_loop(case, METHODS["Z2Sampling"])(), ours, rtol=1e-2)
print(parameters("sdxl"), parameters("hunyuan"), parameters("flux"))
"""
    assert python("-c", script).stdout.split() == ["2567463684", "1499952032", "11891178560"]


def test_loops_take_turns() -> None:
    spec = importlib.util.spec_from_file_location("benchmarks_common", BENCHMARKS / "common.py")
    assert spec is not None
    assert spec.loader is not None
    common = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(common)
    order: list[str] = []
    seconds = common.in_turns([lambda: order.append("a"), lambda: order.append("b")], runs=3, warm=1)
    assert "".join(order) == "abbabaab"
    assert [len(s) for s in seconds] == [3, 3]
    assert common.ratio([2.0, 6.0, 4.0], [1.0, 1.0, 1.0]) == (4.0, 3.0, 5.0)
    assert common.ratio([3.0], [2.0]) == (1.5, 1.5, 1.5)


def test_attach(tmp_path: Path) -> None:
    printed, results = figures("attach", tmp_path)
    assert [r["method"] for r in results] == ["Standard", "Z2Sampling"]
    assert printed.count("attached / plain = ") == 2


def test_inversion(tmp_path: Path) -> None:
    """On the digits, 3 steps: the rows that each scheme takes, and that what is exact is, and what is not, is not."""
    printed, results = figures("inversion", tmp_path)
    (result,) = results
    T, by = result["steps"], {(f["line"], f["scale"], f["dtype"]): f for f in result["figures"]}
    evaluations = {
        "Invert": 2 * T,
        "EDICT": 4 * T,
        "OBELM": 2 * T - 1,
        "Rex": 4 * T,
        "Recorded, naive": 3 * T,
        "Recorded, independent": 2 * T,
        "DDIMInverseScheduler": 2 * T,
        "DPMSolverMultistepInverse, 1": 2 * T,
    }
    scales = sorted({scale for _, scale, _ in by})
    assert scales[0] == 1 and len(scales) == 2
    for (name, scale, dtype), f in by.items():
        if name in evaluations:
            assert f["rows"] == evaluations[name] * (1 if scale == 1 else 2)
        naive, eps = by["Invert", scale, dtype], getattr(torch, dtype)
        if name in ("EDICT", "OBELM", "Rex") or name.startswith("Recorded"):
            assert f["error"] < 1e5 * torch.finfo(eps).eps < 0.1 * naive["error"]
        elif name == "FixedPoint":
            assert f["error"] < naive["error"] and not f["converged"]  # of four iterations
        elif name == "DDIMInverseScheduler":  # the same algorithm, in its own tables of float32
            assert f["error"] == pytest.approx(naive["error"], rel=1e-2)
            assert f["noise"] == pytest.approx(naive["noise"], rel=1e-2)
        assert printed.count(name) >= 1
    assert "*" in printed


def test_edits(tmp_path: Path) -> None:
    """Of two scenes, 3 steps: the rows of three ways, and that what is exact comes back."""
    printed, results = figures("edits", tmp_path)
    (result,) = results
    by = {f["scheme"]: f for f in result["figures"]}
    T = result["steps"]
    rows = {"edit-friendly": 3 * T, "direct": 4 * T, "edict": 6 * T, "obelm": 3 * T - 2, "rex": 6 * T, "fresh noise": T}
    assert {name: f["rows"] for name, f in by.items() if name in rows} == rows
    assert all(f["back"] < 1e-5 for name, f in by.items() if name not in ("fixed-point", "fresh noise"))
    assert all(0 <= f["took"] <= 2 and 0 <= f["kept"] <= 1 and name in printed for name, f in by.items())
    assert by["direct"]["kept"] > by["fresh noise"]["kept"]


def test_refine(tmp_path: Path) -> None:
    """On the digits, 3 steps: a tolerance leaves less than a count of as many rows, and acceleration takes fewer."""
    printed, results = figures("refine", tmp_path)
    (result,) = results
    by = {f["refine"]: f for f in result["figures"]}
    counts = {int(name): f for name, f in by.items() if name.isdigit()}
    fine, plain = (next(f for name, f in by.items() if f"1e-06, anderson={m}" in name) for m in (3, 0))
    # A row an evaluation more for each of the two inversions, at w = 0.
    assert all(f["rows"] == counts[0]["rows"] + 2 * K for K, f in counts.items())
    assert fine["worst"] < 1e-4 < counts[9]["median"] and fine["rows"] < counts[9]["rows"] < plain["rows"]
    assert fine["missed"] == 0 and printed.count("refine=") == len(by)
