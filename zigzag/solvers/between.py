"""Levels between the knots of a grid, and what the model is told there, as far as the grid tells."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from zigzag.solvers.ddim import DDIM
from zigzag.solvers.schedules import VP, Cosine
from zigzag.solvers.solver import Solver

__all__ = ["Between", "below_knots", "midway"]

CLOSE = 1e-9  # of the largest time: what float64 leaves of a rule that the grid was made by


class Between(NamedTuple):
    """Levels `(α, σ)` between knots, float64 on the host, and the times that the model is told at them."""

    alphas: Tensor
    sigmas: Tensor
    times: Tensor


def midway(solver: Solver, who: str) -> Between:
    """The levels between knot `i` and `i + 1` at the geometric means of their `k = σ/α`; none before clean data.

    From pure noise, where `k` is infinite, it is the mean of σ on a flow and of the angle on the circle. On a grid of
    integer times that was made of a training table, it is the table's level nearest to that in `log k`.

    Raises:
        ValueError: naming `who` asks, where the grid does not tell the levels or the times between its knots, or two
            times of the table have none between them.
    """
    count = len(solver) - int(solver.sigmas[-1] == 0)
    if (table := _table(solver)) is not None:
        return _of_table(solver, table, count, who)
    shape = _shape(solver, who)
    k = solver.sigmas / solver.alphas
    mean = (k[:count] * k[1 : count + 1]).sqrt()
    u = solver.sigmas if shape == "flow" else torch.atan2(solver.sigmas, solver.alphas)
    half = (u[:count] + u[1 : count + 1]) / 2
    mean = torch.where(mean.isfinite(), mean, half / (1 - half) if shape == "flow" else half.tan())
    alphas = _alpha_of(shape, mean)
    sigmas = mean * alphas
    return Between(alphas, sigmas, _times(solver, alphas, sigmas, who) if count else solver.times[:0])


def below_knots(solver: Solver, gamma: float, who: str) -> tuple[Tensor, Tensor]:
    """`(α, σ)`, `(T,)`: the levels of the times `(1 − γ)·t_j` of knots `j = 1…T`; for the last, the knot itself.

    Raises:
        ValueError: naming `who` asks, where the times are not in proportion to σ, to σ/α or to the angle, nor those of
            a continuous schedule.
    """
    if len(solver) == 1:
        return solver.alphas[-1:], solver.sigmas[-1:]
    shape = _shape(solver, who)
    name = next((name for name in ("σ", "k", "φ") if _fit(solver, name, affine=False) is not None), None)
    if name is not None:
        u = (1 - gamma) * _rule(name, solver.alphas, solver.sigmas)[1:-1]
        k = {"σ": lambda u: u / _alpha_at(shape, u), "k": lambda u: u, "φ": lambda u: u.tan()}[name](u)
        alphas = _alpha_of(shape, k)
        sigmas = k * alphas
    elif (schedule := _schedule(solver)) is not None:
        alphas, sigmas = schedule.levels((1 - gamma) * solver.times[1:].double())
    else:
        raise ValueError(
            f"{who} needs the levels between the knots, which the times of {solver!r} do not tell: they are not in "
            "proportion to σ, σ/α or the angle, nor those of vp_grid or cosine_grid; use TCD.from_alphas_cumprod, or "
            "pass the levels to its constructor"
        )
    return torch.cat([alphas, solver.alphas[-1:]]), torch.cat([sigmas, solver.sigmas[-1:]])


def _schedule(solver: Solver) -> VP | Cosine | None:
    """The continuous schedule that the knots are of, where it is one of those of `zigzag.solvers.schedules`."""
    t, alphas, sigmas = solver.times.double(), solver.alphas[:-1], solver.sigmas[:-1]
    if len(t) < 3:  # two tell any
        return None
    for kind in (VP, Cosine):
        found = kind.through(t, alphas, sigmas)
        if (found.times(alphas, sigmas) - t).abs().max() <= CLOSE * t.abs().max():
            return found
    return None


def _table(solver: Solver) -> Tensor | None:
    return solver.alphas_cumprod if isinstance(solver, DDIM) else None


def _of_table(solver: Solver, table: Tensor, count: int, who: str) -> Between:
    abar = table.clamp(1e-300, 1 - 1e-16)
    log_k = ((1 - abar) / abar).log() / 2
    ends = [*(log_k[t].item() for t in solver.times.tolist()), 0.0]
    if count == len(solver):
        ends[-1] = math.log(float(solver.sigmas[-1] / solver.alphas[-1]))
    told = []
    for i in range(count):
        inside = ((log_k < ends[i] - CLOSE) & (log_k > ends[i + 1] + CLOSE)).nonzero().flatten()
        if not len(inside) and i == len(solver) - 1:
            break  # the last step is then Euler's, as one onto clean data is
        if not len(inside):
            raise ValueError(
                f"{who}: the training table has no time between {solver.times[i]} and {solver.times[i + 1]}, knots {i} "
                f"and {i + 1} of {solver!r}; take fewer steps"
            )
        told.append(int(inside[(log_k[inside] - (ends[i] + ends[i + 1]) / 2).abs().argmin()]))
    times = torch.tensor(told, dtype=torch.int64, device="cpu")
    return Between(table[times].sqrt(), (1 - table[times]).sqrt(), times)


def _shape(solver: Solver, who: str) -> str:
    """What holds of the grid's levels, and so of those between."""
    one = torch.ones_like(solver.alphas)
    for name, sums in (
        ("α = 1", solver.alphas),
        ("flow", solver.alphas + solver.sigmas),
        ("circle", solver.alphas**2 + solver.sigmas**2),
    ):
        if torch.allclose(sums, one, rtol=0, atol=1e-6):
            return name
    raise ValueError(
        f"{who} needs the levels between the knots, and those of {solver!r} keep neither alpha = 1 nor alpha + sigma = "
        "1 nor alpha² + sigma² = 1; pass the levels to its constructor"
    )


def _alpha_of(shape: str, k: Tensor) -> Tensor:
    """α where `σ/α = k`."""
    return {"α = 1": torch.ones_like(k), "flow": 1 / (1 + k), "circle": (1 + k**2).rsqrt()}[shape]


def _alpha_at(shape: str, sigma: Tensor) -> Tensor:
    """α at σ."""
    return {"α = 1": torch.ones_like(sigma), "flow": 1 - sigma, "circle": (1 - sigma**2).clamp_min(0).sqrt()}[shape]


def _rule(name: str, alphas: Tensor, sigmas: Tensor) -> Tensor:
    """What the model may be told of a level, but for a factor and a summand."""
    match name:
        case "σ":
            return sigmas
        case "k":
            return sigmas / alphas
        case "φ":
            return torch.atan2(sigmas, alphas)
    return (sigmas / alphas).log()


def _fit(solver: Solver, name: str, affine: bool) -> tuple[float, float] | None:
    """`(p, q)` with `t = p + q·u` at every knot; None where it is not so, or there are too few knots to tell."""
    t = solver.times.double()
    u = _rule(name, solver.alphas[:-1], solver.sigmas[:-1])
    if not u.isfinite().all() or len(t) < 2 + affine:
        return None
    q = float((t[0] - t[-1]) / (u[0] - u[-1]) if affine else t[0] / u[0])
    p = float(t[0] - q * u[0]) if affine else 0.0
    return (p, q) if (p + q * u - t).abs().max() <= CLOSE * t.abs().max() else None


def _times(solver: Solver, alphas: Tensor, sigmas: Tensor, who: str) -> Tensor:
    for affine in (False, True):
        for name in ("σ", "k", "φ", "log k"):
            if (fit := _fit(solver, name, affine)) is not None:
                p, q = fit
                return p + q * _rule(name, alphas, sigmas)
    if (schedule := _schedule(solver)) is not None:
        return schedule.times(alphas, sigmas)
    raise ValueError(
        f"{who} asks the model between the knots, and the times of {solver!r} do not tell what it is told there: they "
        "are neither those of a training table (DDIM.from_alphas_cumprod, DDIM.stable_diffusion), of vp_grid or of "
        "cosine_grid, nor follow σ, σ/α, its logarithm or the angle, or there are too few of them to tell; pass the "
        "levels and times to its constructor"
    )
