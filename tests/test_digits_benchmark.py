"""The benchmark of the exact predictor: the same figures twice, and its picture."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from zigzag.evaluation.demo import draw_lines, every_method
from zigzag.zoo import Digits

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`benchmarks/digits.py` as a module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("benchmarks_digits", BENCHMARKS / "digits.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


def test_the_figures_are_the_same_twice_but_for_the_seconds(digits: Any) -> None:
    settings = digits.Settings(per_digit=1)
    (first, images), (second, again) = digits.measure(settings), digits.measure(settings)
    known = [[(f.name, f.rows, f.read_right, f.distance) for f in figures] for figures in (first, second)]
    assert known[0] == known[1]
    assert all(torch.equal(images[name], again[name]) for name in images)
    other, _ = digits.measure(digits.Settings(per_digit=1, seed=1))
    assert [f.distance for f in other] != [f.distance for f in first]


def test_the_seed_is_that_of_the_added_noise_too(digits: Any) -> None:
    mixture, every, x = Digits(), every_method(4, 5.5, warmup=1), torch.randn(1, 1, 8, 8)
    cond = torch.tensor([3])
    known = {"cond": cond, "uncond": torch.full_like(cond, -1)}
    x0 = [
        {drawn.line.label: drawn.x0 for drawn in draw_lines(every, mixture.predictor, digits.grid, x, seed=k, **known)}
        for k in (0, 0, 1)
    ]
    for name, found in x0[0].items():
        assert torch.equal(found, x0[1][name])
        assert torch.equal(found, x0[2][name]) == (name != "Resampling")


def test_it_prints_the_table_and_writes_figures_and_picture(
    digits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    out, data = tmp_path / "digits.png", tmp_path / "digits.json"
    monkeypatch.setattr(sys, "argv", ["digits.py", "--quick", "--out", str(out), "--json", str(data)])
    digits.main()
    record = json.loads(data.read_text())
    rows = {f["name"]: f["rows"] for f in record["results"]}
    methods = {"Standard": 8, "Resampling": 14, "End-to-End": 20, "Z-Sampling": 17, "Implicit Z": 16}
    methods |= {"Z²-Sampling (warmup 1)": 8}
    assert {name: rows[name] for name in methods} == methods
    printed = capsys.readouterr().out
    assert all(name in printed for name in rows)
    assert record["settings"]["per_digit"] == 2 and "20 samples a line" in printed
    assert out.read_bytes().startswith(b"\x89PNG")


def test_the_picture_names_its_digits(digits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Figure = pytest.importorskip("matplotlib.figure").Figure
    made = []
    monkeypatch.setattr(digits, "require_figure", lambda: lambda **how: made.append(Figure(**how)) or made[0])
    figures, images = digits.measure(digits.Settings(per_digit=2))
    digits.draw(tmp_path / "digits.png", images, figures)
    assert digits.Digits().classify(torch.stack([*images["Standard"]])).tolist() == list(range(10))
    axes = made[0].axes
    assert [ax.get_title() for ax in axes[:11]] == [*map(str, range(10)), ""]
    assert [ax.get_ylabel().split("\n")[0] for ax in axes[::10]] == list(images)


@pytest.mark.parametrize(("option", "value"), [("per-digit", "0"), ("warmup", "4"), ("std", "0"), ("steps", "0")])
def test_bad_input_is_one_line(
    digits: Any, option: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["digits.py", f"--{option}", value])
    with pytest.raises(SystemExit) as exit:
        digits.main()
    error = capsys.readouterr().err
    assert exit.value.code == 2 and error.count("\n") == 1 and option in error
