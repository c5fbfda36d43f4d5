"""What the adapters share that are asked by a host's own loop, or run in its place."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from zigzag.methods import Method, Standard
from zigzag.moves import Move
from zigzag.solvers import StepInfo

__all__ = ["Own", "is_plain", "whole_path"]


def whole_path(method: Method | Sequence[Move], steps: int, host: str) -> tuple[Move, ...]:
    """The path of a method on `steps` steps; a user's own is taken if it leads from the host's noise to its data.

    host: what has the steps, for the message.

    Raises:
        ValueError: for a number of steps that the method does not take, or moves that begin or end elsewhere.
    """
    path = tuple(method.path(steps)) if isinstance(method, Method) else tuple(method)
    if not path or path[0].start != 0 or path[-1].end != steps:
        raise ValueError(
            f"method: {host} of {steps} steps begins at knot 0 and ends at knot {steps}, but the moves run from "
            f"{path[0].start if path else 'nowhere'} to {path[-1].end if path else 'nowhere'}"
        )
    return path


def is_plain(path: Sequence[Move]) -> bool:
    """Whether the path is standard sampling, which the host can be left to do by itself."""
    return not path or tuple(path) == Standard().path(len(path))


class Own:
    """The strong guidance: the host's own, whatever its rule, held until the traversal calls for it.

    Args:
        host: whose it is, for messages.

    Attributes:
        prediction: what the host made of its last evaluation.
        both: whether the host evaluates both branches by themselves, which is not for the traversal to choose.
    """

    def __init__(self, host: str, both: bool = False) -> None:
        self.host, self.both = host, both
        self.prediction: Tensor | None = None

    def __repr__(self) -> str:
        return f"{self.host}'s own guidance"

    def branches(self, step: StepInfo) -> tuple[bool, bool]:
        """`(cond, uncond)`: what the host evaluates."""
        return self.both, self.both

    def __call__(self, e_c: Tensor | None, e_u: Tensor | None, step: StepInfo) -> Tensor:
        """The host's prediction of this call."""
        assert self.prediction is not None
        return self.prediction
