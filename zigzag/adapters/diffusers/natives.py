"""The library's own solver that steps as a scheduler does, where there is one: found by trying."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor

from zigzag.adapters.diffusers.euler_v import EulerV
from zigzag.adapters.diffusers.knots import Chain
from zigzag.adapters.diffusers.rehearsal import TOLERANCE
from zigzag.adapters.diffusers.rehearsed import Rehearsed
from zigzag.adapters.diffusers.stepping import config_of
from zigzag.solvers import (
    DDIM,
    DDPM,
    DPM2,
    LCM,
    TCD,
    AdamsBashforth,
    Ancestral,
    DPMSolver,
    FlowAncestral,
    FlowEuler,
    Heun,
    Solver,
    Spherical,
)

__all__ = ["is_native", "native_of"]

Make = Callable[[], Solver]
ANY: Final = ("epsilon", "v", "flow", "x0")


def native_of(rehearsed: Rehearsed, chain: Chain, step_kwargs: Mapping[str, Any]) -> Solver | None:
    """The first solver whose every step, with history and noise, is the scheduler's to 1e-6 of its coefficients."""
    for make in _candidates(rehearsed, chain, step_kwargs):
        try:
            solver = make()
            if is_native(solver, rehearsed):
                return solver
        except (ValueError, TypeError, ArithmeticError):  # none on such a grid
            continue
    return None


def is_native(solver: Solver, rehearsed: Rehearsed) -> bool:
    """Whether the steps of both are the same: with all that there is to remember, and with nothing."""
    knots = range(len(rehearsed))
    if len(solver) != len(rehearsed) or solver.memory != rehearsed.memory:
        return False
    forms = [(_form(solver, i), _form(rehearsed, i)) for i in knots]
    return all(_same_step(solver, rehearsed, forms, i, before) for i in knots for before in {range(i), range(0)})


def _same_step(solver: Solver, rehearsed: Rehearsed, forms: list[Any], i: int, before: range) -> bool:
    ours, theirs = solver.step(i, None, before), rehearsed.step(i, None, before)
    pairs = [(ours.a, theirs.a), (ours.b, theirs.b), (ours.noise, theirs.noise)]
    for k, n in enumerate(before[: -rehearsed.memory - 1 : -1] if rehearsed.memory else ()):
        mine, yours = (step.memory[k] if k < len(step.memory) else 0.0 for step in (ours, theirs))
        pairs += [(mine * p, yours * q) for p, q in zip(*forms[n], strict=True)]
    one, two = solver.inner(i, i + 1), rehearsed.inner(i, i + 1)
    if (one is None) != (two is None):
        return False
    if one is not None and two is not None:
        pairs += [(one.first.a, two.first.a), (one.first.b, two.first.b), (one.weight, two.weight)]
        pairs.append((solver.all_times[one.told], rehearsed.all_times[two.told]))
    least = 1e-9 * max(abs(float(theirs.a)), abs(float(theirs.b)))  # below which it is what roundings have left
    return all(abs(float(x) - float(y)) <= TOLERANCE * abs(float(y)) + least for x, y in pairs)


def _form(solver: Solver, i: int) -> tuple[float, float]:
    """`(p, q)` of what a solver remembers of knot `i`."""
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    return float(solver.remember(i, one, zero)), float(solver.remember(i, zero, one))


def _candidates(rehearsed: Rehearsed, chain: Chain, step_kwargs: Mapping[str, Any]) -> Iterator[Make]:
    alphas, sigmas, times, said = rehearsed.alphas, rehearsed.sigmas, rehearsed.times, rehearsed.prediction
    if said not in ANY:
        return
    grid = (alphas, sigmas, times)
    noisy = any(rehearsed.step(i).noisy for i in range(len(rehearsed)))
    if len(rehearsed.inner_times):
        yield lambda: Heun(*grid, prediction=said)
        yield lambda: DPM2(*grid, *_between(rehearsed, chain), rehearsed.inner_times, prediction=said)
    elif rehearsed.memory:
        yield from _multistep(grid, said, rehearsed.memory + 1, noisy)
    elif noisy:
        yield from _noisy(rehearsed, chain, grid, said, step_kwargs)
    else:
        if said == "flow":
            yield lambda: FlowEuler(sigmas, times)
        elif said == "v":
            yield (
                lambda: EulerV(sigmas, times) if chain.family == "σ" else Spherical(torch.atan2(sigmas, alphas), times)
            )
        elif said == "epsilon":
            yield lambda: DDIM(*grid)
        yield lambda: DPMSolver(*grid, prediction=said, order=1)


def _multistep(grid: tuple[Tensor, Tensor, Tensor], said: Any, order: int, noisy: bool) -> Iterator[Make]:
    for form, low, euler, half in itertools.product(
        ("midpoint", "heun"), (True, False), (False, True), (False, True) if order == 3 else (False,)
    ):
        options: dict[str, Any] = {"form": form, "lower_order_final": low, "euler_at_final": euler, "released": half}
        yield partial(DPMSolver, *grid, prediction=said, order=order, sde=noisy, **options)
    for weights, low in itertools.product(("exponential", "lagrange", "uniform"), (False, True)):
        options = {"weights": weights, "lower_order_final": low}
        yield partial(AdamsBashforth, *grid, prediction=said, order=order, **options)


def _noisy(
    rehearsed: Rehearsed,
    chain: Chain,
    grid: tuple[Tensor, Tensor, Tensor],
    said: Any,
    step_kwargs: Mapping[str, Any],
) -> Iterator[Make]:
    scheduler = rehearsed.rehearsal.scheduler
    if said == "epsilon":
        yield lambda: DDIM(*grid, eta=_eta(rehearsed))
        yield lambda: DDPM(*grid, variance="large")
    elif said == "v" and chain.family == "σ":
        yield lambda: EulerV(*grid[1:], eta=_eta(rehearsed))
    yield lambda: DPMSolver(*grid, prediction=said, order=1, sde=True)
    yield lambda: LCM(*grid, prediction=said, sigma_data=0.0)
    scaling = config_of(scheduler).get("timestep_scaling", 10.0)
    yield lambda: LCM(*grid, prediction=said, sigma_data=0.5, timestep_scaling=scaling)
    table = getattr(scheduler, "alphas_cumprod", None)
    if isinstance(table, Tensor):
        final, gamma = float(rehearsed.alphas[-1]) ** 2, float(step_kwargs.get("eta", 0.3))
        yield lambda: TCD.from_alphas_cumprod(
            table.double(), rehearsed.times, gamma=gamma, final_alpha_cumprod=final, prediction=said
        )
    if said != "epsilon":
        yield lambda: Ancestral(*grid, prediction=said, eta=_eta(rehearsed))
        yield lambda: Ancestral(*grid, prediction=said, variance="large")
        yield lambda: FlowAncestral(*grid, prediction=said, eta=float(config_of(scheduler).get("eta", 1.0)))


def _eta(rehearsed: Rehearsed) -> float:
    """The η that the first step says: `noise = η·σ_j·√(1 − (k_j/k_i)²)`, `k = σ/α`."""
    (alpha_i, alpha_j), (sigma_i, sigma_j) = rehearsed.alphas[:2].tolist(), rehearsed.sigmas[:2].tolist()
    eta = float(rehearsed.step(0).noise) / (sigma_j * math.sqrt(1 - (sigma_j * alpha_i / (alpha_j * sigma_i)) ** 2))
    return 1.0 if abs(eta - 1) < TOLERANCE else eta


def _between(rehearsed: Rehearsed, chain: Chain) -> tuple[list[float], list[float]]:
    """The levels of the second calls."""
    seconds = [group.last for group in rehearsed.groups if group.last > group.first]
    return [chain.alphas[k] for k in seconds], [chain.sigmas[k] for k in seconds]
