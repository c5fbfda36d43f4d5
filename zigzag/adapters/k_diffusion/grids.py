"""The sigmas that a sampler is called with, as a solver's grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeAlias

import torch

from zigzag.solvers import DDIM, FlowEuler, Solver
from zigzag.solvers.multistep import DataForm, DataStep

__all__ = ["Ancestral", "Change", "odd", "solver_on"]

# From the solver on the host's sigmas to another one on the same knots: `DPMSolver.on`, say.
Change: TypeAlias = Callable[[Solver], Solver]


class Ancestral(DataForm):
    r"""Euler steps of a flow with noise, at the share `η` that k-diffusion's samplers call by this name.

    A step goes down to `σ↓`, below `σ_j`, and up again to `σ_j` by noise `z`:

    .. math:: \sigma_\downarrow = \sigma_j\,(1 + \eta\,(\sigma_j/\sigma_i - 1)), \qquad
              \ell = \frac{1 - \sigma_j}{1 - \sigma_\downarrow}\,\sigma_\downarrow

    .. math:: x_j = \frac{\ell}{\sigma_i}\,x_i + \Big(1 - \sigma_j - \frac{\ell}{\sigma_i}(1 - \sigma_i)\Big)\,x_0
              + \sqrt{\sigma_j^2 - \ell^2}\,z

    With `η = 0` it is `FlowEuler`. It is not DDIM's `η`, which removes another share of the noise.

    Args:
        grid: the flow's. eta: `η` in [0, 1].

    Raises:
        ValueError: for an `η` outside [0, 1].

    Source: the ancestral Euler sampler for rectified flows of ComfyUI, by its equations.
    """

    def __init__(self, grid: Solver, eta: float) -> None:
        if not 0 <= eta <= 1:
            raise ValueError(f"eta must lie in [0, 1], got {eta!r}")
        self.eta = float(eta)
        super().__init__(grid.alphas, grid.sigmas, grid.times, prediction="flow")

    def data_step(self, i: int, j: int, remembered: tuple[int, ...]) -> DataStep:
        """The step said of x₀."""
        _, sigmas, _ = self.knots
        sigma_i, sigma_j = sigmas[i], sigmas[j]
        down = sigma_j * (1 + self.eta * (sigma_j / sigma_i - 1))
        left = (1 - sigma_j) / (1 - down) * down
        P = left / sigma_i
        return DataStep(P, 1 - sigma_j - P * (1 - sigma_i), noise=math.sqrt((sigma_j - left) * (sigma_j + left)))


def odd(sigmas: Sequence[float]) -> str | None:
    """Why no zigzag runs on these sigmas; None where they fall strictly, from noise to data."""
    if len(sigmas) < 2:
        return f"there {'are none' if not sigmas else 'is one only'}, which makes no step"
    for i, (sigma_i, sigma_j) in enumerate(pairwise(sigmas)):
        if sigma_i == sigma_j:
            return f"step {i} stays at {sigma_i:.6g}"
        if not sigma_j < sigma_i:
            return f"step {i} rises from {sigma_i:.6g} to {sigma_j:.6g} (flipped sigmas lead from data to noise)"
    return None


def solver_on(sigmas: Sequence[float], flow: bool, eta: float, change: Change | None) -> Solver:
    """The solver on a host's sigmas: told σ, with `a = 1` and `b = σ_j − σ_i` unless it holds something.

    Args:
        sigmas: `(T + 1,)`, falling. flow: whether `x = (1 − σ)·x₀ + σ·ε`; else `x = x₀ + σ·ε`.
        eta: the share of ancestral noise. change: of the user's.

    Raises:
        TypeError, ValueError: for a change that gives no solver, or one on other knots.
    """
    sigma = torch.tensor(sigmas, dtype=torch.float64, device="cpu")
    if flow:
        euler = FlowEuler(sigma)
        base: Solver = Ancestral(euler, eta) if eta else euler
    else:
        base = DDIM(torch.ones_like(sigma), sigma, sigma[:-1], eta=eta)
    if change is None:
        return base
    solver = change(base)
    if not isinstance(solver, Solver):
        raise TypeError(f"solver must make a Solver of {base!r}, got {solver!r}")
    if solver.knots != base.knots:
        raise ValueError(f"solver must keep the knots of the grid that it is given, got {solver!r} of {base!r}")
    return solver
