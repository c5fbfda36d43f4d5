"""The time steps that a pipeline loops over, drawn out to one for every model call of a path."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

__all__ = ["Beside", "Levels", "Shown", "Times", "Tour", "copied", "is_tail", "plain", "spread", "with_data"]


class Shown(Protocol):
    """Whoever knows how far the loop is that the first state is led along."""

    def beside(self, grid: Tensor) -> Tensor:
        """A further scheduler's times: while a loop is led, one for each of its calls; else the `grid` itself."""
        ...

    def copied(self, grid: Tensor) -> Tensor:
        """What a copy of the scheduler is to have for its times."""
        ...

    def levels(self, grid: Tensor) -> Tensor:
        """The `sigmas` of the scheduler: while a loop is led, those that it shows there; else the `grid` itself."""
        ...


class Tour(Protocol):
    """Whoever knows which knots a loop over a part of the grid visits, and what it does there."""

    def asks(self, start: int, count: int) -> Sequence[int]:
        """Of every model call on a part of `count` times from `start` on: which of them the model is told.

        One past its last is data, of the whole grid.
        """
        ...

    @property
    def shown(self) -> Shown:
        """For the times of further schedulers."""
        ...

    def begin(self, times: Times) -> Iterator[Tensor]:
        """The time steps of one loop over `times`, each a scalar tensor."""
        ...


class Times(Tensor):
    """`scheduler.timesteps` for a loop that makes more calls than the grid has steps.

    As a tensor, by its length and by an index it is the times of the calls `(N,)`, so that whatever a pipeline lines up
    with its loop's counter stays in line. A slice cuts the *grid*, as `strength` and `denoising_end` mean it, and is
    spread anew. Iteration is the tour's, so that the loop goes where the path goes.

    Where the calls are not all known beforehand they are those that are known so far (`know`), and the next is among
    them: a pipeline that looks one ahead finds what comes.

    A slice with an end is a loop that ends early (`denoising_end`), or the time of one knot for every sample
    (`timesteps[:1].repeat(batch)`, to noise an image to): it loops like any other, but as a tensor it is as long as
    the slice of the grid.

    Attributes:
        grid: `(T,)`, the plain times of the grid. calls: `(N,)`, those of the calls. start: the place in the
            scheduler's whole grid that it begins at. ended: whether it was cut out by its end.
    """

    grid: Tensor
    calls: Tensor
    start: int
    tour: Tour
    ended: bool

    # Everything computed of it is a plain tensor.
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def know(self, told: Sequence[int]) -> None:
        """From now on these are the calls: of each, which time of the grid the model is told."""
        self.calls = _at(self.grid, told)

    def __iter__(self) -> Iterator[Tensor]:
        return self.tour.begin(self)

    def __len__(self) -> int:
        return len(self.calls)

    def __getitem__(self, index: Any) -> Tensor:
        if not isinstance(index, slice):
            return self.calls[index]
        if index.step not in (None, 1):
            return self.grid[index]
        start = self.start + range(len(self.grid))[index].start
        return spread(self.grid[index], start, self.tour, ended=index.stop is not None)

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return repr(self.calls)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return self.grid.clone()


class _Looked(Tensor):
    """A grid of a scheduler's that a pipeline looks up by the counter of a loop whose calls are not its steps.

    What stands at a place is settled when that is asked for. In all else it is the scheduler's own.

    Attributes:
        grid: `(N,)`, that. shown: who knows the calls.
    """

    grid: Tensor
    shown: Shown

    # Everything computed of it is a plain tensor.
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def of(cls: type[L], grid: Tensor, shown: Shown) -> L:
        """This grid, for the calls that `shown` will know."""
        new: L = torch.Tensor._make_subclass(cls, grid)
        new.grid, new.shown = grid, shown
        return new

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return repr(self.grid)


L = TypeVar("L", bound=_Looked)


class Beside(_Looked):
    """`timesteps` of a further scheduler, which a pipeline looks up by the counter of the first one's loop.

    It may take them before the first one has its grid, and so before the calls are known.
    """

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.grid)

    def __getitem__(self, index: Any) -> Tensor:
        if isinstance(index, slice) and index.step in (None, 1):
            return Beside.of(self.grid[index], self.shown)
        return self.shown.beside(self.grid)[index]

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return Beside.of(self.grid.clone(), self.shown)


class Levels(_Looked):
    """`sigmas` of the scheduler, `(T + 1,)`, which a pipeline may put away before its loop."""

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        """The same elsewhere, or of another dtype."""
        return Levels.of(self.grid.to(*args, **kwargs), self.shown)

    def __getitem__(self, index: Any) -> Tensor:
        return (self.shown.levels(self.grid) if isinstance(index, int) else self.grid)[index]

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return self.grid.clone()


def spread(grid: Tensor, start: int, tour: Tour, *, ended: bool = False) -> Times:
    """The times of the calls that `tour` makes on the part `grid` of a scheduler's grid, from its `start` on.

    ended: whether the part was cut out by its end, so that as a tensor it is `grid`.
    """
    try:
        calls = _at(grid, tour.asks(start, len(grid)))
    except ValueError:  # no path on so short a part; said when a loop begins, for a part may just be looked at
        calls = grid
    new: Times = torch.Tensor._make_subclass(Times, grid if ended else calls)
    new.grid, new.calls, new.start, new.tour, new.ended = grid, calls, start, tour, ended
    return new


def plain(value: Any) -> Any:
    """The plain grid in place of a `Times`, `Beside` or `Levels`, for a scheduler that uses it; others as they are."""
    return value.grid if isinstance(value, Times | _Looked) else value


def copied(value: Any) -> Any:
    """What a copy of a scheduler has in place of a `Times`, `Beside` or `Levels`; others as they are."""
    if isinstance(value, Levels):
        return value.grid
    if isinstance(value, Times):
        return value.tour.shown.copied(value.grid)
    return value.shown.copied(value.grid) if isinstance(value, Beside) else value


def is_tail(part: Any, whole: Tensor) -> bool:
    """Whether `part` is the last time steps of `whole`, or all or none of them."""
    same = isinstance(part, Tensor) and part.ndim == 1 and len(part) <= len(whole) and part.dtype == whole.dtype
    return same and torch.equal(part, whole[len(whole) - len(part) :])


def with_data(grid: Tensor) -> Tensor:
    """The time steps, and 0 after them, which a model is told at data."""
    return torch.cat([grid, grid.new_zeros(1)])


def _at(grid: Tensor, told: Sequence[int]) -> Tensor:
    return with_data(grid)[torch.tensor(told, dtype=torch.long, device=grid.device)] if len(grid) else grid
