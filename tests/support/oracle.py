"""A walk written out in a straight line: what is remembered is a list, what is drawn a dictionary, and no more.

It carries a bound on the rounding of its own state along (running error analysis), so that a walk has to be as near.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from support.held import level, says
from support.predictors import LIP, field
from support.sampling import COND, EPS, UNCOND
from zigzag.moves import Denoise, Invert, Move, Renoise, Shift
from zigzag.solvers import AdamsBashforth, Solver

Draw = Callable[[Tensor], Tensor]
Predictor = Callable[[Tensor, Tensor, Tensor], Tensor]
# What a walk might do instead: read a queue that no inversion rewinds, or what only overwriting forgets; read the
# memory of the knot before; draw anew for each inversion; invert a step of another order; keep what a Renoise forgets.
Mutant = Literal["", "queue", "stale", "wrong knot", "fresh inverse", "another order", "kept by a Renoise"]


class Near(NamedTuple):
    """A tensor, and how far rounding may have taken it."""

    value: Tensor
    off: float

    @property
    def size(self) -> float:
        return float(self.value.detach().abs().max())


def total(*terms: tuple[float, Near]) -> Near:
    """Σ k·v: each term is off by |k| times what its value is, and by 8 roundings of its own."""
    value = sum(k * near.value for k, near in terms)
    return Near(value, sum(abs(k) * (near.off + 8 * EPS * near.size) for k, near in terms))


def guided(x: Near, t: Tensor, w: float, fn: Predictor = field) -> Near:
    """The field of `support.predictors` under CFG: Lipschitz with |w| + |1 − w| times its constant."""
    e_u, e_c = fn(x.value, t, UNCOND), fn(x.value, t, COND)
    spread = abs(w) + abs(1 - w)
    return Near(e_u + w * (e_c - e_u), spread * (LIP * x.off + 8 * EPS * (1 + x.size)))


def remembered(solver: Solver, i: int, x: Near, e: Near) -> Near:
    """What the prediction says: ε for the solvers in noise form, x₀ for the others."""
    alpha, sigma = level(solver, i).tolist()
    e_x, e_eps = says(solver.prediction, alpha, sigma).tolist()  # e = e_x·x₀ + e_eps·ε, x = α·x₀ + σ·ε
    det = alpha * e_eps - sigma * e_x
    if isinstance(solver, AdamsBashforth):
        return total((-e_x / det, x), (alpha / det, e))
    return total((e_eps / det, x), (-sigma / det, e))


def straight(
    path: Sequence[Move],
    solver: Solver,
    x: Tensor,
    strong: float,
    weak: float,
    draw: Draw,
    mutant: Mutant = "",
    weak_fn: Predictor = field,
    shrink: float = 1.0,
) -> list[Near]:
    """The state after each move; `shrink` is what a callback multiplies it by."""
    state, states = Near(x, 0.0), []
    memory: list[tuple[int, Near]] = []  # (knot, what it left), the latest last
    queue: list[Near] = []  # all that was ever left
    noises: dict[tuple[int, int], Tensor] = {}
    gap: Near | None = None

    def told(i: int) -> Tensor:
        return solver.times[i].to(x.dtype if solver.times.is_floating_point() else torch.int64).expand(len(x))

    def holding(i: int, j: int, up: bool = False, for_good: bool = False) -> tuple[Any, list[tuple[float, Near]]]:
        """The step i → j, and the terms of its remainder."""
        read = [] if mutant == "another order" and up else [(knot, m) for knot, m in memory if knot < i]
        step = solver.step(i, j, [knot for knot, _ in read])
        values = queue if mutant == "queue" else [m for _, m in read]
        latest = values[::-1] if mutant != "wrong knot" else [*values[-2::-1], *values[:1]]
        terms = list(zip(step.memory, latest, strict=False))
        if step.noise:
            if (mutant == "fresh inverse" and up) or (solver.fresh_noise and for_good) or (i, j) not in noises:
                noises[i, j] = draw(state.value)
            terms.append((step.noise, Near(noises[i, j], 0.0)))
        return step, terms

    for k, move in enumerate(path):
        match move:
            case Denoise(i, j):
                e = guided(state, told(i), strong)
                gap = total((1.0, e), (-1.0, guided(state, told(i), weak, weak_fn)))
                step, terms = holding(i, j, for_good=all(later.end > i for later in path[k + 1 :]))
                m = remembered(solver, i, state, e) if solver.memory else state
                state = total((step.a, state), (step.b, e), *terms)
                memory = sorted([*((knot, old) for knot, old in memory if knot != i), (i, m)], key=lambda left: left[0])
                queue.append(m)
            case Invert(_, i, refine):
                j = move.start
                if mutant != "stale":
                    memory = [(knot, m) for knot, m in memory if knot < i]
                step, terms = holding(i, j, up=True)
                at, base = state, total((1.0, state), *((-c, m) for c, m in terms))
                for _ in range(1 + refine):
                    at = total((1 / step.a, base), (-step.b / step.a, guided(at, told(i), weak, weak_fn)))
                state = at
            case Shift(i, fresh):
                if fresh or gap is None:
                    gap = total((1.0, guided(state, told(i), strong)), (-1.0, guided(state, told(i), weak, weak_fn)))
                step = solver.step(i, i + 1, [knot for knot, _ in memory])
                state = total((1.0, state), (step.b / step.a, gap))
            case Renoise(j, i):
                up = float(solver.alphas[i] / solver.alphas[j])
                s = (float(solver.sigmas[i]) ** 2 - (up * float(solver.sigmas[j])) ** 2) ** 0.5
                state = total((up, state), (s, Near(draw(state.value), 0.0)))
                if mutant != "kept by a Renoise":
                    memory, noises = [], {interval: z for interval, z in noises.items() if interval[0] < i}
        state = state if shrink == 1 else total((shrink, state))
        states.append(state)
    return states
