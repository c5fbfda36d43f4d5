"""What the adapters share that are asked by a host's own loop, or run in its place."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from zigzag.methods import Method, Standard, Steered
from zigzag.moves import Denoise, Invert, Move, Renoise, Shift
from zigzag.solvers import StepInfo
from zigzag.steered import begun
from zigzag.visits import Visit

__all__ = ["Own", "Whole", "is_plain", "moved", "whole_path"]


def whole_path(method: Method | Sequence[Move], steps: int, host: str) -> tuple[Move, ...]:
    """The path of a method on `steps` steps; a user's own is taken if it leads from the host's noise to its data.

    host: what has the steps, for the message.

    Raises:
        ValueError: for a number of steps that the method does not take, or moves that begin or end elsewhere.
    """
    path = tuple(method.path(steps)) if isinstance(method, Method) else tuple(method)
    if not path or path[0].start != 0 or path[-1].end != steps:
        raise _of_ends(host, steps, path)
    return path


def is_plain(path: Sequence[Move]) -> bool:
    """Whether the path is standard sampling, which the host can be left to do by itself."""
    return not path or tuple(path) == Standard().path(len(path))


@dataclass(frozen=True, repr=False)
class Whole:
    """A method that is steered by its walk, held to lead from a host's noise to its data.

    Its moves and visits are on the host's own knots, which may be the last ones of a longer grid.

    Attributes:
        method: that is steered. steps: the host's. host: what has them, for messages.
        at: the knot of the grid that is the host's first.
    """

    method: Steered
    steps: int
    host: str
    at: int = 0

    def __repr__(self) -> str:
        return repr(self.method)

    def steer(self, T: int) -> Generator[Move, Visit, None]:
        """Its moves, laid on the grid of `T` steps.

        Raises:
            ValueError: where they begin elsewhere, and, once they end, where they end elsewhere.
        """
        moves, made = begun(self.method, self.steps), list[Move]()
        try:
            move = next(moves)
            while True:
                if not made and isinstance(move, Move) and move.start != 0:
                    raise ValueError(
                        f"method: {self.host} of {self.steps} steps begins at knot 0, but the first move of "
                        f"{self.method!r} is {move!r}"
                    )
                made[1:] = [move]  # the first one and the last
                # A visit has no name here, or its prediction would be held through the next model call.
                move = moves.send(self._back((yield moved(move, self.at))))
        except StopIteration:
            pass
        if not made or made[-1].end != self.steps:
            raise _of_ends(self.host, self.steps, made)

    def _back(self, visit: Visit) -> Visit:
        return visit._replace(move=moved(visit.move, -self.at), knot=visit.knot - self.at)


def moved(move: Move, by: int) -> Move:
    """The same move `by` knots further down the grid; what is no move as it is."""
    if not by or not isinstance(move, Move):
        return move
    match move:
        case Denoise() | Renoise():
            return replace(move, i=move.i + by, j=move.j + by)
        case Invert(j, i, _, coefficients):
            k = None if coefficients is None else (coefficients[0] + by, coefficients[1] + by)
            return replace(move, j=j + by, i=i + by, coefficients=k)
        case Shift(i):
            return replace(move, i=i + by)


class Own:
    """A guidance that is the host's own, whatever its rule, held until the traversal calls for it.

    Args:
        host: whose it is, for messages. branch: whether it counts as known only where its conditional branch was
            answered, as of a role in calls of its own: what is held may be of another state.

    Attributes:
        prediction: what the host made of its last evaluation.
        both: whether the host evaluates both branches by themselves, which is not for the traversal to choose.
    """

    def __init__(self, host: str, both: bool = False, branch: bool = False) -> None:
        self.host, self.both, self.branch = host, both, branch
        self.prediction: Tensor | None = None

    def __repr__(self) -> str:
        return f"{self.host}'s own guidance"

    def branches(self, step: StepInfo) -> tuple[bool, bool]:
        """`(cond, uncond)`: what the host evaluates."""
        return self.both or self.branch, self.both

    def __call__(self, e_c: Tensor | None, e_u: Tensor | None, step: StepInfo) -> Tensor:
        """The host's prediction of this call."""
        assert self.prediction is not None
        return self.prediction


def _of_ends(host: str, steps: int, path: Sequence[Move]) -> ValueError:
    return ValueError(
        f"method: {host} of {steps} steps begins at knot 0 and ends at knot {steps}, but the moves run from "
        f"{path[0].start if path else 'nowhere'} to {path[-1].end if path else 'nowhere'}"
    )
