"""A pipeline and a method while they are attached, and how far its loop has come."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zigzag.adapters.diffusers import unfit
from zigzag.adapters.diffusers.answering import Answering
from zigzag.adapters.diffusers.cast import Cast, Source
from zigzag.adapters.diffusers.counting import Calls, Run
from zigzag.adapters.diffusers.entry import Entry
from zigzag.adapters.diffusers.grids import Grid
from zigzag.adapters.diffusers.plans import Plan, levels_of
from zigzag.adapters.diffusers.routes import is_standard
from zigzag.adapters.diffusers.timesteps import Beside, Times, plain
from zigzag.adapters.diffusers.ways import Way
from zigzag.methods import Method, Steered, is_steered
from zigzag.moves import Move
from zigzag.sampling import Generators
from zigzag.trace import Trace

if TYPE_CHECKING:
    from zigzag.adapters.diffusers.seconds import Second

__all__ = ["Progress"]


class Progress:
    """What those share who stand between a pipeline, its models and its scheduler.

    Args:
        pipe: as it is attached to. method, trace, generator: as `attach` was given them. cast: of its weak, plain.

    Attributes:
        run: what the user is told. calls: the model calls since the last step; prior: those of a combined pipeline's
            prior, which is not led. grid: the scheduler's own.
        plan: of the scheduler's steps, where a method is to lead them.
        loop: of a path that is not plain. entry: of a state that is handed in. extras: what else its steps are given,
            as far as the pipeline has said. path: its moves, or those of standard sampling.
        hosts: the grid's times as host numbers, for a trace of standard sampling.
        stepped: steps made in the loop under way, if one is. led: steps led on this grid.
        told: the time handed out last. taken: whether a step was made at it.
        playing: whose pass the pipeline is in, of a loop that is led.
        seconds: further states of the pipeline, led with the first one.
        times: those that the loop under way runs over.
        tick: the progress bar's, if it is to count calls.
    """

    def __init__(
        self,
        pipe: Any,
        method: Method | Steered | Sequence[Move] | Way,
        cast: Cast,
        trace: Trace | None,
        generator: Generators,
    ) -> None:
        self.pipe, self.scheduler = pipe, pipe.scheduler
        self.method, self.cast, self.trace, self.generator = method, cast, trace, generator
        self.run = Run(levels=self._levels)
        self.calls, self.prior = Calls(self.run), Calls(self.run)
        self.grid = Grid(self.scheduler)
        self.plan: Plan | None = None
        self.loop: Answering | None = None
        self.entry = Entry()
        self.extras: Mapping[str, Any] = {}
        self.path: tuple[Move, ...] = ()
        self.stepped: int | None = None
        self.led = 0
        self.told: Tensor | None = None
        self.taken = False
        self.times: Times | None = None
        self.playing: Source = "own"
        self.seconds: list[Second] = []
        self.tick: Callable[[int], Any] | None = None
        self.hosts: list[float] = []
        self._read: list[tuple[float, float]] | None = None  # the levels of the knots, once they were asked for

    def leads(self) -> bool:
        """Whether the method is more than standard sampling, as far as is known without a grid."""
        return self.plan is not None if self.grid else not is_standard(self.method)

    @property
    def steered(self) -> bool:
        """Whether a loop is under way whose calls are known one by one."""
        return is_steered(self.method) and self.loop is not None and not self.loop.ended

    def check_explained(self, *, loops: bool = False) -> None:
        """Raises RuntimeError where a path was to be led, and the model was called with no step after it.

        loops: as often as a whole loop does at least: outside of one it may be called for something else.
        """
        if loops and len(self.calls.outputs) < len(self.grid):
            return
        if self.leads() and not self.led and self.calls.outputs:
            raise RuntimeError(unfit.UNLED)

    @property
    def within(self) -> bool:
        """Whether a loop is under way."""
        return bool(self.stepped) or self.taken

    def beside(self, grid: Tensor) -> Tensor:
        """A further scheduler's times: while a loop is led, one for each of its calls; else the `grid` itself.

        Raises:
            RuntimeError: where those are not the first one's.
        """
        if self.loop is None or self.times is None or self.told is None:
            return grid
        own = self.times.grid
        if grid.shape != own.shape or not torch.equal(grid, own):
            unfit.refuse_copy()
        return self.times.calls

    def copied(self, grid: Tensor) -> Tensor:
        """The times of a copy of the scheduler: once a loop has begun it is a callback's own, and they are plain."""
        # By what was led as well: who looks over the times in the last callback is at no call any more.
        return grid if self.within or self.led or not self.leads() else Beside.of(grid, self)

    def levels(self, grid: Tensor) -> Tensor:
        """The `sigmas` of the scheduler: while a loop is led, those that it shows there; else the `grid` itself."""
        led = self.loop is not None and self.told is not None
        return plain(self.scheduler.sigmas).to(grid) if led else grid

    def drop_seconds(self) -> None:
        """The further states' schedulers have their own levels again, and are nobody's."""
        for second in self.seconds:
            second.drop()
        self.seconds.clear()

    def begin_grid(self) -> None:
        """The scheduler has set another grid."""
        self.drop_seconds()
        self.grid.keep()
        self.loop, self.stepped, self.tick, self.plan, self._read = None, None, None, None, None

    def _levels(self, knot: int) -> tuple[float, float]:
        if self._read is None and self.grid:
            with self.grid.shown():
                self._read = levels_of(self.scheduler, self.plan)
        return (math.nan, math.nan) if self._read is None else self._read[knot]
