"""The docstrings of what samples say every argument, each in its own words once."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest

from zigzag import capture, sample, walk


def sections(function: Callable[..., Any]) -> dict[str, dict[str, str]]:
    """The sections of a docstring, and what each says by name."""
    text = inspect.getdoc(function) or ""
    bodies = dict(re.findall(r"^(Args|Raises|Returns):\n((?:    .*\n?|\n)+)", text, re.MULTILINE))
    entry = re.compile(r"^    (\w[\w, ]*): ((?:.*\n?)(?:^     +.*\n?)*)", re.MULTILINE)
    return {name: {key: said.strip() for key, said in entry.findall(body)} for name, body in bodies.items()}


def named(function: Callable[..., Any]) -> list[str]:
    return [name for key in sections(function)["Args"] for name in key.split(", ")]


@pytest.mark.parametrize("function", [sample, walk, capture])
def test_every_argument_is_said_once(function: Callable[..., Any]) -> None:
    assert sorted(named(function)) == sorted(inspect.signature(function).parameters)


def test_attach_says_every_argument() -> None:
    pytest.importorskip("diffusers")
    from zigzag.adapters.diffusers import attach

    assert sorted(named(attach)) == sorted(inspect.signature(attach).parameters)


@pytest.mark.parametrize("function", [sample, capture])
def test_an_argument_of_several_is_said_alike(function: Callable[..., Any]) -> None:
    said, of_walk = sections(function)["Args"], sections(walk)["Args"]
    assert len(said) >= 10
    wanted = {name: of_walk[name] for name in said}
    if function is capture:  # of a method that is steered nothing can be captured
        wanted["method"], _, steered = wanted["method"].partition(" Or a method")
        assert "Steered" in steered
    assert said == wanted


def test_sample_raises_what_walk_does() -> None:
    assert sections(sample)["Raises"] == sections(walk)["Raises"] != {}
