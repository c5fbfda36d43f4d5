"""What is said of methods, paths and moves."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from support.predictors import untouched
from support.refusals import FLOW, WRONG, C, T, U, X, refused
from zigzag import EndToEnd, FlowEuler, ImplicitZ, Resampling, Z2Sampling, ZSampling, sample
from zigzag.moves import Denoise, Invert, Renoise, Shift

OUT_OF_RANGE: list[tuple[str, Callable[[], object]]] = [
    ("steps", lambda: Resampling(steps=-1)),
    ("steps", lambda: Resampling(steps=T + 1)),
    ("rounds", lambda: Resampling(rounds=-1)),
    ("refine", lambda: EndToEnd(refine=-1)),
    ("steps", lambda: ZSampling(steps=-1)),
    ("steps", lambda: ZSampling(steps=T + 1)),
    ("rounds", lambda: ZSampling(rounds=-1)),
    ("span", lambda: ZSampling(span=0)),
    ("span", lambda: ZSampling(span=-2)),
    ("refine", lambda: ZSampling(refine=-1)),
    ("steps", lambda: ZSampling(steps=T, released=True)),
    ("span|released", lambda: ZSampling(span=2, released=True)),
    ("refine|released", lambda: ZSampling(refine=1, released=True)),
    ("start", lambda: ImplicitZ(start=-1)),
    ("start", lambda: ImplicitZ(start=T + 1)),
    ("steps", lambda: ImplicitZ(steps=-1)),
    ("steps", lambda: ImplicitZ(steps=T + 1)),
    ("warmup", lambda: Z2Sampling(warmup=-1)),
    ("warmup", lambda: Z2Sampling(warmup=T)),
    ("warmup", lambda: Z2Sampling(warmup=T + 3)),
    ("steps", lambda: Z2Sampling(warmup=1, steps=-1)),
    ("steps", lambda: Z2Sampling(warmup=1, steps=T + 1)),
]


@pytest.mark.parametrize(("match", "make"), OUT_OF_RANGE, ids=range(len(OUT_OF_RANGE)))
def test_an_argument_of_a_method_out_of_range(match: str, make: Callable[[], object]) -> None:
    """Said when the method is made or when it meets its grid, and in any case before the model is called."""
    with pytest.raises(ValueError, match=match):
        make().path(T)
    with pytest.raises(ValueError, match=match):
        sample(untouched, X, FLOW, make(), cond=C, uncond=U)


WRONG_TYPES: list[tuple[str, Callable[[], object]]] = [
    ("steps", lambda: ZSampling(steps=1.5)),
    ("rounds", lambda: ZSampling(rounds="2")),
    ("span", lambda: ZSampling(span=2.0)),
    ("refine", lambda: EndToEnd(refine=None)),
    ("rounds", lambda: Resampling(rounds=1.5)),
    ("start", lambda: ImplicitZ(start=0.5)),
    ("warmup", lambda: Z2Sampling(warmup=0.1)),
]


@pytest.mark.parametrize(("match", "make"), WRONG_TYPES, ids=range(len(WRONG_TYPES)))
def test_an_argument_of_a_method_of_the_wrong_type(match: str, make: Callable[[], object]) -> None:
    with pytest.raises(TypeError, match=match):
        make().path(T)


@pytest.mark.parametrize("n", [1, 3, 4, 5])
def test_the_default_warmup_on_few_steps_names_the_value_of_the_paper(n: int) -> None:
    """Z2Sampling() on 4 steps: warmup=5 is refused with the 1 of 4 that the paper takes."""
    message = refused("warmup", solver=FlowEuler.uniform(n), method=Z2Sampling())
    assert "5" in message and re.search(r"warmup ?= ?1|1 of 4", message)


PATHS = [
    (Denoise(0, 1), Denoise(2, 3)),
    (Denoise(0, 1), Shift(0, True)),
    (Denoise(0, 1), Invert(2, 1)),
    (Denoise(0, 1), Invert(1, 0), Denoise(1, 2)),
    (Denoise(0, 1), Renoise(2, 0)),
]


@pytest.mark.parametrize("path", PATHS, ids=range(len(PATHS)))
def test_a_path_that_does_not_connect(path: tuple[object, ...]) -> None:
    refused("path|connect|knot", method=path)


def test_a_path_that_leaves_the_grid() -> None:
    for path in [
        (Denoise(T, T + 1),),
        (Denoise(0, T + 1),),
        (Invert(T + 1, T),),
        (Renoise(T + 1, 0),),
        (Denoise(T - 1, T), Shift(T, True)),
        (Invert(T, T - 1, coefficients=(T, T + 1)),),
    ]:
        refused("knot|grid|step", method=path)


@pytest.mark.parametrize(
    "make",
    [lambda: Denoise(1, 0), lambda: Denoise(1, 1), lambda: Denoise(-1, 0), lambda: Invert(0, 1),
     lambda: Invert(1, 1), lambda: Renoise(0, 1), lambda: Renoise(1, 1), lambda: Invert(1, 0, refine=-1),
     lambda: Shift(-1, True)],
    ids=range(9),
)  # fmt: skip
def test_a_move_that_goes_the_wrong_way(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"knot|Denoise|Invert|Renoise|Shift|refine"):
        sample(untouched, X, FLOW, (make(),), cond=C, uncond=U)


@pytest.mark.parametrize(
    "path",
    [
        (Shift(0, False), Denoise(0, 1)),
        (Invert(1, 0), Shift(0, False)),
        (Renoise(2, 1), Shift(1, False)),
    ],
    ids=range(3),
)
def test_a_cached_shift_with_nothing_cached(path: tuple[object, ...]) -> None:
    """Denoise and Shift(fresh) write the cache, Invert and Renoise never."""
    assert re.search("gap|cache", refused("Shift", method=path))


@pytest.mark.parametrize("method", [3, "z", None, (Denoise(0, 1), 3), [1]], ids=str)
def test_a_method_that_is_none(method: object) -> None:
    refused("method|path|move", WRONG, method=method)
