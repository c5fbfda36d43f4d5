"""Predictors that several tests ask."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from support.sampling import B

LIP = 0.3


def field(x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
    """The gap e_c - e_u depends on the state; the Lipschitz constant is LIP."""
    return LIP * torch.sin(x + cond[:, None]) + 0.1 * torch.cos(t.to(x.dtype))[:, None]


def untouched(x: torch.Tensor, t: torch.Tensor, cond: object) -> torch.Tensor:
    pytest.fail("the model was called")


def steep(x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
    """Of another slope in each sample and coordinate, 3 at most: on one step of a flow the plain iteration diverges."""
    slopes = torch.tensor([[3.0, -2.5, 1.0], [0.2, 0.1, 0.3]], dtype=x.dtype)[: len(x)]
    return slopes * torch.sin(x + cond[:, None])


class Counted:
    """A predictor that counts its rows, of each of the `B` samples."""

    def __init__(self, fn: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor] = field) -> None:
        self.fn, self.rows = fn, 0.0

    def __call__(self, x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        self.rows += len(x) / B
        return self.fn(x, t, cond)
