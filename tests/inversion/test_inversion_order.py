"""By what power of the step the reversible schemes converge, on a Gaussian whose flow has a closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from support.convergence import GAUSSIAN, STD, exact, regressed
from zigzag.inversion import EDICT, OBELM, Reversible, Rex, ending_above, fresh, invert, reconstruct
from zigzag.inversion.scheme import Run
from zigzag.solvers import DDIM, DPMSolver, FlowEuler, Solver, Spherical

STEPS = (32, 64, 128)
STATES = torch.linspace(-2.0, 2.0, 9, dtype=torch.float64)[:, None]


def falling(top: float, bottom: float, steps: int) -> torch.Tensor:
    return torch.linspace(top, bottom, steps + 1, dtype=torch.float64)


def vp(steps: int, cls: Any = DDIM, **options: Any) -> Solver:
    phi = falling(1.4, 0.3, steps)
    return cls(phi.cos(), phi.sin(), phi[:-1], **options)


def edm(steps: int) -> Solver:
    sigma = falling(2.0, 0.5, steps) ** 3
    return DDIM(torch.ones_like(sigma), sigma, sigma[:-1])


def karras(steps: int) -> Solver:
    whole = DDIM.karras(steps + 1, sigma_min=0.05, sigma_max=10.0)
    return DDIM(whole.alphas[:-1], whole.sigmas[:-1], whole.times[:-1])


GRIDS: dict[str, Callable[[int], Solver]] = {
    "vp": vp,
    "edm": edm,
    "karras": karras,
    "flow, from pure noise": lambda steps: FlowEuler(falling(1.0, 0.2, steps)),
    "flow, to the data": lambda steps: FlowEuler(falling(1.0, 0.0, steps)),
    "flow, uneven": lambda steps: FlowEuler(falling(1.0, 0.3, steps) ** 2),
    "spherical, from pure noise": lambda steps: Spherical(falling(math.pi / 2, 0.3, steps)),
    "v on a flow's levels": lambda steps: vp_of(falling(1.0, 0.2, steps), "v"),
    "x0": lambda steps: vp(steps, DPMSolver, prediction="x0", order=1),
    "flow on a circle": lambda steps: vp(steps, DPMSolver, prediction="flow", order=1),
}
each_grid = pytest.mark.parametrize("grid", list(GRIDS))


def vp_of(sigma: torch.Tensor, kind: Any) -> Solver:
    return DPMSolver(1 - sigma, sigma, sigma[:-1], prediction=kind, order=1)


@dataclass(frozen=True)
class Uncorrected(OBELM):
    """O-BELM without what it adds to the first-order step."""

    def forward(self, run: Run, i: int, x: torch.Tensor, y: torch.Tensor) -> Any:
        return run.step(i).forward(x, (yield from run.predict(x, i))), x


@dataclass(frozen=True)
class Half(OBELM):
    """Half of the weight, as BDIA may take."""

    def forward(self, run: Run, i: int, x: torch.Tensor, y: torch.Tensor) -> Any:
        x_2, x_1 = yield from super().forward(run, i, x, y)
        e = yield from run.predict(x, i)
        plain = run.step(i).forward(x, e)
        return plain + 0.5 * (x_2 - plain), x_1


def order(scheme: Reversible, build: Callable[[int], Solver]) -> float:
    """Of the largest error at the last knot, from noise within two deviations."""

    def error(steps: int) -> float:
        base = build(steps)
        solver = ending_above(base) if isinstance(scheme, Rex) else base
        start = STATES * (solver.alphas[0] ** 2 * STD**2 + solver.sigmas[0] ** 2).sqrt()
        made = reconstruct(GAUSSIAN.predictor(base), fresh(start, solver, scheme), solver, cond=None)
        return (made - exact(solver, start)).abs().max().item()

    return regressed(STEPS, error)


@each_grid
def test_obelm_is_of_order_two(grid: str) -> None:
    assert abs(order(OBELM(), GRIDS[grid]) - 2) < 0.1


@each_grid
@pytest.mark.parametrize("scheme", [EDICT(), Rex()], ids=["EDICT", "Rex"])
def test_edict_and_rex_are_of_order_one(scheme: Reversible, grid: str) -> None:
    assert abs(order(scheme, GRIDS[grid]) - 1) < 0.15


@pytest.mark.parametrize("grid", ["vp", "flow, uneven", "spherical, from pure noise"])
@pytest.mark.parametrize("mutant", [Uncorrected(), Half()], ids=["uncorrected", "half of it"])
def test_another_correction_has_not_order_two(mutant: OBELM, grid: str) -> None:
    assert order(mutant, GRIDS[grid]) < 1.4


@each_grid
def test_the_noise_that_obelm_finds_converges_to_the_true_one(grid: str) -> None:
    """The way up is a solver too, of the order of the way down. (Those of EDICT and Rex part their two states by
    `p^(−2T)` and `ζ^(−T)`, and do not converge.)"""

    def error(steps: int) -> float:
        solver = GRIDS[grid](steps)
        start = STATES * (solver.alphas[0] ** 2 * STD**2 + solver.sigmas[0] ** 2).sqrt()
        data = exact(solver, start)
        found = invert(GAUSSIAN.predictor(solver), data, solver, OBELM(), cond=None, accuracy=1e12)
        return (found.noise - start).abs().max().item()

    assert abs(regressed(STEPS, error) - 2) < 0.25
