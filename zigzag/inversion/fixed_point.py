"""The exact inverse of each step under the model, by an accelerated fixed-point iteration."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from zigzag.guidance.base import finite
from zigzag.guided import Asking
from zigzag.inversion.anderson import Anderson, norms
from zigzag.inversion.scheme import Found, Run, Scheme, descend
from zigzag.sampling import Generators
from zigzag.solvers import AffineStep, Solver

__all__ = ["FixedPoint", "Solved", "solve"]


@dataclass(frozen=True)
class FixedPoint(Scheme):
    r"""Inverts the solver's own steps: at each interval `i → j` it solves for the state that the step leads from.

    .. math:: x_i = g(x_i), \qquad g(x) = c\,(x_j - r) + d\,e(x, t_i)

    The plain iteration contracts by `|d|·Lip(e)`, which is 1 and more where there are few steps and a strong guidance.
    Anderson's acceleration converges further than that, but not everywhere; what is left of the equation is reported
    for each interval and sample, with the `|d|·Lip` that the iterates show. A sample that has converged is left alone.

    It runs on every solver, and the way down is the solver's own. The noise of stochastic steps is drawn on the way up
    and held. A multistep solver's `r` holds predictions of knots that the way up has not reached: the first sweep up
    takes its steps of first order, and each later one the memory of the one before, until all residuals are small.

    Args:
        tol: the residual `‖g(x) − x‖/‖g(x)‖` at which a sample is done.
        most: iterations an interval at most, of one evaluation each.
        anderson: how many differences of iterates are remembered; 0 is the plain iteration.
        damping: `β` in (0, 1]: how far each iterate follows its residual.
        sweeps: up the grid at most, of a multistep solver.

    Raises:
        TypeError, ValueError: for arguments out of range.

    Source: Pan et al. 2023 (AIDI); Anderson 1965; Z-Sampling, eq. 4, is its first iterate.
    """

    tol: float = 1e-5
    most: int = 50
    anderson: int = 3
    damping: float = 1.0
    sweeps: int = 30

    def __post_init__(self) -> None:
        if not finite("tol", self.tol) > 0:
            raise ValueError(f"tol must be positive, got {self.tol!r}")
        for name, least in (("most", 1), ("anderson", 0), ("sweeps", 1)):
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
        """One sweep up; with memory as many as its residuals take."""
        swept = yield from self._sweep(run, x, None)
        if run.solver.memory:
            for _ in range(self.sweeps):
                swept = swept.judged(run)
                if float(swept.residual().max()) <= self.tol:
                    break
                swept = yield from self._sweep(run, x, swept)
            swept = swept.judged(run)
        return Found((swept.states[0],), residual=swept.residual(), contraction=swept.contraction())

    def down(self, run: Run, found: Found) -> Asking[Tensor]:
        """The solver's own way."""
        return (yield from descend(run, found.states[0]))

    def _sweep(self, run: Run, x: Tensor, before: _Swept | None) -> Asking[_Swept]:
        """From the last knot up, with the memory of the sweep before; without one, of first order."""
        solver, solved = run.solver, list[Solved]()
        memory = () if before is None else before.memory(solver)
        for i in reversed(range(len(solver))):
            left = range(i) if before is not None else ()
            step, r = run.step(i, left), run.remainder(i, memory[:i], left)
            start = x if before is None else before.states[i]
            solved.append((yield from solve(run, i, step, x, r, start, self)))
            x = solved[-1].x
        return _Swept([*(each.x for each in solved[::-1]), x if before is None else before.states[-1]], solved[::-1])


class Solved(NamedTuple):
    """An interval solved: the state, the predictions at it, and by sample the residual and the contraction shown."""

    x: Tensor
    e_first: Tensor
    e: Tensor
    residual: Tensor
    contraction: Tensor


class _Swept(NamedTuple):
    """A way up: the states at all knots, and what was solved at each interval."""

    states: list[Tensor]
    solved: list[Solved]

    def memory(self, solver: Solver) -> list[Tensor]:
        """What a way down through these states would remember, by knot."""
        return [solver.remember(i, each.x, each.e_first) for i, each in enumerate(self.solved)]

    def judged(self, run: Run) -> _Swept:
        """The same, its residuals those of the way down: each step with the memory that these states leave."""
        memory, judged = self.memory(run.solver), list[Solved]()
        for i, each in enumerate(self.solved):
            step, r = run.step(i, range(i)), run.remainder(i, memory[:i], range(i))
            judged.append(each._replace(residual=_residual(each.x, step.inverse(self.states[i + 1], each.e, r))))
        return self._replace(solved=judged)

    def residual(self) -> Tensor:
        return torch.stack([each.residual for each in self.solved])

    def contraction(self) -> Tensor:
        return torch.stack([each.contraction for each in self.solved])


def solve(
    run: Run, i: int, step: AffineStep, x_j: Tensor, r: Tensor | None, x: Tensor, scheme: FixedPoint
) -> Asking[Solved]:
    """The state at knot `i` from which the step leads to `x_j`, iterated from `x`, with the best residual found."""
    mix = Anderson(scheme.anderson, scheme.damping)
    best: Solved | None = None
    previous: tuple[Tensor, Tensor] | None = None
    for n in range(scheme.most):
        e_first, e = yield from run.predictions(x, i)
        g = step.inverse(x_j, e, r)
        residual = _residual(x, g)
        shown = _shown(previous, x, g) if previous is not None else torch.zeros_like(residual)
        previous = x, g
        this = Solved(x, e_first, e, residual, shown)
        best = this if best is None else _better(best, this)
        done = best.residual <= scheme.tol
        if n + 1 == scheme.most or bool(done.all()):
            break
        x = torch.where(_left(done, x), best.x, mix(x, g - x))
    assert best is not None
    return best


def _residual(x: Tensor, g: Tensor) -> Tensor:
    """`‖g − x‖/‖g‖` by sample; infinite where it is not a number."""
    size = norms(g).clamp_min(torch.finfo(g.dtype).tiny)
    return torch.nan_to_num(norms(g - x) / size, nan=math.inf)


def _shown(previous: tuple[Tensor, Tensor], x: Tensor, g: Tensor) -> Tensor:
    """`‖Δg‖/‖Δx‖` of two iterates, at most `|d|·Lip`; 0 where they are so near that rounding would show."""
    moved, followed = norms(x - previous[0]), norms(g - previous[1])
    far = moved > math.sqrt(torch.finfo(x.dtype).eps) * norms(x)
    return torch.where(far & followed.isfinite(), followed / moved, torch.zeros_like(moved))


def _better(best: Solved, this: Solved) -> Solved:
    """By sample the one of the smaller residual, and the largest contraction that was shown."""
    smaller = this.residual < best.residual
    x, e_first, e = (torch.where(_left(smaller, new), new, old) for new, old in zip(this[:3], best[:3], strict=True))
    residual = torch.where(smaller, this.residual, best.residual)
    return Solved(x, e_first, e, residual, torch.maximum(best.contraction, this.contraction))


def _left(mask: Tensor, x: Tensor) -> Tensor:
    return mask.reshape(-1, *[1] * (x.ndim - 1))
