"""Random tensors, and bounds on how far one may be from another."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from zigzag.testing.steps import near

seeds = st.integers(0, 2**31 - 1)


def f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def i64(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


def noise(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def assert_within(actual: Tensor, expected: Tensor, bound: Tensor | float) -> None:
    """|actual − expected| <= bound, element by element, in float64, and of one shape."""
    assert actual.shape == expected.shape
    gap = (actual.double() - expected.double()).abs()
    assert (gap <= torch.as_tensor(bound, dtype=torch.float64)).all(), gap.max()


def assert_finite_within(actual: Tensor, expected: Tensor, bound: Tensor | float) -> None:
    """|actual − expected| <= bound, element by element, in float64, and finite."""
    near(actual, expected, bound, "what was found")
