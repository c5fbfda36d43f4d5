"""The help of every command line of the library: each default once, as it would be typed."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("scipy")
pytest.importorskip("diffusers")
pytest.importorskip("safetensors")
from support.command_line import COMMANDS
from zigzag.cli import main
from zigzag.support.commands import Parser

PACKAGE = Path(__file__).parents[2] / "zigzag"


def modules() -> list[str]:
    """What `python -m` runs, besides `zigzag` itself."""
    files = (file for file in PACKAGE.rglob("*.py") if "\nif __name__ ==" in file.read_text(encoding="utf-8"))
    names = (".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts) for file in files)
    return sorted({*names} - {"zigzag.__main__"})


def help_of(program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """With an option a line."""
    monkeypatch.setenv("COLUMNS", "10000")
    monkeypatch.setattr(sys, "argv", ["-", "--help"])
    with pytest.raises(SystemExit) as exit:
        main([program, "--help"]) if program in COMMANDS else importlib.import_module(program).main()
    assert exit.value.code == 0
    return re.sub(r"\n {12,}", "  ", capsys.readouterr().out)  # what stands under a long option is of its line


def line_of(text: str, option: str) -> str:
    (line,) = (line for line in text.splitlines() if re.match(rf"  (\S+, )?{option}\b(?!-)", line))
    return line


@pytest.mark.parametrize("program", [*COMMANDS, *modules()])
def test_no_default_is_said_twice_and_none_is_none(
    program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = help_of(program, monkeypatch, capsys)
    words = "zigzag" if program in COMMANDS else "python -m"
    assert text.startswith(f"usage: {words} {program.removesuffix('.__main__')} ")
    for line in text.splitlines():
        assert line.lower().count("(default") <= 1 and line.lower().count("default:") <= 1, line
    assert not re.search(r"default: (None|False|True|\[|==)", text)


def test_the_default_of_an_option_is_said_as_it_is_typed() -> None:
    parser = Parser(prog="x")
    parser.add_argument("--zero", type=float, default=0.0, help="a number")
    parser.add_argument("--many", nargs="+", default=["a", "b"], help="words")
    parser.add_argument("--share", default="5 %", help="of 100 %%")
    parser.add_argument("--none", help="nothing")
    parser.add_argument("--empty", nargs="+", default=[], help="nothing")
    parser.add_argument("--flag", action="store_true", help="a flag")
    parser.add_argument("--said", default=3, help="a number (default: three)")
    parser.add_argument("what", help="a word")
    shown = re.sub(r"\s+", " ", parser.format_help())
    assert all(text in shown for text in ("a number (default: 0.0)", "words (default: a b)", "of 100 % (default: 5 %)"))
    assert "a number (default: three)" in shown
    assert shown.count("default") == 4


def test_training_says_what_it_begins_with(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of("zigzag.zoo.train", monkeypatch, capsys)
    assert line_of(text, "--weights").endswith("(default: random weights; with --lora those in the package)")
    assert line_of(text, "--out").endswith("(default: out/NAME, or out/NAME-lora)")


def test_the_defaults_of_numbers_and_lists_are_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {
        "path": {"--steps": "8", "--strong": "5.5", "--weak": "0.0"},
        "bench": {"--methods": "z z2", "--seed": "0"},
        "invert": {"--strong": "1.0", "--steps": "50 of a pipeline; 20 of a learned model"},
        "zigzag.zoo.shapes.__main__": {"--scenes": "10000", "--seed": "0"},
        "zigzag.evaluation.scorers.__main__": {"--device": "cpu"},
    }
    for program, options in said.items():
        text = help_of(program, monkeypatch, capsys)
        for option, default in options.items():
            assert line_of(text, option).endswith(f"(default: {default})")
