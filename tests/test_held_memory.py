"""Memory belongs to knots and noise to intervals: walks against one that is written out in a straight line."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.held import MULTISTEP, ON_EPSILON, STOCHASTIC, make
from support.oracle import Mutant, straight
from support.predictors import field
from support.sampling import COND, UNCOND, X, seed
from support.tensors import assert_within
from zigzag import EndToEnd, ImplicitZ, Resampling, Standard, Z2Sampling, ZSampling, walk
from zigzag.moves import Denoise, Invert, Move, Renoise, Shift
from zigzag.sampling import noise_like
from zigzag.solvers import Solver

T = 6
STRONG, WEAK = 2.0, 0.5
HOLDING = {**MULTISTEP, **STOCHASTIC}
CHOSEN = ["2M", "3M", "AB-4", "DEIS-3", "SDE-2M", "eta 1"]


def down(i: int, j: int) -> tuple[Move, ...]:
    return tuple(Denoise(k, k + 1) for k in range(i, j))


def up(j: int, i: int) -> tuple[Move, ...]:
    return tuple(Invert(k + 1, k) for k in reversed(range(i, j)))


PATHS: dict[str, tuple[Move, ...]] = {
    "standard": Standard().path(T),
    "Z": ZSampling().path(T),
    "Z, refined": ZSampling(refine=2).path(T),
    "Z, span 3, rounds 2": ZSampling(steps=2, span=3, rounds=2).path(T),
    "end to end": EndToEnd().path(T),
    "implicit": ImplicitZ().path(T),
    "Z2": Z2Sampling(warmup=2).path(T),
    "resampling": Resampling(steps=4, rounds=2).path(T),
    "from the middle": (*down(2, 5), *up(5, 3), *down(3, T)),
    "up from data": (*up(T, 2), *down(2, 4), *up(4, 3), *down(3, T)),
    "skipping knots": (Denoise(0, 1), *down(1, 3), Invert(3, 1), Denoise(1, 3), Invert(3, 0), Denoise(0, 2),
                       *down(2, 4), Invert(4, 2), Denoise(2, 5), Denoise(5, T)),
    "up past what was left": (*down(0, 4), Invert(4, 0), Denoise(0, 3), *down(3, 5), Renoise(5, 3), *down(3, T)),
    "renoised in the middle": (*down(0, 4), *up(4, 3), Renoise(3, 1), *down(1, 3), Shift(3, True), *down(3, T)),
}  # fmt: skip


def check_walk(path: tuple[Move, ...], solver: Solver, mutant: Mutant = "", number: int = 0) -> None:
    """Every state of the walk is that of the straight line, as near as rounding takes either."""
    args = {"cond": COND, "uncond": UNCOND, "strong": STRONG, "weak": WEAK}
    visits = list(walk(field, X, solver, path, generator=seed(number), **args))
    generator = seed(number)
    states = straight(path, solver, X, STRONG, WEAK, lambda x: noise_like(x, generator), mutant)
    for visit, near in zip(visits, states, strict=True):
        assert near.off <= 1e-5 * (1 + near.size), "a bound that says nothing"
        assert_within(visit.state, near.value, 2 * near.off)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", CHOSEN)
def test_a_walk_remembers_and_holds_what_the_straight_line_does(name: str, path: str) -> None:
    check_walk(PATHS[path], make(name, "leading", T))


@pytest.mark.parametrize("grid", ["flow", "cosine"])
@pytest.mark.parametrize("name", [n for n in HOLDING if n not in ON_EPSILON])
def test_so_it_does_on_every_grid_and_prediction(name: str, grid: str) -> None:
    check_walk(PATHS["Z, span 3, rounds 2"], make(name, grid, T))


@st.composite
def paths(draw: st.DrawFn) -> tuple[Move, ...]:
    """Any path of up to twelve moves that connects; shifts are fresh until something is cached."""
    at, moves = draw(st.integers(0, T)), []
    for _ in range(draw(st.integers(1, 12))):
        cached = any(isinstance(move, Denoise | Shift) for move in moves)
        kinds = ["down"] * 3 * (at < T) + ["up"] * 2 * (at > 0) + ["renoise"] * (at > 0) + ["shift"] * (at < T)
        match draw(st.sampled_from(kinds)):
            case "down":
                moves.append(Denoise(at, draw(st.integers(at + 1, min(T, at + 2)))))
            case "up":
                moves.append(Invert(at, draw(st.integers(max(0, at - 3), at - 1)), draw(st.integers(0, 1))))
            case "renoise":
                moves.append(Renoise(at, draw(st.integers(max(0, at - 2), at - 1))))
            case _:
                moves.append(Shift(at, not cached or draw(st.booleans())))
        at = moves[-1].end
    return tuple(moves)


@pytest.mark.parametrize("name", ["3M", "AB-4", "SDE-3M"])
@settings(max_examples=40)
@given(path=paths(), number=st.integers(0, 99))
def test_on_any_path(name: str, path: tuple[Move, ...], number: int) -> None:
    check_walk(path, make(name, "flow", T), number=number)


CAUGHT: list[tuple[Mutant, str, str]] = [
    ("queue", "2M", "Z"),
    ("queue", "AB-4", "end to end"),
    ("queue", "SDE-2M", "Z, span 3, rounds 2"),
    ("stale", "2M", "skipping knots"),
    ("stale", "3M", "up past what was left"),
    ("wrong knot", "2M", "Z"),
    ("wrong knot", "3M", "standard"),
    ("wrong knot", "AB-4", "Z2"),
    ("fresh inverse", "SDE-2M", "Z"),
    ("fresh inverse", "eta 1", "end to end"),
    ("another order", "2M", "Z"),
    ("another order", "AB-4", "Z, refined"),
    ("kept by a Renoise", "2M", "resampling"),
    ("kept by a Renoise", "eta 1", "resampling"),
    ("kept by a Renoise", "SDE-3M", "renoised in the middle"),
]


@pytest.mark.parametrize(("mutant", "name", "path"), CAUGHT)
def test_the_straight_line_tells_other_memories_from_this_one(mutant: Mutant, name: str, path: str) -> None:
    solver = make(name, "leading", T)
    check_walk(PATHS[path], solver)
    with pytest.raises(AssertionError):
        check_walk(PATHS[path], solver, mutant)
