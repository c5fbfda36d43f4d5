"""Where the knots of a solver are among the calls of a scheduler's grid."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from zigzag.adapters.diffusers.rehearsed import Rehearsed

__all__ = ["Layout", "Part"]


class Part(NamedTuple):
    """A stretch of the grid: the knot that it begins at, and its steps."""

    knot: int
    steps: int


class Layout:
    """The calls of each step of a scheduler, of which some have two, on its whole grid.

    Args:
        rehearsed: its steps.
    """

    def __init__(self, rehearsed: Rehearsed) -> None:
        self.groups, self.times = rehearsed.groups, rehearsed.rehearsal.times
        self._called = [rehearsed.called(told) for told in range(len(rehearsed.all_times))]

    def call(self, told: int) -> int:
        """The call at which the model is told that one of the solver's `all_times`; one past the last, for data."""
        return self._called[told] if told < len(self._called) else self.end

    @property
    def end(self) -> int:
        """One past the last call."""
        return self.groups[-1].last + 1

    def first_of(self, call: int) -> int:
        """The first call of the step that has this one, and one past the last itself."""
        return max(first for first in (*(group.first for group in self.groups), self.end) if first <= call)

    def part(self, start: int, count: int) -> Part:
        """The knots of a part of the grid, of `count` times from call `start` on.

        A part that begins with the second call of a step begins at the next knot, where both stand at one time (PNDM).

        Raises:
            ValueError: for a part that begins or ends in the middle of a step.
        """
        firsts = [group.first for group in self.groups]
        inside = [i for i, group in enumerate(self.groups) if start <= group.first and group.last < start + count]
        end = self.groups[inside[-1]].last + 1 if inside else start
        begun = firsts[inside[0]] if inside else start
        if start != begun and not same_time(self.times, start, begun):
            raise ValueError(self._within(f"begins with call {start}"))
        if end < min(start + count, self.groups[-1].last + 1):
            raise ValueError(self._within(f"ends after call {start + count - 1}"))
        return Part(inside[0] if inside else len(firsts), len(inside))

    @staticmethod
    def _within(what: str) -> str:
        return (
            f"the pipeline's loop {what} of its scheduler, in the middle of a step of two model calls; use another "
            "strength or number of steps, or a scheduler of one call a step"
        )


def same_time(times: Tensor, a: int, b: int) -> bool:
    """Whether two calls stand at one time."""
    return bool(times[a] == times[b])
