"""What a guidance rule is."""

from __future__ import annotations

import math
from numbers import Real
from typing import Protocol, runtime_checkable

from torch import Tensor

from zigzag.solvers import StepInfo

__all__ = ["Guidance", "LinearGuidance", "finite"]


@runtime_checkable
class Guidance(Protocol):
    """A rule that makes one prediction of two: `e_c`, given the condition, and `e_u`, without it.

    A rule with state also has `reset()`, which `walk` calls before the first step.
    """

    def branches(self, step: StepInfo) -> tuple[bool, bool]:
        """Which of `(cond, uncond)` the rule needs at this step. A branch that is not needed is not evaluated.

        It may depend on nothing but the step: the whole path is asked for before the first model call.
        """
        ...

    def __call__(self, e_c: Tensor | None, e_u: Tensor | None, step: StepInfo) -> Tensor:
        """The guided prediction `(B, …)`; `None` comes for a branch that is not needed."""
        ...


@runtime_checkable
class LinearGuidance(Guidance, Protocol):
    """Guidance that is `e_u + w·(e_c − e_u)` for some scale `w` at each step."""

    def at(self, step: StepInfo) -> float:
        """The scale `w` at this step."""
        ...


def finite(name: str, value: object) -> float:
    """`value` as a float.

    Raises:
        TypeError: for what is not a real number. ValueError: for one that is not finite.
    """
    if not isinstance(value, Real):
        raise TypeError(f"{name} must be a real number, got {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value!r}")
    return float(value)
