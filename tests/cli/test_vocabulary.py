"""One vocabulary on the command line: a word means the same to every command, and older names are kept."""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("scipy")
pytest.importorskip("diffusers")
pytest.importorskip("safetensors")
from support.command_line import COMMANDS, commands
from zigzag.cli import main
from zigzag.support.commands import Parser

PUBLISHED = {
    "--strong": ["--gamma_1", "--gamma-1", "--gamma1", "--guidance-scale", "--guidance_scale"],
    "--weak": ["--gamma_2", "--gamma-2", "--gamma2", "--inversion-guidance", "--inv_guidance_scale"],
    "--steps": ["--infer_step", "--infer-step", "--num_inference_steps"],
    "--lambda": ["--lambda_step", "--lambda-step"],
    "--rounds": ["--T_max", "--t-max"],
    "--out": ["--save_dir", "--save-dir"],
    "--image-size": ["--image_size", "--size"],
}
OLDER = {"--strong": ["--guidance"], "--edit-strong": ["--edit-guidance"]}
"""Words of `zigzag invert` alone, as it had them: --guidance of the others is the embedded scale."""

WITHOUT = {"invert": "--weak", "path": "--out", "play": "--out"}
"""What a command has no use for: one scale leads both ways; a drawing and a page write nothing."""


def destinations(command: str) -> Iterator[tuple[str, str]]:
    for action in commands()[command]._actions:
        for word in action.option_strings:
            yield word, action.dest


def test_the_published_names_mean_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    from zigzag.cli import generate_pipeline

    seen: list[Any] = []
    monkeypatch.setattr(generate_pipeline, "generate", lambda *given, **more: seen.append((given, more)))
    for ours, theirs in PUBLISHED.items():
        for name in [ours, *theirs]:
            for words in ([name, "8"], [f"{name}=8"]):
                main(["generate", "--model", "some/pipeline", "--device", "cpu", "--dtype", "float32", *words])
        assert all(given == seen[0] for given in seen), ours
        main(["generate", "--model", "some/pipeline", "--device", "cpu", "--dtype", "float32", ours, "16"])
        assert seen[-1] != seen[0]
        seen.clear()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_the_same_words(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    shown = capsys.readouterr().out
    for option in ("--strong", "--weak", "--steps", "--out"):
        assert (f"\n  {option} " in shown) == (WITHOUT.get(command) != option)
    hidden = [*PUBLISHED.values(), *(OLDER.values() if command == "invert" else [])]
    assert not any(re.search(rf"\n  {old}\b(?!-)", shown) for names in hidden for old in names)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_the_published_names_of_its_words(command: str) -> None:
    known = dict(destinations(command))
    for ours, theirs in PUBLISHED.items():
        spelt = {name.replace("_", "-").lower() for name in theirs}  # as `main` spells them
        if ours in known:
            assert {known.get(name) for name in spelt} == {known[ours]}
        else:
            assert not spelt & known.keys()


def test_a_word_means_the_same_to_every_command() -> None:
    meant = defaultdict[str, dict[str, list[str]]](lambda: defaultdict(list))
    for command in COMMANDS:
        for word, dest in destinations(command):
            meant[word][dest.removeprefix("method_")].append(command)
    several = {word: dict(dests) for word, dests in meant.items() if len(dests) > 1}
    # Of the exceptions a command line of before means what it meant; no help lists it, and docs say --strong, --count.
    assert several == {
        "--guidance": {"guidance": ["generate", "play"], "strong": ["invert"]},
        "--prompts": {"prompts": ["bench"], "count": ["demo", "eval"]},
    }


NUMBERS = {
    "demo": ("--count", "--prompts"),
    "eval": ("--count", "--prompts"),
    "zigzag.evaluation.accuracy": ("--count", "--prompts"),
    "zigzag.evaluation.studies.__main__": ("--count", "--prompts"),
    "zigzag.zoo.train": ("--updates", "--steps"),
}
"""Where --prompts is no file, and --steps are no solver's: what the word of the help is, and what it was."""


def parsed(monkeypatch: pytest.MonkeyPatch, program: str, *words: str) -> dict[str, Any]:
    """What a command line is read as."""
    if program in COMMANDS:
        found = vars(commands()[program].parse_args(words))
        return {name: value for name, value in found.items() if name != "parser"}
    seen: list[dict[str, Any]] = []

    class Read(Exception):
        pass

    def read(parser: Parser, args: Any = None) -> Any:
        first = "warmup" if "studies" in program else "shapes-dit"
        seen.append(vars(argparse.ArgumentParser.parse_args(parser, [first, *words])))
        raise Read

    with monkeypatch.context() as patch, pytest.raises(Read):
        patch.setattr(Parser, "parse_args", read)
        importlib.import_module(program).main()
    return seen[0]


@pytest.mark.parametrize("program", NUMBERS)
def test_a_number_has_a_word_of_its_own_and_its_older_one_is_still_taken(
    program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, older = NUMBERS[program]
    new, old, other = (parsed(monkeypatch, program, *words) for words in ([ours, "7"], [older, "7"], [ours, "8"]))
    assert new == old != other


@pytest.mark.parametrize("program", NUMBERS)
def test_the_older_word_of_a_number_is_in_no_help(
    program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, older = NUMBERS[program]
    monkeypatch.setattr(sys, "argv", ["-", "--help"])
    with pytest.raises(SystemExit):
        main([program, "--help"]) if program in COMMANDS else importlib.import_module(program).main()
    shown = capsys.readouterr().out
    assert f"\n  {ours} N " in shown and not re.search(rf"{older}\b", shown)


def test_what_invert_called_its_scales_is_still_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    from zigzag.cli import invert_learned

    seen: list[Any] = []
    monkeypatch.setattr(invert_learned, "run", lambda settings, out: seen.append(settings))
    given = ["invert", "--model", "shapes-dit", "--prompt", "a circle", "--edit", "a square"]
    for ours, theirs in OLDER.items():
        for name in [ours, *theirs]:
            for words in ([name, "2.5"], [f"{name}=2.5"]):
                main([*given, *words])
        assert all(settings == seen[0] for settings in seen)
        assert getattr(seen[0], ours.removeprefix("--").replace("-", "_")) == 2.5
        seen.clear()
