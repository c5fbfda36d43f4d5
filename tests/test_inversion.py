"""Inverting real handwritten digits, a path from the last knot to the first, and drawing them back."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from zigzag import DDIM, FlowEuler, Spherical, Standard, sample
from zigzag.moves import Invert, Renoise
from zigzag.zoo import Digits

DIGITS = Digits()
IMAGES = DIGITS.images[::300].double()
LABELS = DIGITS.labels[::300]
NULL = torch.full_like(LABELS, -1)
STEPS = (32, 64, 128)


def up(n: int, refine: int) -> tuple[Invert, ...]:
    """Knot T to knot 0."""
    return tuple(Invert(j, j - 1, refine=refine) for j in range(n, 0, -1))


def released(n: int, refine: int) -> tuple[Invert, ...]:
    """The mutant: each inversion with the coefficients of the next interval, where there is one."""
    return tuple(Invert(j, j - 1, refine, (j, j + 1) if j < n else None) for j in range(n, 0, -1))


def encode(solver: object, path: tuple[object, ...], weak: float = 1.0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    return sample(DIGITS.predictor(solver), IMAGES, solver, path, cond=LABELS, uncond=NULL, weak=weak, generator=rng)


def draw(solver: object, noise: torch.Tensor, strong: float = 1.0) -> torch.Tensor:
    return sample(DIGITS.predictor(solver), noise, solver, Standard(), cond=LABELS, uncond=NULL, strong=strong)


def error(solver: object, path: tuple[object, ...], weak: float = 1.0, strong: float = 1.0) -> float:
    """The mean distance per image between the digit and what comes back."""
    back = draw(solver, encode(solver, path, weak), strong)
    return float((back - IMAGES).flatten(1).norm(dim=1).mean())


GRIDS = {
    "flow": lambda n: FlowEuler.uniform(n, shift=2.0),
    "spherical": lambda n: Spherical(1.5 * torch.linspace(1, 0, n + 1, dtype=torch.float64) ** 1.3),
    "karras": lambda n: DDIM.karras(n, sigma_max=20.0, rho=3.0),
}
each_grid = pytest.mark.parametrize("name", list(GRIDS))


def check_order(errors: list[float], order: int) -> None:
    """The error falls with every doubling of the steps, and at last as h^order."""
    assert all(two < one for one, two in itertools.pairwise(errors)), errors
    slope = math.log(errors[-2] / errors[-1]) / math.log(2)
    assert abs(slope - order) < 0.3, (slope, errors)


@each_grid
@pytest.mark.parametrize("refine", [0, 1, 2])
def test_a_real_digit_comes_back_with_order_one_plus_refine(name: str, refine: int) -> None:
    """|draw(invert(x)) - x| = O(h^(1 + K)): each refinement gains a power of the step."""
    errors = [error(GRIDS[name](n), up(n, refine)) for n in STEPS]
    check_order(errors, 1 + refine)
    with pytest.raises(AssertionError):
        check_order([error(GRIDS[name](n), up(n, 1 - min(refine, 1))) for n in STEPS], 1 + refine)


@each_grid
def test_the_error_falls_with_refine_at_fixed_steps(name: str) -> None:
    """At 64 steps each refinement takes a factor of five at least, and 20 of them nearly everything."""
    n = 64
    errors = [error(GRIDS[name](n), up(n, refine)) for refine in (0, 1, 2, 3)]
    assert all(two < one / 5 for one, two in itertools.pairwise(errors)), errors
    assert errors[0] > 1e-3
    assert error(GRIDS[name](n), up(n, 20)) < 1e-9


@each_grid
def test_the_inverse_of_the_neighbouring_interval_brings_another_image_back(name: str) -> None:
    n = 64
    good, bad = (error(GRIDS[name](n), path(n, 3)) for path in (up, released))
    assert bad > 100 * good


@each_grid
def test_what_comes_back_is_the_digit_and_not_just_any_of_its_class(name: str) -> None:
    """Unconditional both ways: the noise alone carries the image; other noise draws another one."""
    n, near = 64, 0.5
    solver = GRIDS[name](n)
    back = draw(solver, encode(solver, up(n, 3), weak=0.0), strong=0.0)
    assert torch.equal(DIGITS.classify(back), LABELS)
    assert float((back - IMAGES).flatten(1).norm(dim=1).max()) < near
    other = draw(solver, encode(solver, (Renoise(n, 0),)), strong=1.0)
    assert float((other - IMAGES).flatten(1).norm(dim=1).mean()) > 4 * near


def test_a_digit_inverted_under_one_guidance_does_not_come_back_under_another() -> None:
    n = 64
    path = up(n, 3)
    solver = FlowEuler.uniform(n)
    assert error(solver, path, weak=0.0, strong=1.0) > 100 * error(solver, path, weak=0.0, strong=0.0)
