"""The exact inverse of each step under the model, by an accelerated fixed-point iteration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from zigzag.guidance.base import finite
from zigzag.guided import Asking
from zigzag.inversion.anderson import Anderson, by_sample, relative, stretch
from zigzag.inversion.scheme import Found, Run, Scheme, descend
from zigzag.inversion.trajectories import solve_all
from zigzag.sampling import Generators
from zigzag.solvers import Solver

__all__ = ["FixedPoint", "Solved", "solve"]


@dataclass(frozen=True)
class FixedPoint(Scheme):
    r"""Inverts the solver's own steps: at each interval `i → j` it solves for the state that the step leads from.

    .. math:: x_i = g(x_i), \qquad g(x) = c\,(x_j - r) + d\,e(x, t_i)

    The plain iteration contracts by `|d|·Lip(e)`, which is 1 and more where there are few steps and a strong guidance.
    Anderson's acceleration converges further than that, but not everywhere; what is left of the equation is reported
    for each interval and sample, with the `|d|·Lip` that the iterates show. A sample that has converged is left alone.

    It runs on every solver, and the way down is the solver's own. The noise of stochastic steps is drawn on the way up
    and held. A multistep solver's `r` holds predictions of knots that the way up has not reached. There the states of
    all knots are solved for at once, from those of its steps of first order: an iteration asks the model at each of
    them, and goes up with what it said,

    .. math:: x_i' = c\,(x_j' - r) + d\,e(x_i, t_i), \qquad i = T - 1, \dots, 0

    Args:
        tol: the residual `‖g(x) − x‖/‖g(x)‖` at which a sample is done.
        most: iterations an interval at most, of one evaluation each.
        anderson: how many differences of iterates are remembered; 0 is the plain iteration.
        damping: `β` in (0, 1]: how far each iterate follows its residual.
        sweeps: of a multistep solver, iterations at most, of one evaluation a step each.
        window: of a multistep solver, how many differences of all its states are remembered.

    Raises:
        TypeError, ValueError: for arguments out of range.

    Source: Pan et al. 2023 (AIDI); Anderson 1965; Z-Sampling, eq. 4, is its first iterate.
    """

    tol: float = 1e-5
    most: int = 50
    anderson: int = 3
    damping: float = 1.0
    sweeps: int = 50
    window: int = 8

    def __post_init__(self) -> None:
        if not finite("tol", self.tol) > 0:
            raise ValueError(f"tol must be positive, got {self.tol!r}")
        for name, least in (("most", 1), ("anderson", 0), ("sweeps", 1), ("window", 0)):
            value = getattr(self, name)
            if not isinstance(value, int):
                raise TypeError(f"{name} must be an integer, got {value!r}")
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if not 0 < finite("damping", self.damping) <= 1:
            raise ValueError(f"damping must lie in (0, 1], got {self.damping!r}")

    def check(self, solver: Solver) -> None:
        """Raises ValueError where a step has no inverse."""
        for i in range(len(solver)):
            solver.invertible_step(i)
            solver.invertible_step(i, None, range(i))

    def finest(self) -> float:
        """`tol`: below the rounding of the state nothing converges."""
        return self.tol

    def up(self, run: Run, x: Tensor, generator: Generators) -> Asking[Found]:
        """Interval by interval; with memory, of first order, and then all at once."""
        solved: list[Solved] = []
        states = [x]
        for i in reversed(range(len(run.solver))):
            solved.append((yield from solve(run, i, states[-1], self)))
            states.append(solved[-1].x)
        if run.solver.memory:
            mix = Anderson(self.window, self.damping)
            return (yield from solve_all(run, torch.stack(states[::-1]), mix, self.tol, self.sweeps))
        residual, contraction = (torch.stack([each[k] for each in solved[::-1]]) for k in (1, 2))
        return Found((states[-1],), residual=residual, contraction=contraction)

    def down(self, run: Run, found: Found) -> Asking[Tensor]:
        """The solver's own way."""
        return (yield from descend(run, found.states[0]))


class Solved(NamedTuple):
    """An interval solved: the state, and by sample the residual and the contraction shown."""

    x: Tensor
    residual: Tensor
    contraction: Tensor


def solve(run: Run, i: int, x_j: Tensor, scheme: FixedPoint) -> Asking[Solved]:
    """The state from which the first-order step leads to `x_j`, with the best residual found."""
    step, r = run.step(i), run.remainder(i)
    mix, x = Anderson(scheme.anderson, scheme.damping), x_j
    best: Solved | None = None
    previous: tuple[Tensor, Tensor] | None = None
    for n in range(scheme.most):
        _, e = yield from run.predictions(x, i)
        g = step.inverse(x_j, e, r)
        shown = stretch(x - previous[0], g - previous[1], x) if previous is not None else torch.zeros(len(x)).to(x)
        previous = x, g
        best = _better(best, Solved(x, relative(g - x, g), shown))
        done = best.residual <= scheme.tol
        if n + 1 == scheme.most or bool(done.all()):
            break
        x = torch.where(by_sample(done, x), best.x, mix(x, g - x))
    assert best is not None
    return best


def _better(best: Solved | None, this: Solved) -> Solved:
    """By sample the one of the smaller residual, and the largest contraction that was shown."""
    if best is None:
        return this
    smaller = this.residual < best.residual
    x = torch.where(by_sample(smaller, this.x), this.x, best.x)
    residual = torch.where(smaller, this.residual, best.residual)
    return Solved(x, residual, torch.maximum(best.contraction, this.contraction))
