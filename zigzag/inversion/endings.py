"""Grids whose last knot has a time, for schemes that ask the model there."""

from __future__ import annotations

import torch
from torch import Tensor

from zigzag.solvers import AffineStep, Inner, Solver
from zigzag.solvers.grids import host

__all__ = ["Ended", "ending_above", "telling_last"]


class Ended(Solver):
    """The first knots of another solver, with its steps, and a time for the last of them.

    `ending_above` and `telling_last` make one.

    Attributes:
        last_time: what the model is told at the last knot; the first of `inner_times`.
    """

    def __init__(self, solver: Solver, last: int, last_time: float) -> None:
        self.prediction, self.memory, self.fresh_noise = solver.prediction, solver.memory, solver.fresh_noise
        self.solver, self.last_time = solver, last_time
        times = solver.times
        if isinstance(last_time, float) and not last_time.is_integer():
            times = times.double()  # what is told is of one kind
        super().__init__(
            solver.alphas[: last + 1], solver.sigmas[: last + 1], times[:last], host([last_time], times.dtype)
        )

    def __repr__(self) -> str:
        return f"{self.solver!r} as far as knot {len(self)}, told {self.last_time:g} there"

    @property
    def asked_between(self) -> list[float]:
        """None: the time behind those of the knots is that of the last knot."""
        return []

    def coefficients(self, i: int, j: int, remembered: tuple[int, ...]) -> AffineStep:
        """Those of the other solver."""
        return self.solver.coefficients(i, j, remembered)

    def remember(self, i: int, x: Tensor, e: Tensor) -> Tensor:
        """As the other solver does."""
        return self.solver.remember(i, x, e)

    def inner(self, i: int, j: int) -> Inner | None:
        """Refused, where the other solver makes two evaluations: their times are not the grid's."""
        if self.solver.inner(i, j) is not None:
            raise ValueError(f"the step {i} -> {j} of {self.solver!r} makes two evaluations; take DDIM on its grid")
        return None


def ending_above(solver: Solver) -> Solver:
    """The grid of `solver` without its last knot: it ends at knot `T − 1`, which keeps its time.

    Data on it are states at that knot: nearly clean, where the grid is fine. Predictors made for `solver` know all its
    times.

    Raises:
        ValueError: for a grid of one step.
    """
    if len(solver) < 2:
        raise ValueError(f"a grid of one step has none to leave out, got {solver!r}")
    last = len(solver) - 1
    return Ended(solver, last, solver.times[last].item())


def telling_last(solver: Solver, time: float) -> Solver:
    """The grid of `solver`, with the time that the model is told at its last knot.

    Stable Diffusion's ends at training time 0 (`telling_last(DDIM.stable_diffusion(50), 0)`), a flow at `σ = 0`.

    Args:
        time: an integer where the model was trained on integers.

    Raises:
        ValueError: for a time that is not finite, or is one of the grid's already.
    """
    if not torch.isfinite(torch.tensor(float(time))):
        raise ValueError(f"time must be finite, got {time!r}")
    if time in solver.knots[2]:
        raise ValueError(f"time {time:g} is that of knot {solver.knots[2].index(time)} of {solver!r} already")
    return Ended(solver, len(solver), time)
