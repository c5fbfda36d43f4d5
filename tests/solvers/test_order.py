"""Every solver is of global order 1, measured on a Gaussian whose probability flow has a closed form."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from support.convergence import STD, exact, predict, regressed
from zigzag.solvers import DDIM, FlowEuler, Solver, Spherical

STEPS = (64, 128, 256, 512)

Build = Callable[[int], Solver]
Integrate = Callable[[Solver, Tensor], Tensor]


def vp(steps: int) -> Solver:
    phi = 1.5 * (1 - torch.arange(steps + 1, dtype=torch.float64) / steps)
    return DDIM(phi.cos(), phi.sin(), phi[:-1])


def edm(steps: int) -> Solver:
    """σ = u³ with u uniform: smooth in u, ends at 0."""
    sigma = (2.0 * (1 - torch.arange(steps + 1, dtype=torch.float64) / steps)) ** 3
    return DDIM(torch.ones_like(sigma), sigma, sigma[:-1])


GRIDS: dict[str, Build] = {
    "ddim, variance preserving": vp,
    "ddim, alpha 1": edm,
    "flow": FlowEuler.uniform,
    "flow, shifted": lambda steps: FlowEuler.uniform(steps, shift=3.0),
    "spherical": lambda steps: Spherical.cosine(steps, phi_max=1.5),
}


def first_order(solver: Solver, x: Tensor) -> Tensor:
    for i in range(len(solver)):
        x = solver.step(i).forward(x, predict(solver, x, i))
    return x


def second_order(solver: Solver, x: Tensor) -> Tensor:
    """Heun: the same affine step, with the mean of the predictions at both ends (the last step is plain).

    A v of knot j is first turned back by δ, to what its x₀ and ε say at knot i:
    α_i·ε − σ_i·x₀ = cos δ·v − sin δ·x.
    """
    for i in range(len(solver)):
        e, step = predict(solver, x, i), solver.step(i)
        if i + 1 < len(solver):
            y = step.forward(x, e)
            ahead = predict(solver, y, i + 1)
            e = (e + (step.a * ahead + step.b * y if solver.prediction == "v" else ahead)) / 2
        x = step.forward(x, e)
    return x


def inconsistent(solver: Solver, x: Tensor) -> Tensor:
    """b a tenth too large: it converges to something else, order 0."""
    for i in range(len(solver)):
        step = solver.step(i)
        x = step.a * x + 1.1 * step.b * predict(solver, x, i)
    return x


def order(build: Build, integrate: Integrate) -> float:
    """Of the largest error at the last knot, over states within two deviations."""
    x = torch.linspace(-2.0, 2.0, 9, dtype=torch.float64)[:, None]

    def error(count: int) -> float:
        solver = build(count)
        start = x * (solver.alphas[0] ** 2 * STD**2 + solver.sigmas[0] ** 2).sqrt()
        return (integrate(solver, start) - exact(solver, start)).abs().max().item()

    return regressed(STEPS, error)


def check_order_one(build: Build, integrate: Integrate) -> None:
    assert abs(order(build, integrate) - 1) < 0.05


@pytest.mark.parametrize("grid", GRIDS)
def test_the_global_error_falls_as_one_over_t(grid: str) -> None:
    """error(T) = C/T + O(1/T²), so the regressed order is 1 up to the curvature of the shortest grids."""
    check_order_one(GRIDS[grid], first_order)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("mutant", [second_order, inconsistent], ids=["order 2", "order 0"])
def test_the_order_check_refuses_another_order(grid: str, mutant: Integrate) -> None:
    with pytest.raises(AssertionError):
        check_order_one(GRIDS[grid], mutant)


def up_and_down(solver: Solver, x: Tensor) -> Tensor:
    """Down, then up with the exact inverse of each step and the prediction at the state it starts from."""
    x = first_order(solver, x)
    for i in reversed(range(len(solver))):
        x = solver.step(i).inverse(x, predict(solver, x, i))
    return x


@pytest.mark.parametrize("grid", ["ddim, variance preserving", "flow, shifted", "spherical"])
def test_inverting_the_whole_trajectory_returns_to_the_noise_at_order_one(grid: str) -> None:
    """Ψ told t_i at the state of knot i+1 is a first-order inverse of the flow: T -> 0 is undone to O(1/T).

    The grids end short of σ = 0 and of α = 0, where the predictions stay smooth.
    """

    def build(steps: int) -> Solver:
        u = 0.1 + 0.8 * (1 - torch.arange(steps + 1, dtype=torch.float64) / steps)
        phi = math.pi / 2 * u
        return {
            "ddim, variance preserving": lambda: DDIM(phi.cos(), phi.sin(), phi[:-1]),
            "flow, shifted": lambda: FlowEuler(u),
            "spherical": lambda: Spherical(phi),
        }[grid]()

    x = torch.linspace(-2.0, 2.0, 9, dtype=torch.float64)[:, None]
    errors = [(up_and_down(build(n), x) - x).abs().max().item() for n in STEPS]
    slopes = [math.log2(a / b) for a, b in pairwise(errors)]
    assert all(abs(s - 1) < 0.1 for s in slopes), (errors, slopes)
