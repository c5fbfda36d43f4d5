"""The time steps that a pipeline loops over, drawn out to one for every model call of a path."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

__all__ = ["Times", "Tour", "spread"]


class Tour(Protocol):
    """Whoever knows which knots a loop over a part of the grid visits, and what it does there."""

    def asks(self, steps: int) -> Sequence[int]:
        """The knot, counted from the start of the part, of every model call on a part of so many steps."""
        ...

    def begin(self, times: Times) -> Iterator[Tensor]:
        """The time steps of one loop over `times`, each a scalar tensor."""
        ...


class Times(Tensor):
    """`scheduler.timesteps` for a loop that makes more calls than the grid has steps.

    As a tensor, by its length and by an index it is the times of the calls `(N,)`, so that whatever a pipeline lines up
    with its loop's counter stays in line. A slice cuts the *grid*, as `strength` and `denoising_end` mean it, and is
    spread anew. Iteration is the tour's, so that the loop goes where the path goes.

    Attributes:
        grid: `(T,)`, the plain times of the grid. start: the knot of the scheduler's whole grid that it begins at.
    """

    grid: Tensor
    start: int
    tour: Tour

    # Everything computed of it is a plain tensor.
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def __iter__(self) -> Iterator[Tensor]:
        return self.tour.begin(self)

    def __getitem__(self, index: Any) -> Tensor:
        if not isinstance(index, slice):
            return self.as_subclass(Tensor)[index]
        if index.step not in (None, 1):
            return self.grid[index]
        return spread(self.grid[index], self.start + range(len(self.grid))[index].start, self.tour)

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return repr(self.as_subclass(Tensor))

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return self.grid.clone()


def spread(grid: Tensor, start: int, tour: Tour) -> Times:
    """The times of the calls that `tour` makes on the part `grid` of a scheduler's grid, from knot `start` on."""
    try:
        times = _at(grid, tour.asks(len(grid)))
    except ValueError:  # no path on so short a part; said when a loop begins, for a part may just be looked at
        times = grid
    new: Times = torch.Tensor._make_subclass(Times, times)
    new.grid, new.start, new.tour = grid, start, tour
    return new


def _at(grid: Tensor, knots: Sequence[int]) -> Tensor:
    return grid[torch.tensor(knots, dtype=torch.long, device=grid.device)] if len(grid) else grid
