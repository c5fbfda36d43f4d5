"""The README's examples run as they stand, and its table of methods tells the truth."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from zigzag import EndToEnd, ImplicitZ, Resampling, Standard, Z2Sampling, ZSampling
from zigzag.rows import count_rows

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("code", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_runs(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out


def test_the_readme_has_the_examples_it_promises() -> None:
    assert len(EXAMPLES) >= 3


@pytest.mark.parametrize("T", [10, 50])
def test_the_rows_a_step_of_the_table(T: int) -> None:
    """s = 5.5, w = 0: the table's formulas, with every step but those named active."""
    assert count_rows(Standard(), T) == 2 * T
    assert count_rows(Resampling(rounds=2), T) == (2 + 2 * 2) * (T - 1) + 2
    assert count_rows(EndToEnd(refine=1), T) == (5 + 1) * T
    assert count_rows(ZSampling(rounds=2, refine=1), T) == (2 + (3 + 1) * 2) * (T - 1) + 2
    assert count_rows(ImplicitZ(), T) == 4 * T
    assert count_rows(Z2Sampling(), T) == 2 * T
