"""One pass of a pipeline's own loop along an inversion scheme: its model calls answer what the scheme asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from zigzag.adapters.diffusers.answering import Answering
from zigzag.adapters.diffusers.cast import Cast, Pass
from zigzag.adapters.diffusers.ways import End, Way
from zigzag.guided import Answer, Asking, Query
from zigzag.inversion import Inverted
from zigzag.roles import WEAK
from zigzag.sampling import Generators
from zigzag.solvers import Solver

__all__ = ["SchemeLoop"]


class SchemeLoop(Answering):
    """The state of one loop along a `Way`.

    Args:
        way: that is led. solver: of its `grid`. cast: whose weak role makes all predictions.
        tour: what it may ask, which is `asked` as far as that has come.
        found: told what an inversion leaves.
    """

    def __init__(
        self,
        way: Way,
        solver: Solver,
        cast: Cast,
        tour: Sequence[int],
        found: Callable[[Inverted | None], None],
    ) -> None:
        super().__init__(solver, cast)
        self.way, self.source = way, cast.source("weak")
        self.passes = [Pass(told, told, self.source, True) for told in tour]
        self.asked, self.most, self.open = list(tour), len(tour), True
        self.knot = len(solver) if way.upward else 0
        self._found = found
        self._asking: Asking[End] | None = None
        self._query: Query | None = None

    @property
    def ended(self) -> bool:
        """Whether the way has come to its end."""
        return self.entered and self._query is None

    def enter(self, x: Tensor, dtype: torch.dtype, generator: Generators) -> Tensor:
        """Begins at a state before the first call; the one that this is to be made at.

        Args:
            x: the state. dtype: in which the model is asked. generator: for noise.
        """
        role = self.cast.roles(self.guidances).weak
        self._asking, self.entered = self.way.begin(self.solver, role, x, dtype, generator), True
        return self._take(next(self._asking))

    def answer(self, outputs: Sequence[Any], guided: Tensor, sample: Tensor) -> Tensor:
        """Takes the model's outputs at `sample`, and the pipeline's prediction, on to the state for the next call.

        Raises:
            ValueError: for guidance without a branch that it needs, or that attach cannot follow, and where the state
                is not the one that was handed out.
        """
        assert self._asking is not None and self._query is not None
        self._check_entered(sample)
        if not self._came_back(sample):
            raise ValueError(
                "the latents were changed (by a callback, or an inpainting mask) on the way of an inversion, which "
                "would not lead back; leave them alone, or take a pipeline that shows its mask to the model"
            )
        branches, rows = self._branches(outputs, guided, sample)
        if branches is None and self.source == "own" and self.cast.weak is not None:
            raise ValueError(
                f"the pipeline evaluates one branch, and weak={self.cast.weak!r} is to be made of two: raise its "
                "guidance_scale above 1, or leave weak out, for the pipeline's own guidance"
            )
        if branches is None:
            self.cast.check_branches(WEAK, self.knot)
        self.guidances[self.source].prediction = guided.to(self._query.x.dtype)
        self.rows, self.calls = self.rows + rows, self.calls + 1
        try:
            state = self._take(self._asking.send(Answer(self.cast.found(self.source, branches, guided), rows)))
        except StopIteration as stop:
            state, inverted = stop.value
            self._query, self.knot = None, 0 if self.way.upward else len(self.solver)
            self.place = self.knot if self.way.upward else None
            self._found(inverted)
        return self.hand_out(state, guided.dtype)

    def _take(self, query: Query) -> Tensor:
        self._query = query
        self.asked[self.calls :] = [query.told, *self.asked[self.calls + 1 :]]
        self.place = query.told
        self.knot = query.told if query.told < len(self.solver) else self.knot  # else between two, or the last
        return query.x
