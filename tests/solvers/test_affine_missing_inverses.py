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
    """(solver, i, j): δ = π/2 over one step, over a span, and at a later knot; zero terminal SNR with ε."""
    half = math.pi / 2
    zero_snr = DDIM(torch.tensor([0.0, 0.6, 1.0]), torch.tensor([1.0, 0.8, 0.0]), torch.tensor([2, 1]))
    return [
        pytest.param(Spherical(torch.tensor([half, 0.0], dtype=torch.float64)), 0, 1, id="spherical"),
        pytest.param(Spherical.cosine(2), 0, 2, id="spherical span"),
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
    with pytest.raises(ValueError, match=rf"knot\D*{i}"):
        sample(untouched, noise(0, 2, 3), solver, path, cond=None, strong=1.0, weak=1.0)


@pytest.mark.parametrize(("solver", "i", "j"), [p for p in no_inverse() if "span" not in str(p.id)])
def test_a_table_with_a_missing_inverse_is_refused_with_its_knot(solver: Solver, i: int, j: int) -> None:
    with pytest.raises(ValueError, match=rf"knot\D*{i}"):
        solver.table()


def test_a_step_without_an_inverse_can_still_be_taken_forward() -> None:
    """δ = π/2: x_1 = cos(π/2)·x − sin(π/2)·v = −v; plain sampling needs no inverse."""
    from zigzag import Standard, sample

    solver = Spherical(torch.tensor([math.pi / 2, 0.0], dtype=torch.float64))
    x = noise(0, 2, 3)
    out = sample(lambda x, t, cond: x.tanh(), x, solver, Standard(), cond=None, strong=1.0)
    assert_finite_within(out, -x.tanh(), EPS * (1 + x.abs()))
