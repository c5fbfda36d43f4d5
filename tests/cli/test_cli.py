"""The command line, run as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from zigzag import Tol, ZSampling
from zigzag.cli import main
from zigzag.cli.jobs import Job
from zigzag.evaluation.named import refinement
from zigzag.rows import row_bounds


def run(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "zigzag", *args], capture_output=True, encoding="utf-8", env={**os.environ, **env}
    )


def test_path_draws_the_moves_and_counts_their_rows() -> None:
    """λ = 1 of T = 2: Φ Ψ Φ, then Φ; 2 + 1 + 2 + 2 rows."""
    done = run("path", "z", "--steps", "2", "--lambda", "1", PYTHONIOENCODING="utf-8")
    assert done.returncode == 0
    assert "0 -> 1  ╲╱╲\n1 -> 2     ╲\n" in done.stdout
    assert "4 moves, 7 rows per sample" in done.stdout


def test_path_says_between_which_rows_a_refinement_to_a_tolerance_lies(capsys: pytest.CaptureFixture[str]) -> None:
    main(["path", "z", "--steps", "4", "--refine", "1e-4"])
    low, high = row_bounds(ZSampling(refine=Tol(1e-4)), 4)
    assert f"10 moves, {low} to {high} rows per sample at w = 5.5 and 0 ({low / 4:g} to {high / 4:g} a step)" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("method", "solver", "orders"),
    [
        ("z2", "heun", "212121211"),  # Φ, and a Shift before each but the first; the last Φ is Euler's
        ("z", "heun", "2122122122121"),  # Φ Ψ Φ: an inversion takes one evaluation
        ("z2", "2m", "122222211"),  # what is remembered counts for Φ and Shift alike
    ],
)
def test_path_prints_the_predictions_that_each_move_combines(
    method: str, solver: str, orders: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["path", method, "--steps", "5", "--solver", solver])
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if "order" in line]
    assert line.split()[-1] == orders


def test_the_command_of_an_image_spells_a_tolerance_as_it_is_read() -> None:
    @dataclass(frozen=True)
    class Settings:
        steps: int = 4

    method = ZSampling(refine=Tol(1e-4))
    words = Job(Settings(), "a circle", method, Path(), ()).command()
    (word,) = [word for word in words if word.startswith("--refine")]
    option, _, value = word.partition("=")
    assert option == "--refine" and refinement(value) == method.refine


def test_path_draws_in_ascii_where_the_terminal_has_nothing_else() -> None:
    done = run("path", "z2", "--steps", "3", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 0
    assert "0 -> 1  \\\n1 -> 2   ~\\\n2 -> 3     ~\\\n" in done.stdout
    assert done.stdout.isascii()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("path", "zz"), "zz"),
        (("path", "z2", "--span", "3"), "--span"),
        (("path", "standard", "--lambda", "3"), "--lambda"),
        (("path", "z", "--steps", "0"), "0"),
        (("path", "z", "--refine", "0.0"), "a tolerance above 0 such as 1e-4, got '0.0'"),
        (("path", "z", "--refine", "fine"), "an integer, or a tolerance"),
        (("path", "z", "--lambda", "9"), "steps"),
        (("path", "z2", "--warmup", "8"), "warmup"),
        (("path", "z", "--strong", "nan"), "strong"),
        (("demo", "--steps", "0"), "steps"),
        (("demo", "--prompts", "0"), "prompts"),
        (("demo", "--prompts", "7"), "prompts"),
        (("demo", "--warmup", "20"), "warmup"),
        (("demo", "--strong", "nan"), "strong"),
        (("demo", "--model", "shapes"), "shapes-unet"),
        (("demo", "--prompt", "a red cat"), "magenta"),
        (("demo", "--prompt", "circle red"), "no caption"),
        (("demo", *["--prompt", "a circle"] * 37), "36"),
        ((), "command"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    args: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: object, **more: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("zigzag.evaluation.demo.load", never)
    with pytest.raises(SystemExit) as exit:
        main(args)
    assert exit.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and said in error


@pytest.mark.parametrize(
    "args", [("--help",), ("demo", "--help"), ("path", "--help"), ("generate", "--help"), ("--version",)]
)
def test_help_goes_to_standard_output(args: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main(args)
    assert exit.value.code == 0
    assert "zigzag" in capsys.readouterr().out


def test_demo_writes_a_page_and_figures_and_no_progress_into_a_pipe(tmp_path: Path) -> None:
    for name in ("matplotlib", "diffusers", "safetensors", "scipy"):
        pytest.importorskip(name)
    out = tmp_path / "new"
    args = ("--prompt=a red circle", "--prompt=Two Squares", "--steps=3", "--warmup=1", "--out", str(out))
    done = run("demo", *args, PYTHONIOENCODING="utf-8")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert (out / "demo.png").read_bytes().startswith(b"\x89PNG")
    content = json.loads((out / "demo.json").read_text(encoding="utf-8"))
    rows = {f["name"]: f["rows"] for f in content["figures"]}
    # Of 3 steps of two rows: two rows more where resampled, three where an explicit zigzag is walked, at two of three.
    methods = {"Standard": 6, "Resampling": 10, "End-to-End": 15, "Z-Sampling": 12, "Implicit Z": 12}
    methods |= {"Z²-Sampling (warmup 1)": 6}
    assert {name: rows[name] for name in methods} == methods
    assert all(name in done.stdout for name in rows)
    assert content["prompts"] == ["a red circle", "two squares"]
    assert all(len(f["right"]) == 2 for f in content["figures"])
    assert sorted(p.name for p in out.iterdir()) == ["demo.json", "demo.png"]


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    from zigzag.support.files import replacing

    path = tmp_path / "figures.json"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
