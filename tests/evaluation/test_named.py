"""Methods by name: one word for each, its options, and what it is called in a table."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields
from typing import Any

import pytest

from zigzag import EndToEnd, ImplicitZ, Resampling, Standard, Z2Sampling, ZSampling
from zigzag.evaluation.named import METHODS, label, make_method, parse_method
from zigzag.methods import Method

WORDS: dict[str, Method] = {
    "z:span=2,rounds=3": ZSampling(span=2, rounds=3),
    "z:steps=4,refine=2": ZSampling(steps=4, refine=2),
    "z:released": ZSampling(released=True),
    "z:released,rounds=2": ZSampling(released=True, rounds=2),
    "z2:warmup=2": Z2Sampling(warmup=2),
    "z2:warmup=0,steps=7": Z2Sampling(warmup=0, steps=7),
    "implicit:start=1,steps=3": ImplicitZ(start=1, steps=3),
    "resampling:rounds=2": Resampling(rounds=2),
    "end-to-end:refine=1": EndToEnd(refine=1),
}


def test_every_method_is_known_by_its_name() -> None:
    kinds = {Standard, Resampling, EndToEnd, ZSampling, ImplicitZ, Z2Sampling}
    assert set(METHODS.values()) == kinds and len(METHODS) == len(kinds)
    for name, kind in METHODS.items():
        assert parse_method(name, 8) == make_method(name, 8, {}) == kind()


@pytest.mark.parametrize("text", WORDS)
def test_options_stand_after_a_colon(text: str) -> None:
    assert parse_method(text, 8) == WORDS[text]


@pytest.mark.parametrize(("T", "warmup"), [(2, 1), (4, 1), (5, 1), (6, 5), (50, 5)])
def test_z2_warms_up_for_one_step_where_there_are_few(T: int, warmup: int) -> None:
    assert parse_method("z2", T) == make_method("z2", T, {}) == Z2Sampling(warmup=warmup)
    assert parse_method("z2:warmup=0", T) == Z2Sampling(warmup=0)
    assert parse_method(f"z2:steps={T}", T) == Z2Sampling(warmup=warmup, steps=T)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("zigzag", [*METHODS, "zigzag"]),
        ("", list(METHODS)),
        ("Z", list(METHODS)),
        ("z:warmup=2", ["z ", "warmup", "span", "rounds", "refine", "steps", "released"]),
        ("standard:span=2", ["standard", "span", "none"]),
        ("z:span=two", ["span", "integer", "two"]),
        ("z:span=1.5", ["span", "integer", "1.5"]),
        ("z:span", ["span", "integer"]),
        ("z:span=", ["span", "integer"]),
        ("z:span=0", ["span", "at least 1", "0"]),
        ("z:steps=9", ["steps", "at most", "8", "9"]),
        ("z:released,span=2", ["released", "span=1"]),
        ("z2:warmup=8", ["warmup", "8"]),
        ("z2:warmup=-1", ["warmup", "-1"]),
    ],
)
def test_errors_say_what_came_and_what_is_known(text: str, said: list[str]) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_method(text, 8)
    assert [word for word in said if word not in str(caught.value)] == []


def test_a_method_too_short_of_steps_is_refused() -> None:
    for text in ("z2", "z2:warmup=1"):
        with pytest.raises(ValueError, match="warmup=1 and T = 1"):
            parse_method(text, 1)
    with pytest.raises(ValueError, match="T >= 1"):
        parse_method("z", 0)


@pytest.mark.parametrize("text", ["z:released=1", "z:released=0", "z:released=5"])
def test_a_flag_is_never_a_number(text: str) -> None:
    """Else two methods that are equal would have two names: True == 1."""
    with suppress(ValueError):
        assert isinstance(parse_method(text, 8).released, bool)  # type: ignore[attr-defined]


def test_labels_tell_methods_apart_and_show_what_is_not_the_default() -> None:
    plain = [label(kind()) for kind in METHODS.values()]
    assert plain == ["Standard", "Resampling", "End-to-End", "Z-Sampling", "Implicit Z", "Z²-Sampling"]
    every = [*plain, *(label(method) for method in WORDS.values())]
    assert len(set(every)) == len(every)
    assert label(ZSampling(steps=4, span=2)) == "Z-Sampling (λ 4, span 2)"
    assert label(ZSampling(released=True)) == "Z-Sampling (released)"
    assert label(Z2Sampling(warmup=0)) == "Z²-Sampling (warmup 0)"
    assert label(Z2Sampling(warmup=5)) == "Z²-Sampling"
    assert label(ZSampling(steps=4, span=2), options=False) == "Z-Sampling"


def test_every_option_of_every_method_is_in_its_label() -> None:
    for kind in METHODS.values():
        for field in fields(kind):
            value: Any = True if field.default is False else (field.default or 5) + 2
            changed = kind(**{field.name: value})
            assert label(changed) != label(kind()) == label(changed, options=False)


def test_a_method_of_ones_own_is_called_what_it_calls_itself() -> None:
    class Own:
        def path(self, T: int) -> tuple[()]:
            return ()

        def __repr__(self) -> str:
            return "Own(3)"

    assert (label(Own()), label(Own(), options=False)) == ("Own(3)", "Own")
