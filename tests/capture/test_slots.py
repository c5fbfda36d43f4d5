"""The slots of a path's memory: each read finds what was left for it, and there are no more than have to be."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zigzag import DDIM, Denoise, Invert, Renoise, Shift, ZSampling
from zigzag.capture.slots import Slots, slots_of
from zigzag.held import HeldStep, steps_of
from zigzag.moves import Move
from zigzag.solvers import AdamsBashforth

T = 6
GRID = DDIM.stable_diffusion(T, spacing="trailing")
SOLVERS = {order: AdamsBashforth.on(GRID, order=order) for order in (1, 2, 3, 4)}


@st.composite
def paths(draw: st.DrawFn) -> list[Move]:
    """Any way over the grid, from any knot: up and down, by a knot or more, with jumps back to noise."""
    at, path = draw(st.integers(0, T - 1)), list[Move]()
    for _ in range(draw(st.integers(1, 24))):
        kinds = ["down", "down"] * (at < T) + ["shift"] * (at < T) + ["up", "renoise"] * (at > 0)
        match draw(st.sampled_from(kinds)):
            case "down":
                end = min(T, at + draw(st.sampled_from([1, 1, 1, 2])))
                path.append(Denoise(at, end))
                at = end
            case "shift":
                path.append(Shift(at, True))
            case "up":
                path.append(Invert(at, at - 1))
                at -= 1
            case "renoise":
                end = draw(st.integers(0, at - 1))
                path.append(Renoise(at, end))
                at = end
    return path


def last_left(path: list[Move], k: int, knot: int) -> int:
    """The move that left a knot last, before move `k`."""
    return max(n for n, move in enumerate(path[:k]) if isinstance(move, Denoise) and move.i == knot)


def check_found(path: list[Move], steps: list[HeldStep], slots: list[Slots]) -> None:
    """Every move writes where it may, what nobody reads too, and each read finds the move that it is to find."""
    written: dict[int, int | None] = {}
    for k, (held, at) in enumerate(zip(steps, slots, strict=True)):
        written[at.spare] = None
        assert [written[slot] for slot in at.reads] == [last_left(path, k, knot) for knot in held.reads]
        written[at.into] = k if held.leaves else None


@given(paths(), st.sampled_from(list(SOLVERS)))
def test_each_read_finds_what_was_left_for_it(path: list[Move], order: int) -> None:
    steps = steps_of(path, SOLVERS[order])
    check_found(path, steps, slots_of(path, steps))


@given(paths(), st.sampled_from(list(SOLVERS)))
def test_there_are_as_many_slots_as_are_wanted_at_once(path: list[Move], order: int) -> None:
    steps = steps_of(path, SOLVERS[order])
    last_read: dict[int, int] = {}  # by the move that left it
    for k, held in enumerate(steps):
        last_read |= {last_left(path, k, knot): k for knot in held.reads}
    wanted = [sum(left <= k < read for left, read in last_read.items()) for k in range(len(path))]
    used = {at.into for held, at in zip(steps, slots_of(path, steps), strict=True) if held.leaves}
    assert used == set(range(max(wanted)))


@pytest.mark.parametrize(
    "change",
    [
        lambda at: at._replace(into=0),
        lambda at: at._replace(spare=0),
        lambda at: at._replace(reads=at.reads[::-1]),
    ],
)
def test_a_slot_given_away_too_early_is_seen(change: Callable[[Slots], Slots]) -> None:
    path = list(ZSampling(span=2).path(T))
    steps = steps_of(path, SOLVERS[3])
    slots = slots_of(path, steps)
    check_found(path, steps, slots)
    with pytest.raises((AssertionError, KeyError)):
        check_found(path, steps, [change(at) for at in slots])
