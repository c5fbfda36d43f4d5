"""The sigmas that a sampler is called with, as a solver's grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeAlias

import torch

from zigzag.solvers import DDIM, FlowAncestral, FlowEuler, Solver

__all__ = ["Change", "odd", "solver_on"]

# From the solver on the host's sigmas to another one on the same knots: `DPMSolver.on`, say.
Change: TypeAlias = Callable[[Solver], Solver]


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
        base: Solver = FlowAncestral.on(euler, eta=eta) if eta else euler
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
