"""What `walk` settles before the first model call: the path, its steps, the branches and how they are batched."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zigzag.conditions import MISSING, Conditions, doubled_condition
from zigzag.guidance import CFG, Guidance
from zigzag.guidance.base import finite
from zigzag.held import HeldStep, steps_of
from zigzag.methods import Method
from zigzag.moves import Denoise, Invert, Move, Shift, gap_is_read
from zigzag.solvers import Solver, StepInfo
from zigzag.solvers.predictions import MadeFor

__all__ = [
    "Settled",
    "as_guidance",
    "check_state",
    "plan_path",
    "resolve_path",
    "settle",
    "uses_both_branches",
]


class Settled(NamedTuple):
    """What a walk is made of, checked."""

    path: tuple[Move, ...]
    steps: list[HeldStep]
    strong: Guidance
    weak: Guidance
    conditions: Conditions


def settle(
    eps_fn: object,
    x: Tensor,
    solver: Solver,
    method: object,
    cond: Any,
    uncond: Any,
    strong: object,
    weak: object,
    weak_fn: object,
    batched: bool | str,
) -> Settled:
    """Checks the arguments of `walk` and settles the path, the two rules and how the branches are evaluated.

    Raises:
        TypeError, ValueError: for arguments that do not fit, each naming what came and what is wanted.
    """
    check_state(x)
    if not isinstance(solver, Solver):
        raise TypeError(f"solver must be a Solver such as DDIM, got {solver!r}")
    for name, fn in (("eps_fn", eps_fn), ("weak_fn", weak_fn)):
        if not callable(fn) and (fn is not None or name == "eps_fn"):
            raise TypeError(f"{name} must be callable, got {fn!r}")
        check_made_for(name, fn, solver)
    if batched not in (True, False, "auto"):
        raise ValueError(f"batched must be True, False or 'auto', got {batched!r}")
    e_s, e_w = as_guidance("strong", strong), as_guidance("weak", weak)
    if e_s is e_w and hasattr(e_s, "reset"):
        raise ValueError(f"strong and weak are one object with state, {e_s!r}; each role needs its own")
    path, steps = plan_path(method, solver)
    both = uses_both_branches(path, solver, e_s, e_w, uncond, separate=weak_fn is not None)
    doubled = doubled_condition(cond, uncond, len(x), batched) if both else MISSING
    return Settled(path, steps, e_s, e_w, Conditions(cond, uncond, doubled))


def check_generator(generator: object, batch: int) -> None:
    """Raises unless `generator` is None, a `torch.Generator`, or a list of one for each sample."""
    each = list(generator) if isinstance(generator, list | tuple) else [generator]
    if not all(g is None if each[0] is None else isinstance(g, torch.Generator) for g in each):
        raise TypeError(f"generator must be a torch.Generator, or a list of them, got {generator!r}")
    if isinstance(generator, list | tuple) and (len(each) != batch or each[0] is None):
        raise ValueError(f"generator must be a list of one for each of the {batch} samples, got {len(each)}")


def moves_recorded(path: Sequence[Move], grad: bool | int) -> list[bool]:
    """For each move whether it records gradients: all, none, or those of the last `grad` steps.

    Raises:
        TypeError, ValueError: for a number of steps that the path does not have.
    """
    if isinstance(grad, bool):
        return [grad] * len(path)
    if not isinstance(grad, int):
        raise TypeError(f"grad must be True, False or a number of steps, got {grad!r}")
    first, last = min(min(m.start, m.end) for m in path), path[-1].end
    if not 1 <= grad <= last - first:
        raise ValueError(f"grad must be from 1 to {last - first} steps of this path, got {grad}")
    before = [k for k, move in enumerate(path) if min(move.start, move.end) < last - grad]
    return [k > before[-1] if before else True for k in range(len(path))]


def check_made_for(name: str, fn: object, solver: Solver) -> None:
    """Holds a solver against what a predictor says that it was made for (`MadeFor`), where it says so.

    Raises:
        ValueError: for another prediction, or a grid with another level at one of the solver's times.
    """
    made = getattr(fn, "made_for", None) or getattr(getattr(fn, "__self__", None), "made_for", None)
    if not isinstance(made, MadeFor):
        return
    if made.prediction != solver.prediction:
        raise ValueError(
            f"{name} predicts {made.prediction!r}, but {solver!r} wants {solver.prediction!r}: use a solver of "
            f"{made.prediction!r}, or adapt_prediction({name}, solver, {made.prediction!r})"
        )
    if made.grid is not None and made.grid is not solver:
        known = {t: (alpha, sigma) for alpha, sigma, t in zip(*made.grid.knots, strict=False)}
        for i, (alpha, sigma, t) in enumerate(zip(*solver.knots, strict=False)):
            if t not in known or not all(map(math.isclose, known[t], (alpha, sigma))):
                raise ValueError(
                    f"{name} was made for {made.grid!r}, which has no knot of time {t:g} with alpha {alpha:g} and "
                    f"sigma {sigma:g}, as knot {i} of {solver!r} is: make it for the solver that it is sampled with"
                )


def check_state(x: object) -> None:
    """Raises unless `x` is a floating-point tensor `(B, …)` with B ≥ 1."""
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a tensor (B, ...), got {type(x).__name__}")
    if not x.is_floating_point():
        raise TypeError(f"x must be floating-point, got {x.dtype}")
    if x.ndim < 1 or x.shape[0] < 1:
        raise ValueError(f"x must have a batch dimension (B, ...) with B >= 1, got shape {tuple(x.shape)}")


def as_guidance(name: str, value: object) -> Guidance:
    """A number as `CFG(number)`; a `Guidance` as it is."""
    if isinstance(value, Guidance) and not isinstance(value, type):
        return value
    try:
        return CFG(finite(name, value))
    except TypeError:
        raise TypeError(f"{name} must be a number or a Guidance (branches() and a call), got {value!r}") from None


def resolve_path(method: object, solver: Solver) -> tuple[Move, ...]:
    """The moves of a method on the grid of `solver`, or a user's own, checked as in `plan_path`."""
    return plan_path(method, solver)[0]


def plan_path(method: object, solver: Solver) -> tuple[tuple[Move, ...], list[HeldStep]]:
    """The moves of a method on the grid of `solver`, or a user's own, checked move by move, and their steps.

    Raises:
        TypeError: for what is neither a method nor moves.
        ValueError: for a path that is empty, leaves the grid, does not connect, needs a step or an inverse that does
            not exist, or shifts by a gap that nothing has cached.
    """
    if isinstance(method, Method) and not isinstance(method, type):
        path = tuple(method.path(len(solver)))
    elif isinstance(method, Iterable) and not isinstance(method, str):
        path = tuple(method)
    else:
        raise TypeError(f"method must have path(T) or be a tuple of moves, got {method!r}")
    if not path:
        raise ValueError("method: the path has no moves")
    for k, move in enumerate(path):
        if not isinstance(move, Move):
            raise TypeError(f"move {k} of the path must be Denoise, Invert, Shift or Renoise, got {move!r}")
        if not (isinstance(move.start, int) and isinstance(move.end, int)):
            raise TypeError(f"move {k} of the path, {move!r}, must go from knot to knot by integers")
        if k and move.start != path[k - 1].end:
            raise ValueError(
                f"the path does not connect: move {k}, {move!r}, starts at knot {move.start}, "
                f"but {path[k - 1]!r} before it ends at knot {path[k - 1].end}"
            )
        if isinstance(move, Invert) and (not isinstance(move.refine, int) or move.refine < 0):
            raise ValueError(
                f"move {k} of the path, {move!r}: refine must be an integer of at least 0, got {move.refine!r}"
            )
    steps = steps_of(path, solver)
    _check_cache(path)
    return path, steps


def _check_cache(path: Sequence[Move]) -> None:
    cached = False
    for k, move in enumerate(path):
        if isinstance(move, Shift) and not move.fresh and not cached:
            raise ValueError(
                f"move {k} of the path, {move!r}, needs a cached gap, but no Denoise or fresh Shift comes before it"
            )
        # A Denoise leaves a gap for the next cached Shift, unless a fresh one comes between, which leaves its own.
        cached = cached or isinstance(move, Denoise | Shift)


def uses_both_branches(
    path: Sequence[Move], solver: Solver, strong: Guidance, weak: Guidance, uncond: object, separate: bool
) -> bool:
    """Whether some evaluation on the path wants both branches of one model at one state.

    `separate` says that the weak predictions have a model of their own.

    Raises:
        ValueError: if a branch is needed and `uncond` is MISSING, naming the guidance that needs it.
    """
    both = False
    for move, gap_read in zip(path, gap_is_read(path), strict=True):
        match move:
            case Denoise(i, j):
                roles = {"strong": strong} | ({"weak": weak} if gap_read else {})
            case Invert(j, i):
                roles = {"weak": weak}
            case Shift(i, True):
                j, roles = i + 1, {"strong": strong, "weak": weak}
            case _:
                continue
        needs = {}
        for name, guidance in roles.items():
            needs[name] = _needed(name, guidance, solver.info(i, j))
            if needs[name][1] and uncond is MISSING:
                raise ValueError(
                    f"uncond is missing but {name}={guidance!r} needs the unconditional branch at knot {i}; "
                    "pass uncond= (None, if that is the model's null condition)"
                )
        calls = needs.values() if separate else [tuple(map(any, zip(*needs.values(), strict=True)))]
        both = both or any(all(call) for call in calls)
    return both


def _needed(name: str, guidance: Guidance, at: StepInfo) -> tuple[bool, bool]:
    needed = guidance.branches(at)
    if not (isinstance(needed, tuple) and len(needed) == 2 and all(isinstance(branch, bool) for branch in needed)):
        raise TypeError(f"{name}={guidance!r}: branches() must return two bools, (cond, uncond), got {needed!r}")
    return needed
