"""The states of all knots at once, where a step holds predictions of knots that the way up has not reached."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from zigzag.anderson import Anderson, by_sample, relative, stretch
from zigzag.guided import Asking
from zigzag.inversion.scheme import Found, Run, remembering
from zigzag.solvers.affine import per_sample

__all__ = ["solve_all"]


class _Trajectory(NamedTuple):
    """States `(T + 1, B, …)`, and `(T, B)` the residual of each interval and the contraction shown."""

    states: Tensor
    residual: Tensor
    contraction: Tensor


def solve_all(run: Run, states: Tensor, mix: Anderson, tol: float, most: int) -> Asking[Found]:
    """The states `(T + 1, B, …)` of which each step, with the memory that they leave, leads to the next.

    The last is the data. A sample is done when the residual of each of its intervals is at most `tol`.
    """
    best: _Trajectory | None = None
    previous: tuple[Tensor, Tensor] | None = None
    for n in range(most):
        predictions, remainders = yield from _ask(run, states)
        residual, mapped = _up(run, states, predictions, remainders)
        shown = torch.zeros_like(residual) if previous is None else _shown(run, states, predictions, previous)
        previous = states, predictions
        best = _better(best, _Trajectory(states, residual, shown))
        done = (best.residual <= tol).all(0)
        if n + 1 == most or bool(done.all()):
            break
        # Anderson's is an iteration of samples: the batch goes first.
        x, g = states[:-1].transpose(0, 1), mapped.transpose(0, 1)
        x = torch.where(by_sample(done, x), best.states[:-1].transpose(0, 1), mix(x, g - x))
        states = torch.cat([x.transpose(0, 1), states[-1:]])
    assert best is not None
    return Found((best.states[0],), residual=best.residual, contraction=best.contraction)


def _ask(run: Run, states: Tensor) -> Asking[tuple[Tensor, list[Tensor | None]]]:
    """The predictions `(T, B, …)` that the steps from these states are made with, and what each holds."""
    memory: list[Tensor] = []
    predictions, remainders = [], []
    for i, x in enumerate(states[:-1]):
        e_first, e = yield from run.predictions(x, i)
        remainders.append(run.remainder(i, memory, range(i)))
        memory = remembering(run.solver, memory, i, x, e_first)
        predictions.append(e)
    return torch.stack(predictions), remainders


def _up(run: Run, states: Tensor, predictions: Tensor, remainders: list[Tensor | None]) -> tuple[Tensor, Tensor]:
    """By interval what the inverse of the state below it misses, and the states that a way up from the data visits."""
    x, residuals, mapped = states[-1], list[Tensor](), list[Tensor]()
    for i in reversed(range(len(predictions))):
        step, e, r = run.step(i, range(i)), predictions[i], remainders[i]
        g = step.inverse(states[i + 1], e, r)
        residuals.append(relative(g - states[i], g))
        x = step.inverse(x, e, r)
        mapped.append(x)
    return torch.stack(residuals[::-1]), torch.stack(mapped[::-1])


def _shown(run: Run, states: Tensor, predictions: Tensor, previous: tuple[Tensor, Tensor]) -> Tensor:
    """`|d|·‖Δe‖/‖Δx‖` of two iterates, `(T, B)`."""
    rows = []
    for i, (x, e, x_before, e_before) in enumerate(zip(states[:-1], predictions, *previous, strict=False)):
        d = run.step(i, range(i)).d
        rows.append(stretch(x - x_before, per_sample(d, e) * (e - e_before), x))
    return torch.stack(rows)


def _better(best: _Trajectory | None, this: _Trajectory) -> _Trajectory:
    """By sample the one of which the worst interval is better, and the largest contraction that was shown."""
    if best is None:
        return this
    better = this.residual.amax(0) < best.residual.amax(0)
    states = torch.where(by_sample(better, this.states[0]), this.states, best.states)
    residual = torch.where(better, this.residual, best.residual)
    return _Trajectory(states, residual, torch.maximum(best.contraction, this.contraction))
