"""The moves of a method that is steered by its walk, as they come."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TypeAlias

from zigzag.held import HeldStep, Planned
from zigzag.methods import Steered
from zigzag.moves import Denoise, Move, Shift
from zigzag.paths import check_cached, check_move
from zigzag.solvers import Solver
from zigzag.visits import Visit

__all__ = ["Next", "Steering", "begun"]

Next: TypeAlias = tuple[Move, HeldStep, bool]


def begun(method: Steered, T: int) -> Generator[Move, Visit, None]:
    """The generator of a steered method on `T` steps.

    Raises:
        TypeError: for a `steer` that makes none.
    """
    moves = method.steer(T)
    if not isinstance(moves, Generator):
        raise TypeError(f"{method!r}: steer(T) must be a generator of moves, got {moves!r}")
    return moves


class Steering:
    """The moves of a steered method, each checked when it comes, with its step: `(move, step, caches a gap)`.

    What a later move may read is not known, so that all is kept: whatever a solver remembers of the knots, the noise of
    every interval, and the gap of every Denoise.

    Args:
        method: whose generator is begun. solver: on whose grid.

    Attributes:
        told: what the method is sent before its next move, set by whoever made the last one.

    Raises:
        TypeError, ValueError: as `plan_path`: at once for the first move, for the others where they come; and for a
            solver with `fresh_noise`, which has to know which Denoise leaves its knot for good.
    """

    def __init__(self, method: Steered, solver: Solver) -> None:
        if solver.fresh_noise:
            raise ValueError(
                f"{method!r} is steered by its walk, and {solver!r} with fresh_noise=True has to know beforehand which "
                "Denoise leaves its knot for good; use fresh_noise=False"
            )
        self.told: Visit | None = None
        self._moves, self._planned, self._path = begun(method, len(solver)), Planned(solver), list[Move]()
        self._ahead, self._known = self._next(), True
        if self._ahead is None:
            raise ValueError("method: the path has no moves")

    def __iter__(self) -> Iterator[Next]:
        while (move := self.ahead()) is not None:
            self._known = False
            yield move

    def ahead(self) -> Next | None:
        """The next move, which the method decides now if it has not yet; None at the end of its path."""
        if not self._known:
            self._ahead, self._known = self._next(), True
        self.told = None
        return self._ahead

    def _next(self) -> Next | None:
        try:
            # Nothing here holds the visit, or its prediction would be held through the next model call.
            move = self._moves.send(self._told())  # type: ignore[arg-type]
        except StopIteration:
            return None
        self._path.append(move)
        k = len(self._path) - 1
        check_move(self._path, k, move)
        if not any(isinstance(before, Denoise | Shift) for before in self._path[:k]):
            check_cached(k, move)
        try:
            held = self._planned.step(move)
        except ValueError as error:
            raise ValueError(f"move {k} of the path, {move!r}: {error}") from None
        denoises = isinstance(move, Denoise)
        leaves, keeps = denoises and self._planned.solver.memory > 0, held.interval is not None
        return move, held._replace(leaves=leaves, keeps=keeps), denoises

    def _told(self) -> Visit | None:
        told, self.told = self.told, None
        return told
