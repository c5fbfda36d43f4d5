"""The README's examples run as they stand, and its table of methods tells the truth."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from zigzag import EndToEnd, ImplicitZ, Resampling, Standard, Z2Sampling, ZSampling, count_rows
from zigzag.zoo.shapes import CATEGORIES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
STUDY = (ROOT / "docs/study.md").read_text(encoding="utf-8")
SPEED = (ROOT / "docs/speed.md").read_text(encoding="utf-8")
GUIDES = [
    (ROOT / f"docs/{name}.md").read_text(encoding="utf-8")
    for name in ("training", "inversion", "tutorials/schemes", "extending", "hosts")
]
# Those of docs/diffusers.md that build their pipeline; the others load one.
IN_DIFFUSERS = [
    code
    for code in re.findall(r"```python\n(.*?)```", (ROOT / "docs/diffusers.md").read_text(encoding="utf-8"), re.DOTALL)
    if "Transformer2DModel(" in code
]
BLOCK = re.compile(r"```(?:py\w*|\{code-cell\} ipython3)\n(.*?)```", re.DOTALL)
EXAMPLES, IN_GUIDES = (re.findall(r"```python\n(.*?)```", text, re.DOTALL) for text in (README, "".join(GUIDES)))
IN_TRAINING = [code for code in IN_GUIDES if "pipe(" not in code]  # no pipeline is loaded here


@pytest.mark.parametrize("code", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_runs(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out


@pytest.mark.parametrize("code", IN_DIFFUSERS, ids=range(len(IN_DIFFUSERS)))
def test_an_example_with_a_tiny_pipeline_runs(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It prints what the comment behind says."""
    for name in ("diffusers", "transformers"):
        pytest.importorskip(name)
    exec(compile(code, "docs/diffusers.md", "exec"), {})
    (said,) = re.findall(r"print\(.*\) +# (\S+):", code)
    assert capsys.readouterr().out.splitlines()[-1] == said


@pytest.mark.parametrize("code", IN_TRAINING, ids=range(len(IN_TRAINING)))
def test_an_example_of_training_code_runs(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    if "zoo.load" in code:
        for name in ("diffusers", "safetensors", "scipy"):
            pytest.importorskip(name)
    exec(compile(code, "docs", "exec"), {})
    assert capsys.readouterr().out


def test_every_example_begins_from_the_noise_of_its_solver() -> None:
    """Unit noise is 80 times too little on `DDIM.karras`; where a sample begins, `torch.randn` stands nowhere."""
    texts = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    blocks = [(path.name, code) for path in texts for code in BLOCK.findall(path.read_text(encoding="utf-8"))]
    begun = 0
    for name, code in blocks:
        for state in re.findall(r"\b(?:sample|walk|capture)\(\s*[^,]+,\s*(\w+)", code):
            begun += re.search(rf"^ *{state} = .*solver\.noise\(", code, re.MULTILINE) is not None
            assert not re.search(rf"^ *{state} = torch\.randn", code, re.MULTILINE), (name, state)
    assert begun >= 8


def test_the_example_of_the_study_measures_a_method_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("diffusers", "safetensors", "scipy"):
        pytest.importorskip(name)
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", STUDY, re.DOTALL)
    exec(compile(code, "study.md", "exec"), {"__name__": "example"})
    assert re.search(r"FirstStepTwice\(\) +4 +11 ", capsys.readouterr().out)
    assert len(list((tmp_path / "out/mine/verdicts").iterdir())) == 4 * len(CATEGORIES)


def test_the_first_prompt_of_the_readme_is_drawn_as_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("diffusers", "safetensors", "scipy", "PIL"):
        pytest.importorskip(name)
    from zigzag.cli import main

    monkeypatch.chdir(tmp_path)
    (line,) = re.findall(r"^zigzag (generate .*)$", README, re.MULTILINE)
    assert main(shlex.split(line)) == 0
    printed = capsys.readouterr().out
    assert (printed.count("✓"), printed.count("✗")) == (2, 0)


def test_the_inversion_of_the_tutorial_says_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All but how far rounding is off."""
    for name in ("diffusers", "safetensors", "scipy", "PIL"):
        pytest.importorskip(name)
    from zigzag.cli import main

    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs/tutorials/schemes.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^zigzag (invert .*)$", text, re.MULTILINE)
    assert main(shlex.split(line)) == 0
    printed = re.sub(r"[\d.e-]+ at most", "…", capsys.readouterr().out)
    assert printed in re.sub(r"[\d.e-]+ at most", "…", text)


def test_the_readme_and_the_page_on_training_have_the_examples_they_promise() -> None:
    assert len(EXAMPLES) >= 1
    assert len(IN_TRAINING) >= 9


def test_the_table_of_the_digits_is_what_their_benchmark_finds() -> None:
    """All but the seconds, line by line: name, steps, rows, share read right, distance."""
    command = [sys.executable, "-X", "utf8", ROOT / "benchmarks/digits.py"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=True).stdout
    (block,) = (text for text in STUDY.split("```") if "read right" in text)
    assert lines_of_digits(block) == lines_of_digits(printed) != []


def lines_of_digits(text: str) -> list[tuple[str, ...]]:
    found = [re.match(r"(.+?)\s+(\d+)\s+(\d+)\s+[\d.]+\s+(\S+%)\s+(\S+)$", line) for line in text.splitlines()]
    return [match.groups() for match in found if match]


def test_the_overhead_is_reported() -> None:
    section = SPEED.split("What the loop costs")[1]
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
