"""The README's examples run as they stand, and its table of methods tells the truth."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from zigzag import EndToEnd, ImplicitZ, Resampling, Standard, Z2Sampling, ZSampling, count_rows, demo

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("code", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_runs(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out


def test_the_readme_has_the_examples_it_promises() -> None:
    assert len(EXAMPLES) >= 3


def test_the_table_of_the_demo_is_what_the_demo_finds() -> None:
    """All but the seconds, line by line: name, steps, rows, share read right, distance."""
    settings = demo.Settings()
    figures, _ = demo.run(settings)
    printed = [(f.name.strip(), f.steps, f.rows, f"{f.read_right:.1%}", f"{f.distance:.3f}") for f in figures]
    block = README.split("What the demo finds")[1].split("```")[1]
    lines = [re.match(r"(.+?)\s+(\d+)\s+(\d+)\s+[\d.]+\s+(\S+)\s+(\S+)$", line) for line in block.splitlines()]
    table = [(m[1].strip(), int(m[2]), int(m[3]), m[4], m[5]) for m in lines if m]
    assert table == printed


def test_the_overhead_is_reported() -> None:
    section = README.split("The loop is not what costs")[1]
    assert len(re.findall(r"zigzag / diffusers +=", section)) == 10


@pytest.mark.parametrize("T", [10, 50])
def test_the_rows_a_step_of_the_table(T: int) -> None:
    """s = 5.5, w = 0: the table's formulas, with every step but those named active."""
    assert count_rows(Standard(), T) == 2 * T
    assert count_rows(Resampling(rounds=2), T) == (2 + 2 * 2) * (T - 1) + 2
    assert count_rows(EndToEnd(refine=1), T) == (5 + 1) * T
    assert count_rows(ZSampling(rounds=2, refine=1), T) == (2 + (3 + 1) * 2) * (T - 1) + 2
    assert count_rows(ImplicitZ(), T) == 4 * T
    assert count_rows(Z2Sampling(), T) == 2 * T
