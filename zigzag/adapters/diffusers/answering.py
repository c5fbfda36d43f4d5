"""What a pipeline's model calls answer, and the states that are handed out for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from zigzag.adapters.diffusers.branches import Branches
from zigzag.adapters.diffusers.cast import NAMES, Cast, Pass, Source
from zigzag.adapters.diffusers.draws import Draws
from zigzag.adapters.diffusers.naming import Naming
from zigzag.adapters.hosts import Own
from zigzag.solvers import Solver

__all__ = ["Answering"]


class Answering:
    """Takes the outputs of a model, call by call, and hands out the state for the next.

    Args:
        solver: the steps of its grid. cast: of the roles that are not the pipeline's own.

    Attributes:
        passes: of the pipeline's loop, as many as there may be. asked: which of the solver's `all_times` the model is
            told in each. most: their number at first. open: whether some may fall away.
        knot: where the state is that was handed out; between two knots, the one that the step has left.
        place: which of `all_times` belongs to that state; None where it is data.
        entered: whether it began with a state of its own, before the first call.
        calls, rows: that were answered, and their rows per sample.
        draw: of the noise; to be set before it begins.
        guidances: what the pipeline made last of its calls, by whose they were. own: of those that are its own.
    """

    draw: Draws
    passes: list[Pass]
    asked: list[int]
    most: int
    open: bool
    knot: int
    place: int | None

    def __init__(self, solver: Solver, cast: Cast) -> None:
        self.solver, self.cast, self.own = solver, cast, Own("the pipeline")
        self.guidances: dict[Source, Own] = {name: Own("the pipeline", branch=True) for name in NAMES}
        self.guidances["own"] = self.own
        self.calls, self.rows = 0, 0
        self.entered, self._naming = False, Naming()
        self._handed: tuple[Tensor, Tensor, int | None] | None = None  # itself, what it was, its count of writes

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to ask."""
        raise NotImplementedError

    @property
    def known(self) -> list[int]:
        """Of the calls that were made, and that are still known to come, what the model is told in each."""
        return self.asked[: self.calls] if self.ended else self.asked

    def answer(self, outputs: Sequence[Any], guided: Tensor, sample: Tensor) -> Tensor:
        """Takes the model's outputs at `sample`, and the pipeline's prediction, on to the state for the next call."""
        raise NotImplementedError

    def _branches(self, outputs: Sequence[Any], guided: Tensor, sample: Tensor) -> tuple[Branches | None, int]:
        """The two branches, where there are two and they are wanted, and the rows that ran."""
        return self._naming(outputs, guided, sample, wanted=not self.cast.is_own)

    def hand_out(self, state: Tensor, dtype: torch.dtype) -> Tensor:
        """What the pipeline is given of a state, in a `dtype`; the state itself keeps its digits."""
        handed = state.to(dtype)
        version = _version(handed)
        self._handed = handed, handed if version is not None else handed.clone(), version
        return handed

    def _came_back(self, sample: Tensor) -> bool:
        """Whether it is what was handed out. (A pipeline may have cast it, or reshaped it and back.)"""
        assert self._handed is not None
        handed, was, version = self._handed
        if _version(handed) != version:
            return False
        return (sample is handed and version is not None) or torch.equal(sample, was.to(sample.dtype))

    def _check_entered(self, sample: Tensor) -> None:
        """Raises ValueError where the first call was not made at the state that was handed in."""
        if not self.entered or self.calls or self._came_back(sample):
            return
        assert self._handed is not None
        was = self._handed[1].to(sample.device, sample.dtype)
        how = "laid out otherwise" if was.shape != sample.shape else "changed"
        raise ValueError(
            f"the latents that were handed in, {tuple(was.shape)}, came to the scheduler {how}, {tuple(sample.shape)}: "
            "between its prepare_latents and its loop the pipeline scales, blends or reshapes them, so that attach "
            "cannot lead a state of one's own there; only paths from knot 0"
        )


def _version(x: Tensor) -> int | None:
    # Tensors made under inference mode keep no count of what was done to them in place.
    return None if x.is_inference() else x._version
