"""The suite for a GPU runs on a CPU with CUDA's calls stubbed, outlives figures that die, and says what it left out."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture(scope="module")
def suite() -> Any:
    spec = importlib.util.spec_from_file_location("gpu_suite", BENCHMARKS / "gpu_suite.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_suite"] = module
    spec.loader.exec_module(module)
    return module


def python(*arguments: Any, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, env={**environment, "OMP_NUM_THREADS": "1", **env},
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip


def test_a_dry_call_runs_from_any_folder_and_goes_on_where_it_ended(tmp_path: Path, suite: Any) -> None:
    """The checkout is found by the script's own place; a figure that is there is not taken again."""
    only = ("--dry", "--out", tmp_path / "out", "--only", "plain, 32², batch 1: speed", "tests")
    done = python(BENCHMARKS / "gpu_suite.py", 1, *only, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    known = json.loads((tmp_path / "out/gpu.json").read_text())
    assert known["dry"] and len(known["records"]) == 2
    speed = known["records"]["plain, 32², batch 1: speed"]
    assert {loop["loop"] for loop in speed["figure"]["results"]["loops"]} == {"eager", "captured"}
    assert all(loop["difference"] < 1e-4 for loop in speed["figure"]["results"]["loops"])
    if not torch.cuda.is_available():
        assert "skipped" in known["records"]["tests"]["lines"][-1]
    assert python(BENCHMARKS / "gpu_suite.py", 1, *only, cwd=tmp_path).stdout == ""
    refused = python(BENCHMARKS / "gpu_suite.py", "--report", tmp_path / "out/gpu.json")
    assert refused.returncode == 2 and "dry run" in refused.stderr


FIGURES = """
import sys
sys.path[:0] = {paths!r}
import torch
from gpu import FIGURES, stub
from gpu_loops import Case
from plain import build_plain
stub()
case = Case(build_plain(8, depth=1), 1, steps=3, runs=1, dry=True)
taken = {{name: FIGURES[name](case) for name in ("compiled", "reduce-overhead", "methods", "memory", "syncs")}}
assert all(result["lines"] for result in taken.values())
for name in ("compiled", "reduce-overhead"):
    assert all(loop["difference"] < 1e-4 for loop in taken[name]["loops"]), taken[name]
assert [loop["a_step"] for loop in taken["syncs"]["loops"]] == [0, 0]
print("taken")
"""

WITH_DIFFUSERS = """
import sys
sys.path[:0] = {paths!r}
import torch
from gpu import FIGURES, stub
from gpu_loops import Case, diffusers_loop, eager_loop
from models import Network, build
from attach import tiny_sdxl
from zigzag import Standard
stub()
flux = Case(build("small-flux", 8), batch=2, steps=2, runs=1, dry=True)
ours, theirs = eager_loop(flux, Standard())(), diffusers_loop(flux)()
torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))
pipe, _ = tiny_sdxl()
case = Case(Network("tiny-sdxl", "unet", pipe.unet.eval().requires_grad_(False), 8), 1, steps=3, runs=1, dry=True)
loops = {{loop["loop"]: loop["difference"] for loop in FIGURES["attach"](case)["loops"]}}
assert loops["attached"] == loops["attached, graphs"] == 0 < loops["Z2Sampling, graphs"], loops
print("taken")
"""


@pytest.mark.parametrize("script", [FIGURES, WITH_DIFFUSERS], ids=["torch alone", "diffusers"])
def test_every_figure_is_taken_dry(script: str) -> None:
    if script is WITH_DIFFUSERS:
        pytest.importorskip("diffusers")
    done = python("-c", script.format(paths=[str(ROOT), str(BENCHMARKS)]))
    assert done.stdout.endswith("taken\n"), done.stderr


def figure(suite: Any, name: str, script: str, **given: Any) -> Any:
    return suite.Figure(name, ("-c", script), given.pop("limit", 60.0), **given)


WRITES = "import json, sys; json.dump({'machine': 'M', 'versions': 'V', 'date': 'D'}, open(sys.argv[2], 'w'));"


def test_a_figure_that_dies_hangs_or_cannot_run_costs_no_other(suite: Any, tmp_path: Path) -> None:
    todo = [
        figure(suite, "dies", "import os; print('begun', flush=True); os.abort()"),
        figure(suite, "fails", "raise RuntimeError('no such thing')"),
        figure(suite, "hangs", "import time; print('begun', flush=True); time.sleep(60)", limit=2.0),
        figure(suite, "lacks", "", needs="no_such_package"),
        suite.Figure("tests", ("-m", "no_such_module"), 60.0),
        figure(suite, "runs", WRITES + "print('4 images/s'); print('M; V')"),
    ]
    book = suite.Book(tmp_path / "gpu.json", dry=False)
    suite.run(todo, book, 600.0, [])
    records = json.loads((tmp_path / "gpu.json").read_text())["records"]
    assert [path.name for path in tmp_path.iterdir()] == ["gpu.json"]
    assert list(records) == [f.name for f in todo]
    assert records["dies"]["left_out"] and records["dies"]["lines"] == ["begun"]
    assert records["fails"]["left_out"] == "RuntimeError: no such thing"
    assert records["hangs"]["left_out"] == "took more than 2 s"
    assert records["lacks"]["left_out"] == "no_such_package is not installed"
    assert "No module named no_such_module" in records["tests"]["left_out"]
    assert "left_out" not in records["runs"]
    suite.run([figure(suite, "late", "")], book, 1.0, [])
    assert json.loads((tmp_path / "gpu.json").read_text())["records"]["late"]["left_out"] == "no time"
    printed = "\n".join(suite.report([tmp_path / "gpu.json"]))
    assert "runs:\n  4 images/s\nM; V\n```" in printed and "hangs (took more than 2 s)" in printed
    assert printed.index("D:") < printed.index("4 images/s") < printed.index("Left out:") < printed.index("Wanted:")


def test_carried_wheels_are_found(suite: Any, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "carried-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("carried_along.py", "print('here')")
    site = tmp_path / "site"
    assert suite.unpacked([tmp_path, tmp_path / "missing"], site) == ["carried-1.0-py3-none-any.whl"]
    assert not suite.has("carried_along", suite.environment(tmp_path / "nothing"))
    assert suite.has("carried_along", suite.environment(site))
    assert suite.has("zigzag", suite.environment(site))


def test_what_matters_most_fits_a_call_however_slow_it_is(suite: Any) -> None:
    """The rest is for a second call, should all of it take as long as it may."""
    for call in (1, 2, 3):
        for dry in (False, True):
            todo = suite.figures(call, dry)
            assert len({f.name for f in todo}) == len(todo)
            assert sum(f.limit for f in todo[: len(todo) // 3]) <= 560
