"""`zigzag eval` takes rules, methods and solvers of one's own, as `module:object`."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("scipy")
from support.evaluations import asked, moody
from zigzag.cli import main
from zigzag.zoo import learned
from zigzag.zoo.learned import LearnedModel

MODULE = """
from zigzag import CFG, Denoise, Invert, RescaledCFG
from zigzag.solvers import DPMSolver

class Twice:
    def path(self, steps):
        return Denoise(0, 1), Invert(1, 0), *(Denoise(i, i + 1) for i in range(steps))

class Strong(CFG):
    def __init__(self):
        super().__init__(2.5)

rescaled = RescaledCFG(2.0)
number = 3

def second(grid):
    return DPMSolver.on(grid, order=2)
"""


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> LearnedModel:
    made = moody()
    monkeypatch.setattr(learned, "load", lambda name, weights, device: made)
    (tmp_path / "own_things.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    return made


def test_eval_takes_rules_methods_and_solvers_of_ones_own(
    model: LearnedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["eval", "--model", "shapes-dit", "--prompts", "6", "--steps", "2", "--out", str(tmp_path / "out")]
    words += ["--methods", "own_things:Twice", "z", "--strong", "own_things:Strong", "--weak", "own_things:rescaled"]
    words += ["--solver", "own_things:second"]
    assert main(words) == 0
    text = capsys.readouterr().out
    for said in ("Twice", "Z-Sampling", "second", "strong CFG(2.5)", "weak RescaledCFG(CFG(2), phi=0.7)"):
        assert said in text
    assert "0x" not in text and "0x" not in (tmp_path / "out" / "table.json").read_text()
    rows = asked(model)
    assert main(words) == 0 and asked(model) == rows
    assert capsys.readouterr().out == text


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--strong", "own_things:number"], "must be a Guidance"),
        (["--strong", "strong"], "a number or module:object"),
        (["--weak", "own_things:nothing"], "has no attribute 'nothing'"),
        (["--methods", "own_things:number"], "must have path(T)"),
        (["--methods", "no_things:Twice"], "No module named 'no_things'"),
        (["--solver", "own_things:number"], "solver must be"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_what_is_not_to_be_had_is_one_line(
    more: list[str], said: str, model: LearnedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["eval", "--model", "shapes-dit", "--prompts", "6", "--steps", "2", "--out", str(tmp_path / "out"), *more])
    error = capsys.readouterr().err
    assert exit.value.code == 2 and error.count("\n") == 1 and said in error
    assert asked(model) == 0 and not (tmp_path / "out").exists()
