"""Every step is affine, x_j = a·x_i + b·e, with the coefficients of docs/mathematics.md, one or one per sample."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given
from torch import Tensor

from support.grids import Grid, pure, spans
from support.steps import StepLike
from support.tensors import assert_finite_within, noise, seeds
from zigzag.solvers import (
    AffineStep,
    ddim_inverse,
    ddim_step,
    flow_inverse,
    flow_step,
    spherical_inverse,
    spherical_step,
)

EPS = torch.finfo(torch.float64).eps

# One coefficient per sample --------------------------------------------------------------------------------


def check_equals_loop(batched: Callable[..., Tensor], x: Tensor, e: Tensor, *coefficients: Tensor) -> None:
    """One call with (B,) coefficients is B calls with numbers, to the rounding of one affine map."""
    rows = zip(x.split(1), e.split(1), torch.stack(coefficients, 1).tolist(), strict=True)
    expected = torch.cat([batched(one, prediction, *numbers) for one, prediction, numbers in rows])
    actual = batched(x, e, *coefficients)
    assert actual.dtype == x.dtype
    scale = max(1.0, *(c.abs().max().item() for c in coefficients))
    assert_finite_within(actual, expected, 8 * torch.finfo(x.dtype).eps * scale**2 * (x.abs() + e.abs()).double())


FORMS: dict[str, Callable[..., Tensor]] = {
    "forward": lambda x, e, a, b: AffineStep(a, b).forward(x, e),
    "inverse": lambda x, e, a, b: AffineStep(a, b).inverse(x, e),
    "shift": lambda x, e, a, b: AffineStep(a, b).shift(x, e),
    "flow_step": flow_step,
    "flow_inverse": flow_inverse,
    "spherical_step": spherical_step,
    "spherical_inverse": spherical_inverse,
    "ddim_step": lambda x, e, a, b: ddim_step(x, e, a, b, 0.5 + a / 2, b / 2),
    "ddim_inverse": lambda x, e, a, b: ddim_inverse(x, e, a, b, 0.5 + a / 2, b / 2),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", (torch.float64, torch.float32), ids=str)
@pytest.mark.parametrize("shape", [(4,), (4, 4), (4, 2, 4), (4, 1, 2, 2)], ids=str)
def test_per_sample_coefficients_equal_a_loop_over_samples(
    form: str, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    """Coefficients of shape (B,) go with the first dimension of x, also where another one has size B."""
    a = torch.tensor([0.4, 0.95, 0.7, 0.55], dtype=torch.float64)
    b = torch.tensor([0.2, 0.1, 0.35, 0.5], dtype=torch.float64)
    check_equals_loop(FORMS[form], noise(2, *shape, dtype=dtype), noise(3, *shape, dtype=dtype), a, b)


def test_the_loop_check_refuses_broadcasting_from_the_right() -> None:
    def mutant(x: Tensor, e: Tensor, a: Any, b: Any) -> Tensor:
        return a * x + b * e

    a, b = noise(4, 4), noise(5, 4)
    with pytest.raises(AssertionError):
        check_equals_loop(mutant, noise(2, 4, 4), noise(3, 4, 4), a, b)


# Coefficients ----------------------------------------------------------------------------------------------


def check_coefficients(step: StepLike, grid: Grid, i: int, j: int) -> None:
    """The table of docs/mathematics.md, in exact arithmetic on the knots (cos and sin excepted)."""
    alpha_i, alpha_j = (Fraction(grid.solver.alphas[k].item()) for k in (i, j))
    sigma_i, sigma_j = (Fraction(grid.solver.sigmas[k].item()) for k in (i, j))
    if grid.kind == "flow":
        assert step.a == 1
        assert abs(Fraction(step.b) - (sigma_j - sigma_i)) <= Fraction(EPS) * (sigma_i - sigma_j)
    elif grid.kind == "spherical":
        delta = grid.knots[i] - grid.knots[j]
        assert abs(step.a - math.cos(delta)) <= 4 * EPS
        assert abs(step.b + math.sin(delta)) <= 4 * EPS
    else:
        a = alpha_j / alpha_i
        assert abs(Fraction(step.a) - a) <= Fraction(EPS) * a
        assert abs(Fraction(step.b) - (sigma_j - a * sigma_i)) <= 2 * Fraction(EPS) * (sigma_j + a * sigma_i)


@given(spans())
def test_the_coefficients_are_those_of_the_design(span: tuple[Grid, int, int]) -> None:
    grid, i, j = span
    check_coefficients(grid.solver.step(i, j), grid, i, j)
    with pytest.raises(AssertionError):  # mutant: the sign of b
        step = grid.solver.step(i, j)
        check_coefficients(AffineStep(step.a, -step.b), grid, i, j)


@given(spans(), seeds)
def test_a_solvers_step_is_the_pure_function(span: tuple[Grid, int, int], seed: int) -> None:
    """solver.step(i, j).forward = *_step and .inverse = *_inverse, with () and with (B,) tensors."""
    grid, i, j = span
    step = grid.solver.step(i, j)
    x, e = noise(seed, 3, 4), noise(seed + 1, 3, 4)
    for k, to in ((i, j), (torch.full((3,), i), torch.full((3,), j))):
        forward, inverse = pure(grid, k, to)
        scale = 1 + grid.solver.sigmas[i] * abs(step.a)  # b = σ_j − a σ_i may cancel
        assert_finite_within(forward(x, e), step.forward(x, e), 8 * EPS * (abs(step.a * x) + scale * e.abs()))
        scale = scale * abs(step.c)
        assert_finite_within(inverse(x, e), step.inverse(x, e), 8 * EPS * (abs(step.c * x) + scale * e.abs()))


def test_the_pure_functions_take_python_numbers() -> None:
    x, e = noise(0, 2, 3), noise(1, 2, 3)
    a = 0.9 / 0.6
    expected = a * x + (0.4 - a * 0.8) * e
    assert_finite_within(ddim_step(x, e, 0.6, 0.8, 0.9, 0.4), expected, 8 * EPS * (x.abs() + e.abs()))
    assert_finite_within(flow_step(x, e, 0.8, 0.5), x - (0.8 - 0.5) * e, 4 * EPS * (x.abs() + e.abs()))
    expected = math.cos(0.4) * x - math.sin(0.4) * e
    assert_finite_within(spherical_step(x, e, 1.0, 0.6), expected, 8 * EPS * (x.abs() + e.abs()))
