"""The exact inverse of a step under the model, by an accelerated fixed-point iteration to a tolerance."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from zigzag.anderson import Anderson, by_sample, relative, stretch
from zigzag.guided import Asking
from zigzag.moves import Invert, Move, Tol
from zigzag.solvers import AffineStep

__all__ = ["Refined", "Solved", "solve"]


class Solved(NamedTuple):
    """The best iterate of each sample.

    Attributes:
        x: the state, `(B, …)`. e: the prediction at it, so that `c·(x_j − r) + d·e` is the next.
        residual: `‖g(x) − x‖/‖g(x)‖`. contraction: the largest `|d|·Lip(e)` that the iterates showed. Both `(B,)`.
        converged: whether every sample is below the tolerance.
    """

    x: Tensor
    e: Tensor
    residual: Tensor
    contraction: Tensor
    converged: bool = False


Ask: TypeAlias = Callable[[Tensor], Asking[Sequence[Tensor]]]


def solve(ask: Ask, step: AffineStep, x_j: Tensor, r: Tensor | None, tol: Tol) -> Asking[Solved]:
    """The state from which `step` leads to `x_j`, holding `r`; looked for from `x_j` on, at one host sync an iteration.

    `ask(x)` asks for predictions at `x`, of which the step is made with the last.
    """
    mix, x = Anderson(tol.anderson, tol.damping), x_j
    best: Solved | None = None
    previous: tuple[Tensor, Tensor] | None = None
    for n in range(tol.most):
        e = (yield from ask(x))[-1]
        g = step.inverse(x_j, e, r)
        shown = stretch(x - previous[0], g - previous[1], x) if previous is not None else x.new_zeros(len(x))
        previous = x, g
        best = _better(best, Solved(x, e, relative(g - x, g), shown))
        done = best.residual <= tol.tol
        if bool(done.all()):
            return best._replace(converged=True)
        if n + 1 < tol.most:
            x = torch.where(by_sample(done, x), best.x, mix(x, g - x))
    assert best is not None
    return best


def _better(best: Solved | None, this: Solved) -> Solved:
    """By sample the one of the smaller residual, and the largest contraction that was shown."""
    if best is None:
        return this
    smaller = this.residual < best.residual
    x, e = (torch.where(by_sample(smaller, new), new, old) for new, old in ((this.x, best.x), (this.e, best.e)))
    residual = torch.where(smaller, this.residual, best.residual)
    return Solved(x, e, residual, torch.maximum(best.contraction, this.contraction))


class Refined:
    """The inversions of a walk that are refined to a tolerance. After the last one it is said which did not converge.

    Args:
        path: of the walk; None, if it is not known beforehand: then whoever makes it calls `ended`.
    """

    def __init__(self, path: Sequence[Move] | None) -> None:
        known = () if path is None else path
        self._count = self._left = sum(isinstance(move, Invert) and isinstance(move.refine, Tol) for move in known)
        self._open = path is None
        self._missed: list[tuple[Invert, Tensor, Tensor]] = []

    def __call__(
        self, move: Invert, tol: Tol, ask: Ask, step: AffineStep, x_j: Tensor, r: Tensor | None
    ) -> Asking[tuple[Tensor, Tensor]]:
        """The state that `step` leads from to `x_j`, and the prediction that the inverse is made with."""
        solved = yield from solve(ask, step, x_j, r, tol)
        if not solved.converged:
            self._missed.append((move, solved.residual.detach(), solved.contraction.detach()))
        if self._open:
            self._count += 1
        else:
            self._left -= 1
            if not self._left:
                self.ended()
        return step.inverse(x_j, solved.e, r), solved.e

    def ended(self) -> None:
        """Warns of the inversions that did not converge, if any."""
        if not self._missed:
            return
        moves, residuals, contractions = zip(*self._missed, strict=True)
        residual, contraction = torch.stack(residuals), torch.stack(contractions)
        tols = residual.new_tensor([move.refine.tol for move in moves])
        samples, k = int((residual > tols[:, None]).any(0).sum()), int(residual.amax(1).argmax())
        warnings.warn(
            f"{len(moves)} of {self._count} inversions did not converge, for {samples} of {residual.shape[1]} samples: "
            f"{moves[k]!r} is left with a residual of {float(residual[k].max()):.2g}, and |d|·Lip is "
            f"{float(contraction[k].max()):.2g} or more there; more steps, a weaker guidance or damping help",
            stacklevel=6,
        )
