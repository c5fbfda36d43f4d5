"""What a rule of the strength is, what it may read, and the gap that a walk keeps for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from zigzag.solvers.affine import AffineStep, StepInfo, per_sample

__all__ = [
    "NUMBER",
    "Gaps",
    "Seen",
    "Strength",
    "StrengthRule",
    "apply_rule",
    "check_positive",
    "check_strength",
]


# `Real` is what is meant, and slow to ask for: every walk asks it of every move.
NUMBER = (int, float, Real)


class Seen(NamedTuple):
    """What a rule may read besides the two gaps.

    Attributes:
        x: the state before the shift, `(B, …)`. e: the strong prediction that the gap is of.
        shift: `b/a`, so that the whole shift is `shift·gap`: a number, or `()` on the device.
    """

    x: Tensor
    e: Tensor
    shift: float | Tensor


@runtime_checkable
class StrengthRule(Protocol):
    """A pure rule `(gap, cached, step) -> λ`, one number a sample `(B,)`, made of tensors without a host sync.

    `gap` is what the Shift is to apply; `cached` the gap that was cached before it: that of a fresh Shift, or of a
    Denoise from which a Shift takes its gap (of one followed by a fresh Shift none is); zeros if there is none.
    `step` is the step `i → i + 1` that the Shift stands for. A rule whose `reads_state` is True is called with a `Seen`
    as fourth argument. It is called without gradients, which take `λ` for a constant.
    """

    reads_state: bool

    def __call__(self, gap: Tensor, cached: Tensor, step: StepInfo, *seen: Seen) -> Tensor:
        """`λ`, `(B,)` on the device of `gap`."""
        ...


Strength: TypeAlias = float | StrengthRule


class _Kept(NamedTuple):
    """A gap, the one that was cached before it, and the strong prediction that it is of."""

    gap: Tensor
    before: Tensor
    e: Tensor


class Gaps:
    """The cached gap of a walk, and with it what the rules on its path read: the one before it, and its prediction.

    Args:
        path: whose Shifts say what has to be kept; None, if it is not known beforehand: then all is.
    """

    def __init__(self, path: Sequence[object] | None) -> None:
        # By attribute: `zigzag.moves` imports this module.
        self._ruled = path is None or any(not isinstance(getattr(move, "strength", 1.0), NUMBER) for move in path)
        self.gap: Tensor | None = None
        # The latest gap, the one before it, and the prediction of the latest: now, and as the last Shift found them.
        self._kept: _Kept | None = None
        self._at_shift: _Kept | None = None

    def cache(self, e_s: Tensor, e_w: Tensor, *, fresh: bool = False) -> None:
        """Caches `e_s − e_w`; fresh: for a Shift, which reads no gap of the Denoise moves since the one before it."""
        self.gap = gap = e_s - e_w
        if self._ruled:
            kept = self._at_shift if fresh else self._kept
            self._kept = _Kept(gap, torch.zeros_like(gap) if kept is None else kept.gap, e_s)

    def forget(self) -> None:
        """Lets go of the gap: no Shift reads it."""
        self.gap = None

    def share(self, strength: Strength, x: Tensor, step: AffineStep, at: StepInfo) -> Tensor:
        """`λ·gap`, at the state `x` and for the `step` that the Shift stands for."""
        gap = self.gap
        assert gap is not None  # plan_path has seen to it
        self._at_shift = kept = self._kept
        if isinstance(strength, NUMBER):
            return gap if strength == 1 else float(strength) * gap
        assert kept is not None
        return apply_rule(strength, gap, kept.before, at, Seen(x, kept.e, -step.d))


def apply_rule(rule: StrengthRule, gap: Tensor, cached: Tensor, at: StepInfo, seen: Seen) -> Tensor:
    """`λ·gap` by a rule. Gradients take `λ` for a constant: norms and cosines have none where a gap is 0.

    Raises:
        ValueError: for a rule that does not return one number a sample.
    """
    with torch.no_grad():
        strength = rule(gap, cached, at, *((seen,) if rule.reads_state else ()))
    if not isinstance(strength, Tensor) or strength.shape != gap.shape[:1]:
        got = tuple(strength.shape) if isinstance(strength, Tensor) else type(strength).__name__
        raise ValueError(f"{rule!r} must return a strength for each sample, ({len(gap)},), got {got}")
    return per_sample(strength, gap) * gap


def check_strength(strength: object, of: str, *named: object) -> None:
    """Raises unless `strength` is a finite number or a rule.

    Args:
        of: what has it, a format for `named`, which is made only for an error: this runs for every Shift of a walk.

    Raises:
        TypeError, ValueError: naming what has it.
    """
    if isinstance(strength, NUMBER):
        if not math.isfinite(strength):
            raise ValueError(f"{of.format(*named)}: strength must be finite, got {strength!r}")
    elif isinstance(strength, type) or not isinstance(strength, StrengthRule):
        raise TypeError(
            f"{of.format(*named)}: strength must be a number, or a rule such as CosineStrength(), got {strength!r}"
        )


def check_positive(rule: object, name: str) -> None:
    """Raises unless the attribute `name` of a rule is a finite number above 0."""
    value: object = getattr(rule, name)
    if not isinstance(value, NUMBER) or not 0 < float(value) < math.inf:
        raise ValueError(f"{type(rule).__name__}: {name} must be a finite number above 0, got {value!r}")
