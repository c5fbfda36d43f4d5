"""The command line, run as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from zigzag.cli import main


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
        (("path", "z", "--lambda", "9"), "steps"),
        (("path", "z2", "--warmup", "8"), "warmup"),
        (("path", "z", "--strong", "nan"), "strong"),
        (("demo", "--steps", "0"), "steps"),
        (("demo", "--per-digit", "0"), "per-digit"),
        (("demo", "--warmup", "4"), "warmup"),
        (("demo", "--std", "0"), "std"),
        (("demo", "--out", "/dev/null/x", "--per-digit", "1"), "/dev/null"),
        ((), "command"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    args: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit:
        main(args)
    assert exit.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and said in error


@pytest.mark.parametrize("args", [("--help",), ("demo", "--help"), ("path", "--help"), ("--version",)])
def test_help_goes_to_standard_output(args: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main(args)
    assert exit.value.code == 0
    assert "zigzag" in capsys.readouterr().out


def test_demo_writes_a_picture_and_figures_and_no_progress_into_a_pipe(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    done = run("demo", "--per-digit", "2", "--out", str(tmp_path / "new"), PYTHONIOENCODING="utf-8")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert (tmp_path / "new" / "demo.png").read_bytes().startswith(b"\x89PNG")
    content = json.loads((tmp_path / "new" / "demo.json").read_text(encoding="utf-8"))
    rows = {f["name"]: f["rows"] for f in content["figures"]}
    methods = {"Standard": 8, "Resampling": 14, "End-to-End": 20, "Z-Sampling": 17, "Implicit Z": 16, "Z²-Sampling": 8}
    assert {name: rows[name] for name in methods} == methods
    assert all(name in done.stdout for name in rows)
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["demo.json", "demo.png"]


def test_demo_is_the_same_twice_but_for_the_seconds() -> None:
    from zigzag import demo

    settings = demo.Settings(per_digit=1)
    (first, images), (second, again) = demo.run(settings), demo.run(settings)
    assert [(f.name, f.rows, f.read_right, f.distance) for f in first] == [
        (f.name, f.rows, f.read_right, f.distance) for f in second
    ]
    assert all(images[name].equal(again[name]) for name in images)


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    from zigzag.files import replacing

    path = tmp_path / "figures.json"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
