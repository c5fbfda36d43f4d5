"""The model calls of an attached pipeline: what they gave, their rows, and whether a step of its scheduler followed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from zigzag.adapters.diffusers.layouts import is_doubled, rows_per_sample, shape_of
from zigzag.inversion import Inverted

__all__ = ["Calls", "Run", "arguments_of"]


def _unknown(knot: int) -> tuple[float, float]:
    return math.nan, math.nan


@dataclass
class Run:
    """What a pipeline did while a method was attached.

    Attributes:
        rows: model rows per sample that ran, in all calls of the pipeline together. A call that no step of the
            scheduler followed counts too: for as many samples as the step before it had, or for one.
        knot: the knot of the scheduler's grid at which the latents are that the pipeline, or a callback, has now.
        inverted: what an `Inversion` has found, with its report, once the pipeline has run.
    """

    rows: int = 0
    knot: int = 0
    inverted: Inverted | None = field(default=None, repr=False, compare=False)
    levels: Callable[[int], tuple[float, float]] = field(default=_unknown, repr=False, compare=False)

    @property
    def alpha(self) -> float:
        """`α` of those latents; NaN where the scheduler's levels cannot be read off it."""
        return self.levels(self.knot)[0]

    @property
    def sigma(self) -> float:
        """`σ` of those latents, 0 of data; NaN where the scheduler's levels cannot be read off it."""
        return self.levels(self.knot)[1]


class Calls:
    """The calls since the last step, and the count of all.

    Args:
        run: whose rows are counted.

    Attributes:
        outputs: what the calls since the last step gave; their shapes, where those are enough.
        parts: of the calls before the last step, all tensors of each output, where they were kept.
    """

    def __init__(self, run: Run) -> None:
        self.run, self.outputs, self.parts = run, list[Any](), list[list[Tensor]]()
        self._parts = list[list[Tensor]]()  # of the calls since the last step
        self._samples, self._filled = 1, 0
        self._round: tuple[int, Sequence[Any]] = 0, ()  # the rows before the last calls, and these
        self._doubled: bool | None = None  # whether the scheduler of this loop is given both branches' rows

    def saw(self, output: Any, given: Sequence[Any], *, whole: bool) -> None:
        """Notes a call that was `given` arguments; `whole` if its output is to be kept, and not its shape alone."""
        seen = output if isinstance(output, Tensor) else getattr(output, "sample", output[0])
        if seen is None:  # and nothing is predicted
            self.filled(given)
            return
        if not whole:
            # Of standard sampling one output, alone before its step, tells whether that is given both branches.
            self.outputs[-1:] = map(shape_of, self.outputs[-1:])
        lone = self._doubled is None and not self.outputs
        self.outputs.append(seen if whole or lone else shape_of(seen))
        if whole:
            self._parts.append(_parts(output))

    def filled(self, given: Sequence[Any]) -> None:
        """Notes a call that only fills its model's cache."""
        self._filled += next((len(x) for x in given if isinstance(x, Tensor) and x.ndim), 0)

    def taken(self) -> list[Any]:
        """The outputs, which a step explains; none are left."""
        outputs, self.parts = list(self.outputs), list(self._parts)
        self.outputs.clear()
        self._parts.clear()
        return outputs

    def count(self, outputs: Sequence[Any], guided: Tensor, sample: Tensor) -> int:
        """Counts the rows of a step of `sample` by `guided` that followed the calls which gave `outputs`."""
        if outputs and self._doubled is None:
            self._doubled = is_doubled(outputs, guided, sample)
        guided = guided[: len(guided) // 2] if self._doubled else guided
        if outputs:
            self._round = self.run.rows, [shape_of(output) for output in outputs]
        elif len(guided) >= self._samples:  # another state's step, say of sound, after the one call of both
            return 0
        # A second step without a call between, of fewer entries, is of the guided prediction after that of both.
        self._samples = len(guided)
        (before, outputs), counted = self._round, self.run.rows
        if outputs:
            self.run.rows = before + rows_per_sample(outputs, guided)
        return self.run.rows - counted

    def begin(self) -> None:
        """A loop begins: what was called before it, no step has followed."""
        self.flush()
        self._round, self._doubled = (0, ()), None

    def flush(self) -> None:
        """Counts the calls that no step has followed."""
        self.run.rows += -(-(self._filled + sum(_rows(output) for output in self.outputs)) // self._samples)
        self._filled = 0
        self.outputs.clear()
        self.parts.clear()
        self._parts.clear()


def _rows(output: Any) -> int:
    return len(output) if isinstance(output, Tensor | list | tuple) else 0


def _parts(output: Any) -> list[Tensor]:
    """The tensors of a model's output, in their order."""
    values = [output] if isinstance(output, Tensor) else getattr(output, "values", lambda: output)()
    return [value for value in values if isinstance(value, Tensor)]


def arguments_of(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """The arguments of a model call, its state first."""
    named = [kwargs[name] for name in ("hidden_states", "sample") if name in kwargs]
    return [*named, *args, *kwargs.values()]
