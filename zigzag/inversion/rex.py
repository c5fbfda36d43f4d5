"""Rex: a reversible scheme made of any one-step solver, stochastic ones with their noise held."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from zigzag.guidance.base import finite
from zigzag.guided import Asking
from zigzag.inversion.endings import Ended
from zigzag.inversion.scheme import Pair, Reversible, Run, need_one_step
from zigzag.solvers import Solver
from zigzag.solvers.affine import combine
from zigzag.solvers.predictions import epsilon_form, x0_form

__all__ = ["Rex"]


@dataclass(frozen=True)
class Rex(Reversible):
    r"""Reversible exponential integrator of first order: two evaluations a step, order 1.

    With `Φ(x; e) = a·x + b·e + r` the step `i → j` of the solver, `r` its noise:

    .. math:: x_j = \Phi(\zeta\,x_i + (1 - \zeta)\,\hat x_i;\; e(\hat x_i, t_i)), \qquad
              \hat x_j = \Phi(\hat x_i;\; \hat e(x_j, t_j))

    `ê` is the prediction at knot `j` said as one of knot `i`: of the same x₀ and ε. (For ε, x₀ and flow it is the
    prediction itself.) Both lines are solved for `x̂_i` and `x_i`, the second one first. In the variables in which
    `a = 1` it is McCallum and Foster's scheme, of which Rex is the exponential form.

    The model is asked at the last knot, so that the grid has to have a time for it: `ending_above(solver)` leaves out
    the last knot, `telling_last(solver, time)` says what to tell. The noise of an interval is drawn once and held.

    Args:
        zeta: in (0, 1]: how much of the distance of the two states each step keeps; rounding grows by `ζ^(−T)`.

    Raises:
        TypeError, ValueError: for a zeta that is not a number in (0, 1].

    Source: Blasingame & Liu 2025 (Rex), after McCallum & Foster 2024.
    """

    zeta: float = 0.999

    def __post_init__(self) -> None:
        if not 0 < finite("zeta", self.zeta) <= 1:
            raise ValueError(f"zeta must lie in (0, 1], got {self.zeta!r}")

    def check(self, solver: Solver) -> None:
        """Raises ValueError unless the solver is of one step and invertible, with a time for its last knot."""
        if not isinstance(solver, Ended):
            sigma = solver.knots[1][-1]
            where = "clean data" if sigma == 0 else f"sigma {sigma:.3g}"
            least = solver.knots[1][-2]
            raise ValueError(
                f"Rex asks the model at the last knot, {where}, for which {solver!r} has no time; take "
                f"ending_above(solver), which ends at knot {len(solver) - 1} of it, where sigma is {least:.3g}, or "
                "telling_last(solver, time), where the model knows a time for it"
            )
        need_one_step(self, solver, noise=True)

    def growth(self, solver: Solver) -> float:
        """`ζ^(−T)`."""
        return float(self.zeta ** -len(solver))

    def forward(self, run: Run, i: int, x: Tensor, y: Tensor) -> Asking[Pair]:
        """The two lines; `y` is x̂."""
        step, r, zeta = run.step(i), run.remainder(i), self.zeta
        x = step.forward(combine(zeta, x, 1 - zeta, y), (yield from run.predict(y, i)), r)
        y = step.forward(y, (yield from _at_end(run, x, i)), r)
        return x, y

    def inverse(self, run: Run, i: int, x: Tensor, y: Tensor) -> Asking[Pair]:
        """The two lines solved, the second one first."""
        step, r, zeta = run.step(i), run.remainder(i), self.zeta
        y = step.inverse(y, (yield from _at_end(run, x, i)), r)
        x = step.inverse(x, (yield from run.predict(y, i)), r)
        return (x - (1 - zeta) * y) / zeta, y


def _at_end(run: Run, x: Tensor, i: int) -> Asking[Tensor]:
    """`ê(x_j, t_j)` for the step `i → j`."""
    e = yield from run.predict(x, i, told=i + 1)
    g, f = said_at(run.solver, i + 1, i)
    return e if (g, f) == (0, 1) else combine(g, x, f, e)


def said_at(solver: Solver, j: int, i: int) -> tuple[float, float]:
    """`(g, f)` with which `g·x + f·e` says of a state `x` and a prediction `e` at knot `j` what one at `i` says.

    Only v depends on the level: it is `v_i = α_i·ε − σ_i·x₀`.
    """
    if solver.prediction != "v":
        return 0.0, 1.0
    alphas, sigmas, _ = solver.knots
    s, r = map(float, epsilon_form("v", alphas[j], sigmas[j]))
    p, q = map(float, x0_form("v", alphas[j], sigmas[j]))
    return alphas[i] * s - sigmas[i] * p, alphas[i] * r - sigmas[i] * q
