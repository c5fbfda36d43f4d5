"""Further states of a pipeline beside the first, as sound beside images, each stepped by a scheduler of its own."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from zigzag.adapters.diffusers import unfit
from zigzag.adapters.diffusers.grids import Grid
from zigzag.adapters.diffusers.led import Led, begun
from zigzag.adapters.diffusers.loop import Following, Loop
from zigzag.adapters.diffusers.plans import plan_of
from zigzag.adapters.diffusers.progress import Progress

__all__ = ["Second"]


class Second:
    """A state that the model predicts together with the first one: the same path, in step with it.

    Its own part of what the model gives says its gap, and its own scheduler, on the same grid, its steps.

    Args:
        now: what is attached; its loop has just made its first step.
        scheduler: this state's.
        part: its place among the parts of the model's output, from 1 on.
        given: what its `step` was called with first.

    Raises:
        ValueError: for a path whose calls are as many as it takes. RuntimeError: for a scheduler on another grid.
    """

    def __init__(self, now: Progress, scheduler: Any, part: int, given: Mapping[str, Any]) -> None:
        assert isinstance(now.loop, Loop)
        self.now, self.scheduler, self.part, self.first = now, scheduler, part, now.loop
        if now.loop.open and now.loop.steering is None:
            raise ValueError(
                "the pipeline has two states, as sound beside images, and an inversion to a tolerance would need "
                "another number of calls for each; use a count, refine=3, say"
            )
        self.grid = Grid(scheduler)
        self.grid.keep()
        if not _same_grid(self.grid, now.grid):
            unfit.refuse_copy()
        plan, signature = plan_of(scheduler), inspect.signature(type(scheduler).step.__get__(scheduler))
        path = now.loop.path if now.loop.steering is None else Following(now.loop)
        loop = Loop(path, plan.solver, now.cast, None)
        self._led: Led = begun(loop, plan, self.grid, signature, given, now.generator)

    def step(self, outputs: Sequence[Sequence[Any]], given: Mapping[str, Any]) -> Any:
        """Its step, after that of the first state, of the same calls of the model.

        Raises:
            RuntimeError: where it is not, or the model gives it no part of its outputs.
        """
        loop = self._led.loop
        if self.first is not self.now.loop or loop.calls != self.first.calls - 1:
            unfit.refuse_copy()
        e = given["model_output"]
        still = not bool(e.any())  # a state that is kept as it is, whose gap is none
        if not still and any(len(parts) <= self.part for parts in outputs):
            unfit.refuse_copy()
        reply = self._led.step([e, e] if still else [parts[self.part] for parts in outputs], given)
        if loop.ended:
            self.drop()
        return reply

    def drop(self) -> None:
        """Its scheduler has its own levels again; what its times are, they say themselves (`Beside`)."""
        self.grid.show({name: value for name, value in self.grid.own.items() if name != "timesteps"})


def _same_grid(one: Grid, two: Grid) -> bool:
    same: bool = one.own.keys() == two.own.keys() and all(
        one.own[name].shape == two.own[name].shape and torch.equal(one.own[name], two.own[name]) for name in one.own
    )
    return same
