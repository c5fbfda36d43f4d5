"""Recorded residuals: any trajectory up, and what each step of the solver lacks of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from zigzag.guided import Asking
from zigzag.inversion.scheme import Found, Run, Scheme, descend, remembering
from zigzag.sampling import Generators, noise_like
from zigzag.solvers import Solver
from zigzag.solvers.affine import combine
from zigzag.solvers.predictions import first_order
from zigzag.solvers.solver import SMALLEST_A

__all__ = ["Recorded"]


@dataclass(frozen=True)
class Recorded(Scheme):
    r"""Direct inversion and edit-friendly inversion: the way down adds what was missing on the way up.

    A trajectory `x_T, …, x_0` is made of the data, and at each interval `i → j` of the solver's own way down, with its
    memory, is recorded

    .. math:: \rho_i = x_j - (a\,x_i + b\,e(x_i, t_i) + r)

    Under the prompt that it was recorded with, the way down that adds `ρ_i` comes back to the data but for rounding,
    whatever the solver; the edit is another prompt. `ρ` takes the place of the noise of stochastic steps, which draw
    none: for the ancestral solvers `ρ_i` over their noise is the edit-friendly noise map.

    Args:
        trajectory: "naive": DDIM steps undone by the prediction at the state that each begins from (direct inversion);
            "independent": `α_i·x + σ_i·ε_i` with a noise of its own at each knot (edit-friendly).

    Raises:
        ValueError: for another trajectory.

    It holds `T` residuals and a state. Source: Ju et al. 2023 (direct inversion); Huberman-Spiegelglas et al. 2023
    (edit-friendly DDPM inversion).
    """

    trajectory: Literal["naive", "independent"] = "naive"

    def __post_init__(self) -> None:
        if self.trajectory not in ("naive", "independent"):
            raise ValueError(f"trajectory must be 'naive' or 'independent', got {self.trajectory!r}")

    def check(self, solver: Solver) -> None:
        """Raises ValueError where a step does not exist, or a naive trajectory has none to undo."""
        alphas, sigmas, _ = solver.knots
        for i in range(len(solver)):
            solver.step(i, i + 1, range(i))
            if self.trajectory == "independent":
                continue
            plain = first_order(solver.prediction, alphas[i], sigmas[i], alphas[i + 1], sigmas[i + 1])
            if not abs(float(plain.a)) > SMALLEST_A:
                raise ValueError(
                    f"the step {i} -> {i + 1} of {solver!r} has no inverse to go up by; take "
                    "Recorded('independent'), or a solver of another prediction"
                )

    def up(self, run: Run, x: Tensor, generator: Generators) -> Asking[Found]:
        """The trajectory, and what the way down lacks of it."""
        if self.trajectory == "naive":
            states = yield from _naive(run, x)
        else:
            states = independent(run.solver, x, generator)
        residuals: list[Tensor] = []
        memory: list[Tensor] = []
        for i, x in enumerate(states[:-1]):
            e_first, e = yield from run.predictions(x, i)
            step, r = run.step(i, range(i)), run.remainder(i, memory, range(i))
            memory = remembering(run.solver, memory, i, x, e_first)
            residuals.append(states[i + 1] - step.forward(x, e, r))
        return Found((states[0],), residuals=torch.stack(residuals))

    def down(self, run: Run, found: Found) -> Asking[Tensor]:
        """The solver's own way, with `ρ_i` at each interval."""
        return (yield from descend(run, found.states[0], found.residuals))


def _naive(run: Run, x: Tensor) -> Asking[list[Tensor]]:
    """`x_i = c·x_j + d·e(x_j, t_i)` with the step of DDIM."""
    alphas, sigmas, _ = run.solver.knots
    states = [x]
    for i in reversed(range(len(run.solver))):
        step = first_order(run.solver.prediction, alphas[i], sigmas[i], alphas[i + 1], sigmas[i + 1])
        x = step.inverse(x, (yield from run.predict(x, i)))
        states.append(x)
    return states[::-1]


def independent(solver: Solver, x: Tensor, generator: Generators) -> list[Tensor]:
    """`α_i·x + σ_i·ε_i` at the knots above the last, with independent noises."""
    alphas, sigmas, _ = solver.knots
    noised = [combine(alphas[i], x, sigmas[i], noise_like(x, generator)) for i in range(len(solver))]
    return [*noised, x]
