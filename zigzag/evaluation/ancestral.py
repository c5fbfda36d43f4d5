"""Ancestral steps as paths: deterministic steps to a lower knot, and fresh noise back up to the next one."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from zigzag.checks import resolve_path
from zigzag.methods import Method
from zigzag.moves import Denoise, Invert, Move, Renoise
from zigzag.solvers import DDIM
from zigzag.zoo.learned import noise_table

__all__ = ["ancestral", "down_times"]


def ancestral(solver: DDIM, method: Method) -> tuple[DDIM, tuple[Move, ...]]:
    r"""The path of `method` with ancestral steps for its deterministic ones, and the finer grid that it runs on.

    With `k = σ/α`, an ancestral step `i → i + 1` (Euler ancestral, η = 1) goes down to `k_down` and back up by noise:

    .. math:: k_{up}^2 = k_{i+1}^2\,\frac{k_i^2 - k_{i+1}^2}{k_i^2}, \qquad
              k_{down}^2 = k_{i+1}^2 - k_{up}^2 = \Big(\frac{k_{i+1}^2}{k_i}\Big)^2

    Knot `i` of `solver` is knot `p_i` of the new grid, which also has a knot `q_i` at the training time nearest to
    `k_down`. Denoise(i, i + 1) becomes Denoise(p_i, q_i), Renoise(q_i, p_{i+1}); every other move keeps its two knots,
    so that Z-Sampling goes down by an ancestral step, up by the deterministic inverse, and down by another ancestral
    step. The last step is deterministic, as is one with no training time below its end to go down to. The rows are
    those of `method`, and the model is evaluated at the times of `solver` only.

    Args:
        solver: on Stable Diffusion's training times, as that of "shapes-unet".
        method: one whose moves are Denoise, Invert and Renoise: `Standard`, `ZSampling`, `EndToEnd`, `Resampling`.

    Returns:
        The grid and the moves, for `sample(eps_fn, x, grid, moves, …)`.

    Raises:
        TypeError: for a solver that is no `DDIM`, and for a method that shifts: a Shift stands for a deterministic
            zigzag.
        ValueError: for a grid that is not on the training times, and as `resolve_path`.

    Source: k-diffusion, `get_ancestral_step` with eta = 1; Z-Sampling, Table 15.
    """
    times = _training_times(solver)
    path = resolve_path(method, solver)
    down, T = down_times(solver), len(solver)
    alphas, sigmas = noise_table()
    # A grid may end above clean data: a down-knot is never below its last knot.
    above = (sigmas * solver.alphas[-1] > alphas * solver.sigmas[-1] * (1 + 1e-9)).tolist()
    union = sorted({*times, *(t for t in down if t is not None and above[t])}, reverse=True)
    grid = DDIM(torch.cat([alphas[union], solver.alphas[-1:]]), torch.cat([sigmas[union], solver.sigmas[-1:]]), union)
    knots = {t: p for p, t in enumerate(union)}
    p = [*(knots[t] for t in times), len(union)]
    q = [p[i + 1] if t is None else knots.get(t, len(union)) for i, t in enumerate(down)]

    moves: list[Move] = []
    for move in path:
        match move:
            case Denoise(i, j) if j == i + 1 <= T:
                moves.append(Denoise(p[i], q[i]))
                if q[i] != p[j]:
                    moves.append(Renoise(q[i], p[j]))
            case Invert(j, i, refine, coefficients):
                moved = None if coefficients is None else (p[coefficients[0]], p[coefficients[1]])
                moves.append(Invert(p[j], p[i], refine, moved))
            case Renoise(j, i):
                moves.append(Renoise(p[j], p[i]))
            case _:
                raise TypeError(f"method must go down knot by knot and never shift, got {method!r} with {move!r}")
    return grid, resolve_path(moves, grid)


def down_times(solver: DDIM) -> list[int | None]:
    """For each step of `solver`, the training time that its ancestral step goes down to; None where it has none.

    It is the one whose `log k` is nearest to that of `k_{i+1}²/k_i`. There is none below the first training time, nor
    in the last step, which ends at data.
    """
    alphas, sigmas = noise_table()
    log_k = (sigmas / alphas).log()
    times = _training_times(solver)
    down: list[int | None] = []
    for t, end in pairwise(times):
        nearest = int((log_k - (2 * log_k[end] - log_k[t])).abs().argmin())
        down.append(nearest if nearest < end else None)
    return [*down, None]


def _training_times(solver: DDIM) -> list[int]:
    if not isinstance(solver, DDIM):
        raise TypeError(f"solver must be a DDIM, got {solver!r}")
    t: Tensor = solver.times
    alphas, sigmas = noise_table()
    inside = not t.is_floating_point() and bool((t >= 0).all() and (t < len(alphas)).all())
    if not inside or not all(
        torch.allclose(mine[:-1], table[t]) for mine, table in ((solver.alphas, alphas), (solver.sigmas, sigmas))
    ):
        raise ValueError(
            f"solver must be on Stable Diffusion's training times, as DDIM.stable_diffusion(steps), got {solver!r}"
        )
    times: list[int] = t.tolist()
    return times
