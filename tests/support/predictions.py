"""What each kind of prediction says of a state."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from support.gaussians import KINDS
from zigzag.testing.steps import of_samples

SAID = (*KINDS, "flow_to_data", "score")


def truth(kind: str, x0: Tensor, eps: Tensor, alpha: Any, sigma: Any) -> Tensor:
    """v = α·ε − σ·x₀, u = ε − x₀ (the table of docs/mathematics.md); x₀ − ε, and ∇log p(x|x₀) = −ε/σ."""
    alpha, sigma = of_samples(alpha, x0), of_samples(sigma, x0)
    known = {"epsilon": eps, "x0": x0, "v": alpha * eps - sigma * x0, "flow": eps - x0, "flow_to_data": x0 - eps}
    return -eps / sigma if kind == "score" else known[kind]
