"""What `walk` settles before the first model call: the path, its steps, the branches and how they are batched."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from zigzag.guidance import CFG, Guidance
from zigzag.guidance.base import finite
from zigzag.held import HeldStep, steps_of
from zigzag.methods import Method
from zigzag.moves import Denoise, Invert, Move, Shift, gap_is_read
from zigzag.solvers import Solver

__all__ = [
    "MISSING",
    "Conditions",
    "Settled",
    "as_guidance",
    "check_state",
    "doubled_condition",
    "plan_path",
    "resolve_path",
    "settle",
    "uses_both_branches",
]


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()
"""The default of `uncond`: no condition was passed. (`None` is a legitimate one: many models take it as the null.)"""


class Conditions(NamedTuple):
    """The two conditions, and both as the one of a doubled batch; MISSING where there is none."""

    cond: Any
    uncond: Any
    doubled: Any


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
    if batched not in (True, False, "auto"):
        raise ValueError(f"batched must be True, False or 'auto', got {batched!r}")
    e_s, e_w = as_guidance("strong", strong), as_guidance("weak", weak)
    if e_s is e_w and hasattr(e_s, "reset"):
        raise ValueError(f"strong and weak are one object with state, {e_s!r}; each role needs its own")
    path, steps = plan_path(method, solver)
    both = uses_both_branches(path, solver, e_s, e_w, uncond, separate=weak_fn is not None)
    doubled = doubled_condition(cond, uncond, len(x), batched) if both else MISSING
    return Settled(path, steps, e_s, e_w, Conditions(cond, uncond, doubled))


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
            needs[name] = guidance.branches(solver.info(i, j))
            if needs[name][1] and uncond is MISSING:
                raise ValueError(
                    f"uncond is missing but {name}={guidance!r} needs the unconditional branch at knot {i}; "
                    "pass uncond= (None, if that is the model's null condition)"
                )
        calls = needs.values() if separate else [tuple(map(any, zip(*needs.values(), strict=True)))]
        both = both or any(all(call) for call in calls)
    return both


def doubled_condition(cond: object, uncond: object, batch: int, batched: bool | str) -> Any:
    """`uncond` and `cond` as one condition of a doubled batch, unconditional first; MISSING where two calls are made.

    Raises:
        ValueError: for `batched=True` and conditions that cannot be doubled, saying which leaf.
    """
    if batched is False:
        return MISSING
    try:
        return _concatenate(uncond, cond, batch if batched == "auto" else None)
    except ValueError as error:
        if batched == "auto":
            return MISSING
        raise ValueError(f"batched=True, but {error}; use batched=False or 'auto'") from None


def _concatenate(uncond: object, cond: object, batch: int | None) -> Any:
    # With a batch (the rule of 'auto') every leaf must be a tensor with that batch; without one (batched=True) other
    # leaves pass where both conditions have the same.
    leaves_u, tree_u = pytree.tree_flatten(uncond)
    leaves_c, tree_c = pytree.tree_flatten(cond)
    if tree_u != tree_c:
        raise ValueError(f"uncond and cond differ in structure: {tree_u} and {tree_c}")
    if batch is not None and not leaves_c:
        raise ValueError("the conditions hold no tensors")
    doubled = []
    for k, (u, c) in enumerate(zip(leaves_u, leaves_c, strict=True)):
        if isinstance(u, Tensor) and isinstance(c, Tensor):
            if u.shape != c.shape or u.ndim == 0 or (batch is not None and u.shape[0] != batch):
                raise ValueError(f"leaf {k} of uncond and cond has shapes {tuple(u.shape)} and {tuple(c.shape)}")
            if u.dtype != c.dtype or u.device != c.device:
                kinds = f"{u.dtype} on {u.device} and {c.dtype} on {c.device}"
                raise ValueError(f"leaf {k} of uncond and cond is {kinds}")
            doubled.append(torch.cat([u, c]))
        elif batch is None and _same(u, c):
            doubled.append(c)
        else:
            raise ValueError(f"leaf {k} of uncond and cond is {u!r} and {c!r}, which are not tensors to concatenate")
    return pytree.tree_unflatten(doubled, tree_c)


def _same(u: object, c: object) -> bool:
    try:
        return u is c or bool(u == c)
    except (RuntimeError, ValueError):
        return False
