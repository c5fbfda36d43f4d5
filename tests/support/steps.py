"""A step whose inverse may be wrong, beside the checks of Lemma 1 and of the round trips, `zigzag.testing.steps`."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zigzag.testing.steps import StepLike, check_collapse, check_duality, check_round_trips

__all__ = ["EPS", "Mutant", "StepLike", "check_collapse", "check_duality", "check_round_trips"]

EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class Mutant:
    """A step whose inverse need not be the inverse of its forward."""

    a: Any
    b: Any
    c: Any
    d: Any

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        return self.a * x + self.b * e

    def inverse(self, x: Tensor, e: Tensor) -> Tensor:
        return self.c * x + self.d * e

    def shift(self, x: Tensor, gap: Tensor) -> Tensor:
        return x - self.d * gap
