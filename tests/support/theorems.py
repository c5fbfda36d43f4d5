"""What the tests of the theorems share: their grids, and how large a tensor is."""

from __future__ import annotations

import pytest
import torch

from zigzag import DDIM, FlowEuler, Spherical

T, B = 6, 2
EPS = torch.finfo(torch.float64).eps
SOLVERS = {
    "ddim": DDIM.stable_diffusion(T),
    "karras": DDIM.karras(T, sigma_max=5.0),
    "flow": FlowEuler.uniform(T, shift=3.0),
    "spherical": Spherical([1.5, 1.3, 1.0, 0.6, 0.3, 0.1, 0.0]),
}
each_solver = pytest.mark.parametrize("name", list(SOLVERS))


def size(*xs: torch.Tensor | float) -> float:
    """The sum of the largest magnitudes."""
    return sum(float(x.abs().max()) if isinstance(x, torch.Tensor) else abs(x) for x in xs)


def check_same(one: torch.Tensor, two: torch.Tensor, bound: float) -> None:
    assert size(one - two) <= bound
