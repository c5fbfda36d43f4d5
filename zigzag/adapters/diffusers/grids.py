"""A scheduler's own grid, and what a pipeline and its callbacks are shown of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from zigzag.adapters.diffusers.levels import stand_at
from zigzag.adapters.diffusers.timesteps import Levels, Shown, plain

__all__ = ["Grid"]


class Grid:
    """The `timesteps` and `sigmas` that a scheduler has of its own, kept while others are shown.

    Args:
        scheduler: whose attributes they are.

    Attributes:
        own: by their names; empty until they were set.
    """

    def __init__(self, scheduler: Any) -> None:
        self.scheduler, self.own = scheduler, dict[str, Tensor]()
        self._was = dict[str, Tensor]()
        self._by_call: Tensor | None = None  # the sigmas of a loop's calls

    def __len__(self) -> int:
        """How many times it has."""
        return len(self.own.get("timesteps", ()))

    @property
    def times(self) -> Tensor:
        """The time steps."""
        return self.own["timesteps"]

    def keep(self) -> None:
        """Takes the attributes as they are for the scheduler's own."""
        names = [name for name in ("timesteps", "sigmas") if isinstance(getattr(self.scheduler, name, None), Tensor)]
        self.own, self._by_call = {name: plain(getattr(self.scheduler, name)) for name in names}, None
        self._was = {name: value.clone() for name, value in self.own.items()}

    def rewritten(self) -> bool:
        """Whether someone has written into it since it was kept, as Cosmos does for its last σ."""
        changed = any(not torch.equal(value, self._was[name]) for name, value in self.own.items())
        self._was = {name: value.clone() for name, value in self.own.items()} if changed else self._was
        return changed

    def show(self, values: Mapping[str, Tensor]) -> None:
        """Sets attributes."""
        for name, value in values.items():
            setattr(self.scheduler, name, value)

    def put_away(self, shown: Shown) -> None:
        """A pipeline that takes `sigmas` before its loop, to look them up within it, finds those of its calls there."""
        if "sigmas" in self.own:
            self.scheduler.sigmas = Levels.of(self.own["sigmas"], shown)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Within the block the scheduler has its own grid."""
        others = {name: getattr(self.scheduler, name) for name in self.own}
        self.show(self.own)
        try:
            yield
        finally:
            self.show(others)

    def draw_out(self, calls: Sequence[int]) -> None:
        """From now on `sigmas` is that of a loop's calls: pipelines of flow models look them up by its counter."""
        if "sigmas" in self.own:
            own = self.own["sigmas"]
            self._by_call = torch.cat([own[torch.tensor(calls, device=own.device)], own[-1:]])

    def draw_in(self) -> None:
        """A loop begins, whose calls are not drawn out yet."""
        self._by_call = None

    def stand(self, at: int, call: int | None = None) -> None:
        """Lets the scheduler's own count be `at`: that of the knot where the latents are, or of the loop's next `call`.

        A callback that looks up the level of the latents by that count then finds it; and so does a pipeline that
        tells its model where the step of its `call` is to end (flow maps) the level one further.
        """
        stand_at(self.scheduler, at)
        if self._by_call is None:
            return
        own = self.own["sigmas"]
        sigmas = torch.cat([self._by_call, own[len(self._by_call) :]])
        if call is None and at < len(own):
            sigmas[at] = own[at]
        elif call is not None and at + 1 < len(own):
            sigmas[call + 1] = own[at + 1]
        self.scheduler.sigmas = sigmas
