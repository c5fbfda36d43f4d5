"""A step without an inverse can be taken and not undone."""

import math
from typing import Any

import pytest
import torch

from support.predictors import untouched
from support.tensors import assert_finite_within, noise
from zigzag.solvers import DDIM, Solver, Spherical

EPS = torch.finfo(torch.float64).eps


def no_inverse() -> list[Any]:
    """(solver, i, j): δ = π/2 over a step and over a span; a ≈ 1e-13 at a later knot; zero terminal SNR with ε."""
    half = math.pi / 2
    faint = DDIM(torch.tensor([0.6, 0.8, 1e-13]), torch.tensor([0.8, 0.6, 1e-14]), torch.tensor([2, 1]))
    zero_snr = DDIM(torch.tensor([0.0, 0.6, 1.0]), torch.tensor([1.0, 0.8, 0.0]), torch.tensor([2, 1]))
    return [
        pytest.param(Spherical(torch.tensor([half, 0.0], dtype=torch.float64)), 0, 1, id="spherical"),
        pytest.param(Spherical.cosine(2), 0, 2, id="spherical span"),
        pytest.param(faint, 1, 2, id="later knot"),
        pytest.param(zero_snr, 0, 1, id="zero terminal SNR"),
    ]


@pytest.mark.parametrize(("solver", "i", "j"), no_inverse())
def test_a_path_that_needs_a_missing_inverse_is_refused_with_its_knot_before_any_call(
    solver: Solver, i: int, j: int
) -> None:
    """|a| < 1e-12 or a not finite: "said with the knot", "before the first model call"."""
    from zigzag import sample
    from zigzag.moves import Denoise, Invert

    path = (Denoise(i, j), Invert(j, i), Denoise(i, j))
    with pytest.raises(ValueError, match=rf"\bknot {i} to {j}\b"):
        sample(untouched, noise(0, 2, 3), solver, path, cond=None, strong=1.0, weak=1.0)


@pytest.mark.parametrize(("solver", "i", "j"), [p for p in no_inverse() if "span" not in str(p.id)])
def test_a_table_with_a_missing_inverse_is_refused_with_its_knot(solver: Solver, i: int, j: int) -> None:
    with pytest.raises(ValueError, match=rf"\bknot {i} to {j}\b"):
        solver.table()


def test_a_step_without_an_inverse_can_still_be_taken_forward() -> None:
    """δ = π/2: x_1 = cos(π/2)·x − sin(π/2)·v = −v; plain sampling needs no inverse."""
    from zigzag import Standard, sample

    solver = Spherical(torch.tensor([math.pi / 2, 0.0], dtype=torch.float64))
    x = noise(0, 2, 3)
    out = sample(lambda x, t, cond: x.tanh(), x, solver, Standard(), cond=None, strong=1.0)
    assert_finite_within(out, -x.tanh(), EPS * (1 + x.abs()))


def test_a_later_step_without_an_inverse_can_still_be_taken_and_the_one_before_it_undone() -> None:
    from zigzag import sample
    from zigzag.moves import Denoise, Invert

    solver = no_inverse()[2].values[0]
    x = noise(0, 2, 3)
    path = (Denoise(0, 1), Invert(1, 0), Denoise(0, 1), Denoise(1, 2))
    out = sample(lambda x, t, cond: torch.ones_like(x), x, solver, path, cond=None, strong=1.0, weak=1.0)
    one, two = solver.step(0), solver.step(1)
    assert 0 < abs(two.a) < 1e-12
    expected = two.a * (one.a * x + one.b) + two.b
    assert_finite_within(out, expected, 16 * EPS * (abs(two.a) * (2 + 2 * x.abs()) + abs(two.b)))
