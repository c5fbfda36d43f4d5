"""The six methods are paths, written out by hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zigzag import EndToEnd, ImplicitZ, Resampling, Standard, Z2Sampling, ZSampling
from zigzag.moves import Denoise, Invert, Renoise, Shift


def moves(text: str, refine: int = 0) -> tuple[object, ...]:
    """D01 I10 R10 S1 s1: Denoise, Invert, Renoise, a fresh and a cached Shift; I10+ is released."""
    made: dict[str, Callable[[list[int], bool], object]] = {
        "D": lambda k, _: Denoise(k[0], k[1]),
        "I": lambda k, plus: Invert(k[0], k[1], refine, (k[1] + 1, k[0] + 1) if plus else None),
        "R": lambda k, _: Renoise(k[0], k[1]),
        "S": lambda k, _: Shift(k[0], True),
        "s": lambda k, _: Shift(k[0], False),
    }
    return tuple(made[w[0]]([int(c) for c in w[1:].rstrip("+")], w.endswith("+")) for w in text.split())


PATHS = [
    (Standard(), 1, "D01"),
    (Standard(), 3, "D01 D12 D23"),
    (Resampling(), 3, "D01 R10 D01 D12 R21 D12 D23"),
    (Resampling(steps=1, rounds=2), 3, "D01 R10 D01 R10 D01 D12 D23"),
    (Resampling(steps=0), 2, "D01 D12"),
    (Resampling(steps=2), 2, "D01 R10 D01 D12 R21 D12"),
    (EndToEnd(), 2, "D01 D12 I21 I10 D01 D12"),
    (EndToEnd(), 3, "D01 D12 D23 I32 I21 I10 D01 D12 D23"),
    (ZSampling(), 1, "D01"),
    (ZSampling(), 3, "D01 I10 D01 D12 I21 D12 D23"),
    (ZSampling(steps=0), 2, "D01 D12"),
    (ZSampling(steps=1), 3, "D01 I10 D01 D12 D23"),
    (ZSampling(steps=3), 3, "D01 I10 D01 D12 I21 D12 D23 I32 D23"),
    (ZSampling(steps=1, rounds=2), 2, "D01 I10 D01 I10 D01 D12"),
    (ZSampling(span=2), 3, "D01 D12 I21 I10 D01 D12 D23 I32 I21 D12 D23"),
    (ZSampling(steps=1, span=2, rounds=2), 2, "D01 D12 I21 I10 D01 D12 I21 I10 D01 D12"),
    (ZSampling(steps=3, span=2), 3, "D01 D12 I21 I10 D01 D12 D23 I32 I21 D12 D23 I32 D23"),
    (ZSampling(steps=1, span=9), 2, "D01 D12 I21 I10 D01 D12"),
    (ZSampling(released=True), 3, "D01 I10+ D01 D12 I21+ D12 D23"),
    (ZSampling(steps=1, rounds=2, released=True), 3, "D01 I10+ D01 I10+ D01 D12 D23"),
    (ImplicitZ(), 3, "S0 D01 S1 D12 S2 D23"),
    (ImplicitZ(start=1), 3, "D01 S1 D12 S2 D23"),
    (ImplicitZ(start=1, steps=2), 3, "D01 S1 D12 D23"),
    (ImplicitZ(steps=0), 2, "D01 D12"),
    (Z2Sampling(warmup=0), 3, "D01 s1 D12 s2 D23"),
    (Z2Sampling(warmup=1), 3, "D01 s1 D12 s2 D23"),
    (Z2Sampling(warmup=2), 3, "D01 D12 s2 D23"),
    (Z2Sampling(warmup=1, steps=2), 3, "D01 s1 D12 D23"),
    (Z2Sampling(), 7, "D01 D12 D23 D34 D45 s5 D56 s6 D67"),
    (Z2Sampling(warmup=0), 1, "D01"),
]


@pytest.mark.parametrize(("method", "n", "want"), PATHS, ids=lambda v: str(v))
def test_the_path_is_the_one_written_out(method: object, n: int, want: str) -> None:
    path = method.path(n)
    assert isinstance(path, tuple) and path == moves(want)


def test_the_moves_of_a_path_written_out_are_told_apart() -> None:
    """Else the comparison above would say nothing of them: each has one thing changed."""
    variants = ["D01", "D02", "D12", "I10", "I20", "I10+", "R10", "S0", "s0", "S1"]
    paths = [*map(moves, variants), moves("I10", refine=1)]
    assert all(one != two for one, two in itertools.combinations(paths, 2))


def test_refine_goes_to_every_inversion() -> None:
    assert ZSampling(refine=3, span=2, steps=1).path(2) == moves("D01 D12 I21 I10 D01 D12", refine=3)
    assert EndToEnd(refine=2).path(2) == moves("D01 D12 I21 I10 D01 D12", refine=2)


def test_an_end_to_end_zigzag_is_one_step_that_spans_the_grid() -> None:
    """EndToEnd is ZSampling(steps=1, span=T)."""
    for n in range(1, 6):
        assert EndToEnd(refine=1).path(n) == ZSampling(steps=1, span=n, refine=1).path(n)
        assert n == 1 or EndToEnd().path(n) != ZSampling(steps=1, span=n - 1).path(n)


@st.composite
def methods(draw: Callable[..., object]) -> tuple[object, int]:
    n = draw(st.integers(2, 7))
    steps, rounds = draw(st.integers(0, n - 1)), draw(st.integers(1, 3))
    any_method = [
        Standard(),
        Resampling(steps, rounds),
        EndToEnd(draw(st.integers(0, 2))),
        ZSampling(steps, rounds, draw(st.integers(1, 9)), draw(st.integers(0, 2))),
        ZSampling(steps, rounds, released=True),
        ImplicitZ(draw(st.integers(0, max(steps - 1, 0))), steps),
        Z2Sampling(draw(st.integers(0, n - 1)), None),
    ]
    return draw(st.sampled_from(any_method)), n


def check_path(path: tuple[object, ...], n: int) -> None:
    """A path goes from 0 to T, connects, stays on the grid, and inverts only what it has denoised."""
    assert path[0].start == 0 and path[-1].end == n
    for one, two in itertools.pairwise(path):
        assert one.end == two.start
    down: list[tuple[int, int]] = []
    for move in path:
        assert min(move.start, move.end) >= 0 and max(move.start, move.end) <= n
        if isinstance(move, Denoise):
            assert move.j == move.i + 1
            down.append((move.i, move.j))
        elif isinstance(move, Invert | Renoise):
            assert down.pop() == (move.i, move.j)


@given(case=methods())
def test_every_path_connects_noise_to_data(case: tuple[object, int]) -> None:
    method, n = case
    check_path(method.path(n), n)


def test_the_path_check_fails_on_mutants() -> None:
    for mutant in ["D01 D23", "D12 D23", "D01 D12", "D01 I10 D01 I10 D01 D12 I10 D12 D23", "D01 D12 D23 D34"]:
        with pytest.raises((AssertionError, IndexError)):
            check_path(moves(mutant), 3)
