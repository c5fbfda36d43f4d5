"""The noise of a loop, drawn as the scheduler itself would draw it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from zigzag.adapters.diffusers.noises import Written
from zigzag.adapters.diffusers.rehearsed import Rehearsed
from zigzag.adapters.diffusers.stepping import Caller, begun_at, prepare
from zigzag.sampling import noise_like

__all__ = ["Draws"]


class Draws:
    """Draws for `zigzag.sampling.traverse`: of an interval what the scheduler draws in its step, of a Renoise anew.

    A copy of the scheduler is stepped on zeros, from the beginning of the loop on, and what it draws is written down:
    the same functions in the same order, shapes, dtypes and devices, of the generator, or list of generators, that the
    pipeline passes; also what it draws and then does not use. So a loop that goes straight down uses the same random
    numbers as the pipeline by itself. Where a path comes back up by Renoise, noise is drawn again from there; a source
    of the scheduler's own, which grows of the generator's seed (a Brownian tree), then grows of another.

    Args:
        scheduler: with its own grid.
        rehearsed: its steps.
        start: the knot that the loop begins at.
        given: what the pipeline called `step` with at its first call.
        step_kwargs: of these what belongs to every step.
        renoise: a generator, or a list of one a sample, for Renoise; None is torch's global one.

    Raises:
        ValueError: for a list that is not of one a sample.
    """

    def __init__(
        self,
        scheduler: Any,
        rehearsed: Rehearsed,
        start: int,
        given: Mapping[str, Any],
        step_kwargs: Mapping[str, Any],
        renoise: Any,
    ) -> None:
        self._scheduler, self._rehearsed, self._renoise = begun_at(scheduler, 0, live=True), rehearsed, renoise
        self._step_kwargs, self._generator = dict(step_kwargs), given.get("generator")
        self._twice = _is_twice(given["sample"], renoise)
        self._zeros = torch.zeros_like(given["sample"]), torch.zeros_like(given["model_output"])
        self._noisy = any(rehearsed.rehearsal.row(k).draws for k in range(rehearsed.rehearsal.calls))
        if self._noisy:
            self._begin(start, self._generator)

    def __call__(self, x: Tensor, interval: tuple[int, int] | None) -> Tensor:
        """Standard normal noise like `x`: of an interval, or (None) of a Renoise."""
        if interval is None or not self._noisy:
            return self._anew(x)
        i, _ = interval
        group = self._rehearsed.groups[i]
        if group.first < self._next:
            self._begin(i, self._another())
        drawn: dict[tuple[int, int], Tensor] = {}
        while self._next <= group.last:
            k = self._next
            drawn.update({(k, j): z for j, z in enumerate(self._advance())})
        noises = [noise for noise in self._rehearsed.noises(i, self._begun) if noise.coefficient]
        if not noises:  # a step that skips knots, from one whose own step adds none
            return self._anew(x)
        total = noises[0].coefficient if len(noises) == 1 else math.hypot(*(noise.coefficient for noise in noises))
        parts = [(noise.coefficient / total, drawn[noise.k, noise.j].to(x.device, x.dtype)) for noise in noises]
        return parts[0][1] if len(parts) == 1 else torch.stack([c * z for c, z in parts]).sum(0)

    def _anew(self, x: Tensor) -> Tensor:
        if not isinstance(self._renoise, list | tuple):
            z: Tensor = randn_tensor(x.shape, generator=self._renoise, device=x.device, dtype=x.dtype)
            return z
        half = x[: len(x) // 2] if self._twice else x
        # A sample may be several rows, as of frames that are folded into the batch.
        z = noise_like(half.reshape(len(self._renoise), -1, *half.shape[1:]), self._renoise).reshape(half.shape)
        return torch.cat([z, z]) if self._twice else z

    def finish(self, end: int) -> None:
        """Draws what the scheduler would have drawn and not used, in what is left up to knot `end`."""
        if self._noisy:
            last = self._rehearsed.groups[end - 1].last
            while self._next <= last:
                self._advance()

    def _another(self) -> Any:
        """What a copy that begins again draws from: a source that grows of a seed would else draw the same again."""
        calls = range(self._rehearsed.rehearsal.calls)
        if not any(draw.own for k in calls for draw in self._rehearsed.rehearsal.row(k).draws):
            return self._generator
        if isinstance(self._generator, list | tuple):
            return [_grown(generator) for generator in self._generator]
        return None if self._generator is None else _grown(self._generator)

    def _begin(self, knot: int, generator: Any) -> None:
        first = self._next = self._rehearsed.groups[knot].first
        self._begun = knot
        self._call = Caller(begun_at(self._scheduler, first, live=True), self._step_kwargs, generator)

    def _advance(self) -> list[Tensor]:
        """Steps the copy; what its next call draws."""
        k, (x, e) = self._next, self._zeros
        first = self._rehearsed.groups[self._begun].first
        row = self._rehearsed.rehearsal.row(k, first)
        prepare(self._call.scheduler, first, k, corrector=False)
        with Written() as written:
            after, _ = self._call(x, e, k)
        self._next = k + 1
        if any(draw.own for draw in row.draws):  # a source within which more is drawn than is asked of it
            return [after / n if n else after for n in row.noise]
        count, drawn = len(row.draws), [*written.drawn]
        if count and len(drawn) != count:  # of a list of generators each draws for its own sample
            each = len(drawn) // count
            drawn = [torch.cat(drawn[j * each : (j + 1) * each]) for j in range(count)]
        return drawn


def _grown(generator: torch.Generator) -> torch.Generator:
    """A generator of a seed that another one draws."""
    seed = torch.randint(2**63 - 1, (), generator=generator, device=generator.device)
    return torch.Generator(generator.device).manual_seed(int(seed))


def _is_twice(state: Tensor, generators: Any) -> bool:
    """Whether a state that is drawn for by a list of generators has each sample in both its halves (DiT)."""
    if not isinstance(generators, list | tuple):
        return False
    if len(state) % len(generators):
        raise ValueError(
            f"generator must be a list of one for each sample of the pipeline's state, {tuple(state.shape)}, got "
            f"{len(generators)}"
        )
    return len(state) == 2 * len(generators) and torch.equal(*state.chunk(2))
