"""The exact inverse of each step under the model, by an accelerated fixed-point iteration."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from zigzag.anderson import Anderson
from zigzag.guided import Asking
from zigzag.inversion.scheme import Found, Run, Scheme, descend
from zigzag.inversion.trajectories import solve_all
from zigzag.moves import Tol, at_least
from zigzag.refining import solve
from zigzag.sampling import Generators
from zigzag.solvers import Solver

__all__ = ["FixedPoint"]


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
        at_least(self, "sweeps", 1)
        at_least(self, "window", 0)
        self.interval  # noqa: B018, its checks

    @property
    def interval(self) -> Tol:
        """How each interval is solved."""
        return Tol(self.tol, self.most, self.anderson, self.damping)

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
        states, figures = [x], list[tuple[Tensor, Tensor]]()
        for i in reversed(range(len(run.solver))):
            ask = partial(run.predictions, i=i)
            solved = yield from solve(ask, run.step(i), states[-1], run.remainder(i), self.interval)
            states.append(solved.x)
            figures.append((solved.residual, solved.contraction))
        if run.solver.memory:
            mix = Anderson(self.window, self.damping)
            return (yield from solve_all(run, torch.stack(states[::-1]), mix, self.tol, self.sweeps))
        residual, contraction = (torch.stack(each) for each in zip(*figures[::-1], strict=True))
        return Found((states[-1],), residual=residual, contraction=contraction)

    def down(self, run: Run, found: Found) -> Asking[Tensor]:
        """The solver's own way."""
        return (yield from descend(run, found.states[0]))
