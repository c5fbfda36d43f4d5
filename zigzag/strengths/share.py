"""A strength that keeps the gap at a share of the prediction."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zigzag.solvers.affine import StepInfo, norms
from zigzag.strengths.base import Seen, check_positive

__all__ = ["ShareStrength"]


@dataclass(frozen=True)
class ShareStrength:
    r"""At most a share of the prediction.

    .. math:: \lambda = \min\Big(1, \varrho\,\frac{\|e_s\|}{\|g\|}\Big)

    Args:
        share: `ϱ`, above 0: the norm of what is applied over that of the strong prediction.

    Source: this library; against what the Z²-Sampling paper calls saturation overflow (Appendix E).
    """

    share: float
    reads_state = True

    def __post_init__(self) -> None:
        check_positive(self, "share")

    def __call__(self, gap: Tensor, cached: Tensor, step: StepInfo, *seen: Seen) -> Tensor:
        """`λ`, `(B,)`."""
        (known,) = seen
        ratio = self.share * norms(known.e) / norms(gap)
        return torch.nan_to_num(ratio, nan=1.0).clamp(max=1)
