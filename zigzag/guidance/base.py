"""What a guidance rule is."""

from __future__ import annotations

import math
from numbers import Real
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from zigzag.solvers import Prediction, Said, StepInfo
from zigzag.solvers.predictions import form

__all__ = ["Guidance", "LinearGuidance", "Scale", "State", "batch_of", "finite", "needs_state", "reading", "scale_of"]

# A scale: a number, or one a sample, `(B,)`.
Scale: TypeAlias = "float | Tensor"


class State(NamedTuple):
    """Where a rule with `needs_state` is asked.

    Attributes:
        x: the state that the model was asked at, `(B, …)`; in the second evaluation of a step that makes two, the one
            between.
        alpha, sigma: its level as the model was told it, `x = α·x₀ + σ·ε`. (An inversion asks at the state that it
            begins from, and tells the level that it returns to.)
        prediction: what the branches predict.
    """

    x: Tensor
    alpha: float
    sigma: float
    prediction: Prediction

    def form(self, kind: Said) -> tuple[float, float]:
        """`(p, q)` with which `p·x + q·e` says a prediction `e` as `kind`."""
        return form(self.alpha, self.sigma, self.prediction, kind)


@runtime_checkable
class Guidance(Protocol):
    """A rule that makes one prediction of two: `e_c`, given the condition, and `e_u`, without it.

    A rule with state also has `reset()`, which `walk` calls before the first step. A rule whose `needs_state` is True
    is called with a `State` as fourth argument, as `rule(e_c, e_u, step, state)`: the state that the model was asked
    at, and what is predicted there.
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

    def at(self, step: StepInfo) -> Scale:
        """The scale `w` at this step: a number, or one a sample, `(B,)`."""
        ...


def needs_state(rule: object) -> bool:
    """Whether a rule is to be called with the `State` too."""
    return bool(getattr(rule, "needs_state", False))


def reading(rule: object, state: State | None) -> State:
    """The state that a rule was called with.

    Raises:
        TypeError: where it was called without.
    """
    if state is None:
        raise TypeError(f"{rule!r} reads the state: call it with a State as fourth argument")
    return state


def batch_of(rule: object) -> int | None:
    """How many samples a rule has scales of; None where it has one for all, or that is not known beforehand."""
    batch: int | None = getattr(rule, "batch", None)
    return batch


def scale_of(name: str, value: object) -> Scale:
    """`value` as a scale.

    Raises:
        TypeError: for what is neither a real number nor a floating-point tensor. ValueError: for one that is not
            finite, and a tensor that is not `(B,)`.
    """
    if not isinstance(value, Tensor):
        return finite(name, value)
    if not value.is_floating_point():
        raise TypeError(f"{name} must be floating-point, got {value.dtype}")
    if value.ndim != 1 or not len(value):
        raise ValueError(f"{name} must be a number, or one a sample, (B,), got shape {tuple(value.shape)}")
    if not bool(torch.isfinite(value.detach()).all()):
        raise ValueError(f"{name} must be finite, got {value.tolist()}")
    return value


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
