"""EDICT: two states that are stepped in turn, each with a prediction at the other, and mixed."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from zigzag.guidance.base import finite
from zigzag.guided import Asking
from zigzag.inversion.scheme import Pair, Reversible, Run, need_one_step
from zigzag.solvers import Solver
from zigzag.solvers.affine import combine

__all__ = ["EDICT"]


@dataclass(frozen=True)
class EDICT(Reversible):
    r"""Exact diffusion inversion by coupled transformations: two evaluations a step, order 1.

    .. math::
        x' = a\,x + b\,e(y, t_i), \quad y' = a\,y + b\,e(x', t_i), \quad
        x^+ = p\,x' + (1 - p)\,y', \quad y^+ = p\,y' + (1 - p)\,x^+

    The four lines are solved in reverse order for the way up. `x` and `y` change roles from step to step. Both begin as
    the data, or as the noise. It runs on every deterministic one-step solver, on every prediction; the model is never
    asked at the last knot.

    Args:
        p: in (0, 1]: how much each state keeps of itself. A mixing step brings the two closer by `p²`, so that the way
            up parts them, and multiplies rounding by `p^(−2T)`.

    Raises:
        TypeError, ValueError: for a `p` that is not a number in (0, 1].

    Source: Wallace et al. 2022 (EDICT), section 4.
    """

    p: float = 0.93

    def __post_init__(self) -> None:
        if not 0 < finite("p", self.p) <= 1:
            raise ValueError(f"p must lie in (0, 1], got {self.p!r}")

    def check(self, solver: Solver) -> None:
        """Raises ValueError unless the solver is deterministic, of one step and invertible."""
        need_one_step(self, solver)

    def growth(self, solver: Solver) -> float:
        """`p^(−2T)`."""
        return float(self.p ** (-2 * len(solver)))

    def forward(self, run: Run, i: int, x: Tensor, y: Tensor) -> Asking[Pair]:
        """The four lines."""
        step, p = run.step(i), self.p
        x, y = _roles(i, x, y)
        x = step.forward(x, (yield from run.predict(y, i)))
        y = step.forward(y, (yield from run.predict(x, i)))
        x = combine(p, x, 1 - p, y)
        y = combine(p, y, 1 - p, x)
        return _roles(i, x, y)

    def inverse(self, run: Run, i: int, x: Tensor, y: Tensor) -> Asking[Pair]:
        """The four lines, each solved for what it made, the last one first."""
        step, p = run.step(i), self.p
        x, y = _roles(i, x, y)
        y = (y - (1 - p) * x) / p
        x = (x - (1 - p) * y) / p
        y = step.inverse(y, (yield from run.predict(x, i)))
        x = step.inverse(x, (yield from run.predict(y, i)))
        return _roles(i, x, y)


def _roles(i: int, x: Tensor, y: Tensor) -> Pair:
    return (y, x) if i % 2 else (x, y)
