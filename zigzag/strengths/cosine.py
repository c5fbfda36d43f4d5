"""A strength that grows as the gaps settle."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zigzag.solvers.affine import StepInfo, flat, norms
from zigzag.strengths.base import Seen, check_positive

__all__ = ["CosineStrength"]


@dataclass(frozen=True)
class CosineStrength:
    r"""As much as two gaps in a row agree.

    .. math:: \lambda = \max(0, \cos(g, g'))^{p}

    `g` is the gap and `g'` the one before it; 0 where there is none yet, or one of them is 0. So a Shift begins when
    the gaps have settled: a warm-up that ends by itself.

    Args:
        power: `p`, above 0; the larger, the later.

    Source: this library; the Z²-Sampling paper asks for such a rule in its Appendix I.
    """

    power: float = 4.0
    reads_state = False

    def __post_init__(self) -> None:
        check_positive(self, "power")

    def __call__(self, gap: Tensor, cached: Tensor, step: StepInfo, *seen: Seen) -> Tensor:
        """`λ`, `(B,)`."""
        g, h = flat(gap), flat(cached)
        # Not F.cosine_similarity: its clamp of the norms would make a small gap look like another direction.
        cosine = (g * h).sum(1) / (norms(gap) * norms(cached))
        return torch.nan_to_num(cosine).clamp(0, 1) ** self.power
