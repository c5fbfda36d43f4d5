"""Predictors that several tests ask."""

from __future__ import annotations

import pytest
import torch

LIP = 0.3


def field(x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
    """The gap e_c - e_u depends on the state; the Lipschitz constant is LIP."""
    return LIP * torch.sin(x + cond[:, None]) + 0.1 * torch.cos(t.to(x.dtype))[:, None]


def untouched(x: torch.Tensor, t: torch.Tensor, cond: object) -> torch.Tensor:
    pytest.fail("the model was called")
