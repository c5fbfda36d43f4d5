"""Classifier-free guidance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from zigzag.guidance.base import Scale, finite, scale_of
from zigzag.solvers import StepInfo
from zigzag.solvers.affine import per_sample

__all__ = ["CFG", "guided", "needed"]


def needed(w: Scale) -> tuple[bool, bool]:
    """The branches `(cond, uncond)` that the scale `w` needs: 1 is conditional alone, 0 unconditional alone.

    Of one scale a sample it is both, whatever they are: what is evaluated depends on no value of a tensor.
    """
    return (True, True) if isinstance(w, Tensor) else (w != 0, w != 1)


def guided(e_c: Tensor | None, e_u: Tensor | None, w: Scale) -> Tensor:
    """`e_u + w·(e_c − e_u)`, from one branch alone where `w` is 0 or 1.

    Raises:
        ValueError: if a branch that `w` needs is `None`; for scales of another number of samples.
    """
    if isinstance(w, Tensor):
        return _guided_by_sample(e_c, e_u, w)
    cond, uncond = needed(w)
    if cond and e_c is not None and not uncond:
        return e_c
    if uncond and e_u is not None and not cond:
        return e_u
    if e_c is None or e_u is None:
        raise ValueError(f"w = {w:g} needs the {'conditional' if e_c is None else 'unconditional'} branch, got None")
    return torch.lerp(e_u, e_c, w)


def _guided_by_sample(e_c: Tensor | None, e_u: Tensor | None, w: Tensor) -> Tensor:
    if e_c is None or e_u is None:
        raise ValueError("one scale a sample needs both branches, got None")
    if len(w) != len(e_c):
        raise ValueError(f"scale has {len(w)} entries, one a sample, but the batch has {len(e_c)}")
    weight: Any = per_sample(w.to(e_c.device), e_c)
    return torch.lerp(e_u, e_c, weight)


class CFG:
    r"""Classifier-free guidance with scale `w`.

    .. math:: e_w = e_\varnothing + w\,(e_c - e_\varnothing)

    `w = 1` is conditional, `w = 0` unconditional; the other branch is then not evaluated.

    Args:
        scale: `w`, a finite number; or one a sample, `(B,)`, on the device of the states; or a function of `StepInfo`
            that returns either. Gradients reach a tensor.

    Raises:
        TypeError, ValueError: for a scale that is neither, or not finite.

    Source: Ho & Salimans 2022, eq. 6. Z-Sampling's eq. 5 writes `(1 + γ)·u_c − γ·u_∅`: that is `CFG.from_gamma(γ)`, but
    the paper's released code, defaults and tables (γ₁ = 5.5, γ₂ = 0) mean `w`.
    """

    def __init__(self, scale: Scale | Callable[[StepInfo], Scale]) -> None:
        self.scale = scale if callable(scale) else scale_of("scale", scale)
        self.batch = len(self.scale) if isinstance(self.scale, Tensor) else None

    def __repr__(self) -> str:
        if isinstance(self.scale, Tensor):
            return f"CFG({len(self.scale)} scales, one a sample)"
        return f"CFG({getattr(self.scale, '__name__', self.scale) if callable(self.scale) else f'{self.scale:g}'})"

    @classmethod
    def from_gamma(cls, gamma: float) -> CFG:
        """`w = 1 + γ`: the convention of Z-Sampling's eq. 5, and of Ho & Salimans."""
        return cls(1 + finite("gamma", gamma))

    def at(self, step: StepInfo) -> Scale:
        """The scale `w` at this step."""
        return scale_of("scale", self.scale(step)) if callable(self.scale) else self.scale

    def branches(self, step: StepInfo) -> tuple[bool, bool]:
        """`(cond, uncond)`: both, unless `w` is 0 or 1."""
        return needed(self.at(step))

    def __call__(self, e_c: Tensor | None, e_u: Tensor | None, step: StepInfo) -> Tensor:
        """`e_w`, in the shape of the branches."""
        return guided(e_c, e_u, self.at(step))
