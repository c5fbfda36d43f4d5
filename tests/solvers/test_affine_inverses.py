"""A step and its inverse undo each other, and with a reused prediction collapse to the shift (docs/mathematics.md)."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from support.grids import Grid, grids, pure, spans
from support.steps import Mutant, check_collapse, check_duality, check_round_trips
from support.tensors import noise, seeds
from zigzag.solvers import DDIM, AffineStep, FlowEuler, Spherical

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

# A relative bound says nothing of subnormal numbers.
signed = st.floats(-100.0, 100.0).map(lambda b: b if abs(b) > 1e-200 else 0.0)

# The dualities ---------------------------------------------------------------------------------------------


@given(spans())
def test_every_step_of_every_grid_and_span_is_dual_to_its_inverse(span: tuple[Grid, int, int]) -> None:
    """Lemma 1 of docs/mathematics.md, for steps i -> j with j >= i + 1."""
    grid, i, j = span
    step = grid.solver.step(i, j)
    assert all(isinstance(v, float) for v in (step.a, step.b, step.c, step.d))
    check_duality(step)


@given(
    st.lists(st.tuples(st.floats(0.01, 100.0), signed), min_size=1, max_size=5),
    st.booleans(),
)
def test_dualities_hold_for_numbers_and_for_one_coefficient_per_sample(
    pairs: list[tuple[float, float]], negative: bool
) -> None:
    a, b = torch.tensor(pairs, dtype=torch.float64).unbind(1)
    a = -a if negative else a
    step = AffineStep(a, b)
    assert torch.as_tensor(step.c).shape == torch.as_tensor(step.d).shape == a.shape
    check_duality(step)
    check_duality(AffineStep(a[0], b[0]))
    check_duality(AffineStep(a[0].item(), b[0].item()))


def test_the_duality_check_refuses_the_swapped_spherical_inverse_and_the_neighbouring_interval() -> None:
    """Mutants: c = cos δ and d = sin δ (so a·c = cos² δ); c and d of the step i+1 -> i+2."""
    solver = Spherical(torch.tensor([1.4, 0.9, 0.5, 0.0], dtype=torch.float64))
    step, neighbour, delta = solver.step(0), solver.step(1), 1.4 - 0.9
    check_duality(step)
    with pytest.raises(AssertionError):
        check_duality(Mutant(step.a, step.b, math.cos(delta), math.sin(delta)))
    with pytest.raises(AssertionError):
        check_duality(Mutant(step.a, step.b, neighbour.c, neighbour.d))


# Round trips -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(span=spans(), seed=seeds)
def test_a_step_and_its_inverse_undo_each_other_within_the_rounding_bound(
    dtype: torch.dtype, span: tuple[Grid, int, int], seed: int
) -> None:
    grid, i, j = span
    x, e = noise(seed, 2, 3, 4, dtype=dtype), noise(seed + 1, 2, 3, 4, dtype=dtype)
    step = grid.solver.step(i, j)
    check_round_trips(step.forward, step.inverse, step, x, e)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(st.lists(st.tuples(st.floats(0.1, 4.0), st.floats(-4.0, 4.0)), min_size=3, max_size=3), seeds)
def test_per_sample_steps_undo_each_other_within_the_rounding_bound(
    dtype: torch.dtype, pairs: list[tuple[float, float]], seed: int
) -> None:
    """a and b are float64 of shape (B,), the state is of any dtype: they are cast, it keeps its own."""
    step = AffineStep(*torch.tensor(pairs, dtype=torch.float64).unbind(1))
    x, e = noise(seed, 3, 3, 4, dtype=dtype), noise(seed + 1, 3, 3, 4, dtype=dtype)
    check_round_trips(step.forward, step.inverse, step, x, e)


def test_the_round_trip_check_refuses_wrong_inverses() -> None:
    """Mutants: the inverse of the neighbouring interval, in every solver and dtype; swapped spherical."""
    t = torch.tensor([0.95, 0.6, 0.35, 0.0], dtype=torch.float64)
    x, e = noise(0, 2, 3, 4), noise(1, 2, 3, 4)
    for solver in (DDIM(t.cos(), t.sin(), t[:-1]), FlowEuler(t), Spherical(t)):
        here, there = solver.step(0), solver.step(1)
        for dtype in DTYPES:
            with pytest.raises(AssertionError):
                check_round_trips(here.forward, there.inverse, here, x.to(dtype), e.to(dtype))
    delta = 0.95 - 0.6
    swapped = Mutant(math.cos(delta), -math.sin(delta), math.cos(delta), math.sin(delta))
    with pytest.raises(AssertionError):
        check_round_trips(swapped.forward, swapped.inverse, swapped, x, e)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(grid=grids(), seed=seeds)
def test_the_pure_functions_undo_each_other_per_sample(dtype: torch.dtype, grid: Grid, seed: int) -> None:
    """*_inverse takes the arguments of *_step, in the same order."""
    solver, n = grid.solver, len(grid.solver)
    x, e = noise(seed, n, 5, dtype=dtype), noise(seed + 1, n, 5, dtype=dtype)
    forward, inverse = pure(grid, torch.arange(n), torch.arange(1, n + 1))
    table = solver.table()
    check_round_trips(forward, inverse, table, x, e)


# Shift: theorems 1 and 2 of the Z² paper -------------------------------------------------------------------


@given(spans(), seeds)
def test_going_down_and_up_with_a_reused_prediction_collapses_to_the_shift(
    span: tuple[Grid, int, int], seed: int
) -> None:
    grid, i, j = span
    step, three = grid.solver.step(i, j), [noise(seed + k, 2, 5) for k in range(3)]
    check_collapse(step.shift, step, *three)
    with pytest.raises(AssertionError):  # mutants: x + d·gap, and a shift that never moves its state
        check_collapse(lambda x, gap: x + step.d * gap, step, *three)
    with pytest.raises(AssertionError):
        check_collapse(lambda x, gap: x, step, *three)
