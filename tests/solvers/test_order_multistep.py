"""The order of convergence of the multistep solvers and of those of two evaluations, regressed where all is known.

A multistep solver begins at order 1, which limits its error to order 2 whatever comes after. So each is started with
the true history: it sets out from the knot that has as many knots above it as the solver remembers, at the true state,
with the true predictions of those above as its memory. The error is the largest over all knots that follow.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from support.convergence import affine, exact, regressed
from support.held import DETERMINISTIC, TWO_STAGE, inner_level
from zigzag.solvers import DDIM, FlowEuler, Solver, Spherical
from zigzag.zoo import GaussianMixture

STEPS = (64, 128, 256)
X = torch.linspace(-2.0, 2.0, 9, dtype=torch.float64)[:, None]
Predict = Callable[[Solver, Tensor, float, float], Tensor]


def falling(high: float, low: float, steps: int) -> Tensor:
    return low + (high - low) * (1 - torch.arange(steps + 1, dtype=torch.float64) / steps)


def edm(steps: int) -> Solver:
    sigma = falling(1.6, 0.4, steps) ** 3
    return DDIM(torch.ones_like(sigma), sigma, sigma[:-1])


def even(steps: int) -> Solver:
    """Evenly spaced in k = σ/α, for the classical coefficients."""
    sigma = falling(2.5, 0.5, steps)
    return DDIM(torch.ones_like(sigma), sigma, sigma[:-1])


GRIDS: dict[str, Callable[[int], Solver]] = {
    "edm": edm,
    "flow": lambda steps: FlowEuler(falling(0.85, 0.1, steps)),
    "v": lambda steps: Spherical(falling(1.3, 0.2, steps)),
    "even": even,
}


def gaussian(solver: Solver, x: Tensor, alpha: float, sigma: float) -> Tensor:
    g, c = affine(solver.prediction, alpha, sigma)
    return g * x + c


def error(solver: Solver, truth: Tensor, predict: Predict, seeded: bool = True) -> float:
    """The largest over the knots, started with the true history or with none; `truth` has the state at each."""
    alphas, sigmas, _ = solver.knots
    first = solver.memory if seeded else 0

    def left(i: int, x: Tensor) -> Tensor:
        return solver.remember(i, x, predict(solver, x, alphas[i], sigmas[i]))

    memory = [left(i, truth[i]) for i in range(first)]
    x, worst = truth[first], 0.0
    for i in range(first, len(solver)):
        e, step, inner = (
            predict(solver, x, alphas[i], sigmas[i]),
            solver.step(i, None, range(i)),
            solver.inner(i, i + 1),
        )
        if (inner := solver.inner(i, i + 1)) is not None:
            y = inner.first.forward(x, e)
            e = torch.lerp(e, predict(solver, y, *inner_level(solver, i, i + 1)), inner.weight)
        r = step.remainder(memory[::-1][: len(step.memory)])
        if solver.memory:
            memory.append(solver.remember(i, x, e))
        x = step.forward(x, e, r)
        worst = max(worst, float((x - truth[i + 1]).abs().max()))
    return worst


@cache
def order(name: str, grid: str, seeded: bool = True) -> float:
    def of(steps: int) -> float:
        base = GRIDS[grid](steps)
        solver = {**DETERMINISTIC, **TWO_STAGE}[name](base, base.prediction)
        return error(solver, exact(solver, X, slice(None)).T[:, :, None], gaussian, seeded)

    return regressed(STEPS, of)


ORDERS = {
    "DPM-1": 1, "AB-1": 1, "2M": 2, "2M, heun": 2, "3M": 3, "DEIS-2": 2, "DEIS-3": 3, "DEIS-4": 4,
    "LMS-2": 2, "LMS-4": 4, "Heun": 2, "DPM2": 2,
}  # fmt: skip


@pytest.mark.parametrize("grid", ["edm", "flow", "v"])
@pytest.mark.parametrize("name", ORDERS)
def test_the_error_falls_with_the_power_of_the_step_that_the_solver_promises(name: str, grid: str) -> None:
    assert order(name, grid) == pytest.approx(ORDERS[name], abs=0.3)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_the_classical_coefficients_have_their_order_on_an_even_grid_and_two_elsewhere(k: int) -> None:
    """On a grid that is smooth but uneven, neighbouring steps differ by O(h): the first moment is off by O(h²)."""
    assert order(f"AB-{k}", "even") == pytest.approx(k, abs=0.15)
    assert order(f"AB-{k}", "edm") == pytest.approx(min(k, 2), abs=0.15)


@pytest.mark.parametrize("grid", ["edm", "flow", "v"])
def test_the_released_third_order_is_of_order_two(grid: str) -> None:
    """All released code of DPM-Solver++ 3M takes half of D_2 (diffusers, k-diffusion, its authors'): order 2."""
    assert order("3M, released", grid) == pytest.approx(2, abs=0.2)
    assert order("3M", grid) == pytest.approx(3, abs=0.2)


@pytest.mark.parametrize("name", ["3M", "DEIS-3", "DEIS-4", "LMS-4"])
def test_begun_without_history_no_order_exceeds_two(name: str) -> None:
    """One step of order 1 leaves an error of h², which stays."""
    assert order(name, "edm", seeded=False) == pytest.approx(2, abs=0.25)


def test_orders_are_told_apart() -> None:
    """Mutants of the check: a solver under the order of its neighbour."""
    for name, other in (("2M", 3), ("3M", 2), ("DEIS-3", 4), ("LMS-4", 3), ("Heun", 1)):
        with pytest.raises(AssertionError):
            assert order(name, "edm") == pytest.approx(other, abs=0.3)


# A field that is not affine ------------------------------------------------------------------------------------------

MIXTURE = GaussianMixture(torch.tensor([[-1.0], [0.8], [1.5]], dtype=torch.float64), 0.4)
FINE = 1024


@cache
def reference(grid: str) -> Tensor:
    """The trajectory of the mixture's flow at 1024 steps, by the fourth order: errors far below those measured."""
    base = GRIDS[grid](FINE)
    solver, x, states, memory = DETERMINISTIC["LMS-4"](base, "epsilon"), X, [X], list[Tensor]()
    for i in range(FINE):
        e, step = mixed(solver, x, 1.0, float(solver.sigmas[i])), solver.step(i, None, range(i))
        x = step.forward(x, e, step.remainder(memory[::-1][: len(step.memory)]))
        memory.append(e)
        states.append(x)
    return torch.stack(states)


def mixed(solver: Solver, x: Tensor, alpha: float, sigma: float) -> Tensor:
    """−σ·∇log p of the mixture, by its weights."""
    means, variance = MIXTURE.means[:, 0], alpha**2 * 0.4**2 + sigma**2
    apart = x - alpha * means
    weights = (-(apart**2) / (2 * variance)).softmax(-1)
    return sigma * (weights * apart).sum(-1, keepdim=True) / variance


MIXED: dict[str, int] = {
    "2M": 2, "3M": 3, "3M, released": 2, "DEIS-2": 2, "DEIS-3": 3, "LMS-2": 2, "LMS-4": 4, "Heun": 2, "DPM2": 2,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "grid", "k"),
    [*((name, "edm", k) for name, k in MIXED.items()), *((f"AB-{k}", "even", k) for k in (1, 2, 3, 4))],
)
def test_so_it_does_on_a_mixture(name: str, grid: str, k: int) -> None:
    def of(steps: int) -> float:
        base: Any = GRIDS[grid](steps)
        solver = {**DETERMINISTIC, **TWO_STAGE}[name](base, "epsilon")
        return error(solver, reference(grid)[:: FINE // steps], mixed)

    assert regressed(STEPS, of) == pytest.approx(k, abs=0.2)


def test_the_mixture_is_that_of_the_zoo() -> None:
    solver = edm(8)
    want = MIXTURE.predictor(solver)(X, solver.times[3].expand(len(X)), None)
    got = mixed(solver, X, 1.0, float(solver.sigmas[3]))
    torch.testing.assert_close(got, want, rtol=0, atol=256 * torch.finfo(X.dtype).eps)
