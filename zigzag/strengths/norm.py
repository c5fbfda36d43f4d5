"""A strength that keeps the norm of the state."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from zigzag.solvers.affine import StepInfo, flat
from zigzag.strengths.base import Seen

__all__ = ["NormStrength"]


@dataclass(frozen=True)
class NormStrength:
    r"""As much as lets the norm of the state grow by a factor at most.

    .. math:: \lambda = \max\{\lambda \in [0, 1] : \|x + \lambda\,\tfrac ba\,g\| \le (1 + \tau)\,\|x\|\}

    Args:
        growth: `τ`, at least 0.

    Source: this library; against what the Z²-Sampling paper calls saturation overflow (Appendix E).
    """

    growth: float = 0.0
    reads_state = True

    def __post_init__(self) -> None:
        if not 0 <= self.growth < math.inf:
            raise ValueError(f"NormStrength: growth must be a finite number of at least 0, got {self.growth!r}")

    def __call__(self, gap: Tensor, cached: Tensor, step: StepInfo, *seen: Seen) -> Tensor:
        """`λ`, `(B,)`: the larger root of `‖v‖²λ² + 2⟨x, v⟩λ − ((1 + τ)² − 1)‖x‖² = 0`, within [0, 1]."""
        (known,) = seen
        x, v = flat(known.x), known.shift * flat(gap)
        a, b, c = (v * v).sum(1), (x * v).sum(1), ((1 + self.growth) ** 2 - 1) * (x * x).sum(1)
        root = ((b * b + a * c).sqrt() - b) / a
        return torch.nan_to_num(root, nan=1.0, posinf=1.0).clamp(0, 1)
