"""What a solver is held to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from zigzag.methods import Standard
from zigzag.sampling import sample
from zigzag.solvers import AffineStep, Solver
from zigzag.solvers.predictions import level_after, pair_form
from zigzag.testing.gaussian import GAUSSIAN, global_error, regressed
from zigzag.testing.steps import check_collapse, check_duality, check_round_trips, near

__all__ = ["check_solver"]

SLACK = 1e-9  # of the terms that a state is the sum of


def check_solver(
    solver: Solver,
    *,
    marginal: bool = True,
    order: int | None = None,
    refined: Callable[[int], Solver] | None = None,
) -> None:
    """Holds a solver to what the loop takes for granted of its steps.

    For every step between neighbours, with all that may be remembered and with nothing: it is dual to its inverse
    (Lemma 1), both undo each other within their rounding in float64 and float32, a zigzag over it is its shift, what is
    remembered is linear in state and prediction, and on a true pair `(x₀, ε)` it leads to `α_j·x₀ + σ_j·ε`.

    Args:
        solver: on any grid, with a prediction of its own.
        marginal: whether its steps are to keep the marginals. `LCM` and the large variance of `DDPM` do not.
        order: of the global error, measured on a Gaussian whose flow is known; of a solver without noise.
        refined: gives the solver of a number of steps, for `order`. The grid should end above clean data, or be smooth
            up to it, and begin below pure noise where the order is above 1.

    Raises:
        AssertionError: for what does not hold, with the step. ValueError: for steps that do not exist.
    """
    generator = torch.Generator().manual_seed(0)
    for i in range(len(solver)):
        for remembered in {tuple(range(i)), ()}:
            step = solver.step(i, None, remembered)
            says = f"{solver!r}, step {i} -> {i + 1}" + (f" with {len(step.memory)} remembered" if step.memory else "")
            if abs(float(step.a)) > 1e-12:
                _check_inverse(step, says, generator)
            if marginal:
                _check_marginal(solver, step, i, remembered, says)
        _check_linear(solver, i, generator)
    if order is not None:
        if refined is None:
            raise TypeError("order= needs refined=, which gives the solver of a number of steps")
        _check_order(refined, order)


def _check_inverse(step: AffineStep, says: str, generator: torch.Generator) -> None:
    check_duality(step, says)
    for dtype in (torch.float64, torch.float32):
        x, e, e_w, m, z = torch.randn(5, 2, 3, 4, generator=generator, dtype=torch.float64).to(dtype)
        r = step.remainder([(k + 1) * m for k in range(len(step.memory))], z if step.noisy else None)
        check_round_trips(partial(step.forward, r=r), partial(step.inverse, r=r), step, x, e, r, says)
        if dtype == torch.float64:
            check_collapse(step.shift, step, x, e, e_w, r, says)


def _true(solver: Solver, alpha: float, sigma: float) -> tuple[Tensor, Tensor]:
    """State and true prediction at a level, of the two samples x₀ = 1, ε = 0 and x₀ = 0, ε = 1: their coefficients."""
    u, v = pair_form(solver.prediction, alpha, sigma)
    x, e = torch.tensor([[alpha, sigma], [u, v]], dtype=torch.float64, device="cpu").unsqueeze(-1)
    return x, e


def _check_marginal(solver: Solver, step: AffineStep, i: int, remembered: Sequence[int], says: str) -> None:
    alphas, sigmas, _ = solver.knots
    x, e = _true(solver, alphas[i], sigmas[i])
    latest = list(remembered)[::-1][: len(step.memory)]
    left = [solver.remember(n, *_true(solver, alphas[n], sigmas[n])) for n in latest]
    parts = [float(step.a) * x, *(float(k) * m for k, m in zip(step.memory, left, strict=True))]
    inner = solver.inner(i, i + 1)
    if inner is None:
        parts.append(float(step.b) * e)
    else:
        _, second = _true(solver, *level_after(inner.first, solver.prediction, alphas[i], sigmas[i]))
        parts += [float(step.b) * (1 - inner.weight) * e, float(step.b) * inner.weight * second]
    size = sum(float(part.abs().sum()) for part in parts) + 1 + sigmas[i] / max(alphas[i], 1e-3)
    end, wanted = sum(parts, torch.zeros_like(x)), _true(solver, alphas[i + 1], sigmas[i + 1])[0]
    noise = float(step.noise)
    near(end[0], wanted[0], SLACK * size, f"{says}: a true pair is led to another share of x0 than alpha_j")
    what = "noise" if noise else "eps"
    near(
        (end[1] ** 2 + noise**2).sqrt() if noise else end[1], wanted[1], SLACK * size * (1e3 if noise else 1),
        f"{says}: a true pair is led to another share of {what} than sigma_j",
    )  # fmt: skip


def _check_linear(solver: Solver, i: int, generator: torch.Generator) -> None:
    x, e, y, f = torch.randn(4, 2, 3, generator=generator, dtype=torch.float64)
    m, n = solver.remember(i, x, e), solver.remember(i, y, f)
    if m.shape != x.shape:
        raise AssertionError(f"{solver!r}: remember() makes {tuple(m.shape)} of {tuple(x.shape)} at knot {i}")
    both = solver.remember(i, 2 * x - y, 2 * e - f)
    near(both, 2 * m - n, 1e-12 * (1 + m.abs() + n.abs() + both.abs()), f"{solver!r}: remember() is not linear")


def _check_order(refined: Callable[[int], Solver], order: int) -> None:
    def integrate(solver: Solver, x: Tensor) -> Tensor:
        return sample(GAUSSIAN.predictor(solver), x, solver, Standard(), cond=None, strong=1.0)

    found = regressed((32, 64, 128), lambda count: global_error(refined(count), integrate))
    if not order - 0.25 < found < order + 0.6:
        raise AssertionError(f"{refined(32)!r} has the order {found:.2f} on a Gaussian, not {order}")
