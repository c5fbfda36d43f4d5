"""The fields of the page of `zigzag play` are the options of `zigzag generate`, and read as its command line is."""

from __future__ import annotations

from copy import copy
from dataclasses import fields
from typing import Any

import pytest

from zigzag.cli.generate import settled
from zigzag.cli.play_fields import EMPTY, LOADED, Field, asked, fields_of, reader
from zigzag.evaluation.named import METHODS

PROMPT = "a red circle"
PIPELINE = ("--model", "some/pipeline", "--device", "cpu", "--dtype", "float32")


def opened(*words: str) -> tuple[list[Field], Any]:
    """The fields of a page that is opened with these options, and its settings."""
    args = reader().parse_args(["--model", "shapes-dit", *words])
    _, settings, _ = settled(copy(args))
    return fields_of(args, settings), settings


def values_of(form: list[Field], **changed: Any) -> dict[str, Any]:
    return {**{field.name: field.value for field in form}, **changed}


def command(*words: str, **changed: Any) -> list[str]:
    form, settings = opened(*words)
    _, jobs = asked(values_of(form, **changed), form, PROMPT, settings)
    return jobs[-1].command()


@pytest.mark.parametrize("words", [(), PIPELINE, (*PIPELINE, "--adapter", "style=place")], ids=["own", "pipe", "lora"])
def test_every_setting_and_every_option_of_a_method_is_a_field_once(words: tuple[str, ...]) -> None:
    if words:
        pytest.importorskip("diffusers")
        pytest.importorskip("transformers")
    form, settings = opened(*words)
    of_methods = {f"method_{f.name}" for kind in METHODS.values() for f in fields(kind) if f.name != "plain"}
    of_settings = {f.name for f in fields(settings)} - set(LOADED)
    if "--adapter" not in words:
        of_settings -= {"strong_adapter", "weak_adapter"}
    names = [field.name for field in form]
    assert sorted(names) == sorted({"method", *of_settings, *of_methods}) and all(field.help for field in form)
    for field in form:
        for method, kind in METHODS.items():
            own = {f"method_{f.name}" for f in fields(kind)}
            assert field.of(method) == (field.name in own or field.name not in of_methods)


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--method", "z", "--rounds", "2", "--refine", "1e-3", "--lambda", "3", "--strength", "0.5"),
        ("--method", "z", "--released", "--steps", "9"),
        ("--method", "z2", "--warmup", "2", "--solver", "dpm:order=2,sde", "--seed", "-7", "--weak=-1.5"),
        (*PIPELINE, "--method", "implicit", "--scheduler", "ddim", "--image-size", "64", "--negative-prompt", "a -b=c"),
        (*PIPELINE, "--weak-guidance", "1", "--weak-prompt", ""),
        (*PIPELINE, "--weak-guidance", "1", "--adapter", "style=a place", "--weak-adapter", "style=-1.5"),
    ],
)
def test_what_a_page_is_opened_with_is_what_it_draws(words: tuple[str, ...]) -> None:
    """The page's command is that of the words themselves; and opened with it, a page has the same in its fields."""
    if "--model" in words:
        pytest.importorskip("diffusers")
        pytest.importorskip("transformers")
    args = reader().parse_args(["--model", "shapes-dit", *words])
    _, settings, method = settled(args)
    made = command(*words)
    assert settled(reader().parse_args(made[2:]))[1:] == (settings, method)
    assert command(*made[2:]) == made


def test_a_field_of_another_method_is_not_asked_for() -> None:
    assert command("--method", "z2", method_span="2", method_rounds="many") == command("--method", "z2")
    assert "--span=2" in command("--method", "z", method_span="2")


def test_an_empty_text_is_not_given_and_two_quotes_are_the_empty_one() -> None:
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    assert not any(word.startswith("--weak-prompt") for word in command(*PIPELINE, weak_prompt=" "))
    made = command(*PIPELINE, weak_prompt=EMPTY)
    assert "--weak-prompt=" in made
    assert not any(word.startswith("--weak=") for word in made)  # the branches are joined as the pipeline joins them
    assert "--weak=0.0" in command(*PIPELINE)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"method_rounds": "many"}, "--rounds: invalid int value: 'many'"),
        ({"method_rounds": "0"}, "ZSampling: rounds must be at least 1, got 0"),
        ({"method_steps": "99"}, "steps must be at most T = 20, got 99"),
        ({"method_refine": "soon"}, "refine must be an integer, or a tolerance above 0"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"strong": float("nan")}, "strong must be finite"),
        ({"seed": None, "method_released": True, "method_span": "2"}, "released=True needs span=1"),
        ({"method": "zz"}, "--method: invalid choice: 'zz'"),
        ({"method": "z2", "steps": 4, "method_warmup": "4"}, "warmup must be smaller than the number of steps"),
    ],
)
def test_what_does_not_fit_is_said_in_the_words_of_the_command_line(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as error:
        command("--method", "z", **changed)
    assert said in str(error.value)


def test_an_empty_prompt_is_refused() -> None:
    form, settings = opened()
    with pytest.raises(ValueError, match="prompt must not be empty"):
        asked(values_of(form), form, " ", settings)
