"""What `walk` settles before the first model call: the path, its steps, the branches and how they are batched."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any, NamedTuple, cast, get_args

import torch
from torch import Tensor

from zigzag.conditions import MISSING, Conditions, share_calls
from zigzag.guidance import CFG, Guidance
from zigzag.guidance.base import batch_of, finite
from zigzag.guided import check_shown
from zigzag.held import HeldStep
from zigzag.methods import is_steered
from zigzag.model import Predictor
from zigzag.moves import Denoise, Move
from zigzag.paths import plan_path
from zigzag.roles import Role, Roles, branches_asked, branches_on_grid, check_read
from zigzag.solvers import Solver
from zigzag.solvers.grids import Said
from zigzag.solvers.predictions import made_for_of
from zigzag.steered import Steering

__all__ = [
    "Given",
    "Settled",
    "as_guidance",
    "check_batch",
    "check_state",
    "settle",
]


class Given(NamedTuple):
    """What `walk` was given for a role: a rule (or number), a predictor, and conditions; MISSING or None where none."""

    rule: object
    fn: object = None
    cond: Any = MISSING
    uncond: Any = MISSING

    def told(self, role: Role) -> set[str]:
        """Of the branches of a role, those whose conditions were passed."""
        return {name for name, value in ((role.cond, self.cond), (role.uncond, self.uncond)) if value is not MISSING}


class Settled(NamedTuple):
    """What a walk is made of, checked: of each predictor its name, itself and its conditions.

    The steps of a path that is steered come with its moves.
    """

    path: tuple[Move, ...] | Steering
    steps: list[HeldStep]
    roles: Roles
    predictors: list[tuple[str, Predictor, Conditions]]


def settle(
    x: Tensor, solver: Solver, method: object, strong: Given, weak: Given, plain: Given, batched: bool | str
) -> Settled:
    """Checks the arguments of `walk` and settles the path, the roles and how the branches are evaluated.

    Raises:
        TypeError, ValueError: for arguments that do not fit, each naming what came and what is wanted.
    """
    check_state(x)
    if not isinstance(solver, Solver):
        raise TypeError(f"solver must be a Solver such as DDIM, got {solver!r}")
    named = {"eps_fn": strong.fn, "weak_fn": weak.fn, "plain_fn": plain.fn}
    for name, fn in named.items():
        if not callable(fn) and (fn is not None or name == "eps_fn"):
            raise TypeError(f"{name} must be callable, got {fn!r}")
        check_made_for(name, fn, solver)
    if batched not in (True, False, "auto"):
        raise ValueError(f"batched must be True, False or 'auto', got {batched!r}")
    roles, each = _roles(strong, weak, plain)
    check_batch(roles, len(x))
    check_shown(roles, solver)
    path: tuple[Move, ...] | Steering
    steps: list[HeldStep] = []
    if is_steered(method):
        asked = branches_on_grid(solver, roles, each)
        path = Steering(method, solver)
    else:
        path, steps = plan_path(method, solver)
        # By identity: conditions may be arrays, which compare one by one.
        told = any(given is not none for given, none in zip(plain, Given(None), strict=True))
        if told and not any(isinstance(move, Denoise) and move.plain for move in path):
            raise ValueError(f"plain, plain_fn or plain_cond was passed, but {method!r} has no plain Denoise")
        asked = branches_asked(path, solver, roles, each)
        for role, passed in ((roles.weak, weak), (roles.plain, plain)):
            check_read(path, solver, role, passed.told(role))
    predictors: dict[str, dict[str, Any]] = {}
    for branch, cond in each.items():
        own = f"{branch.rpartition('_')[0]}_fn"
        predictors.setdefault(own if named.get(own) is not None else "eps_fn", {})[branch] = cond
    settled = []
    for name, its in predictors.items():
        subsets = dict.fromkeys(tuple(branch for branch in branches if branch in its) for branches in asked)
        conditions = share_calls(its, [branches for branches in subsets if branches], len(x), batched)
        settled.append((name, cast("Predictor", named[name]), conditions))
    return Settled(path, steps, roles, settled)


def _roles(strong: Given, weak: Given, plain: Given) -> tuple[Roles, dict[str, Any]]:
    """The three roles, and the condition of every branch."""
    rule = as_guidance("strong", strong.rule)
    rules = {
        "strong": rule,
        "weak": as_guidance("weak", weak.rule),
        "plain": rule if plain.rule is None else as_guidance("plain", plain.rule),
    }
    for one, other in (("strong", "weak"), ("weak", "plain"), ("strong", "plain")):
        shared = rules[one] is rules[other] and (other != "plain" or plain.rule is not None)
        if shared and hasattr(rules[one], "reset"):
            raise ValueError(f"{one} and {other} are one object with state, {rules[one]!r}; each role needs its own")
    each = {"cond": strong.cond, "uncond": strong.uncond}
    roles = [Role("strong", rule)]
    for name, given in (("weak", weak), ("plain", plain)):
        names = {}
        for branch, value in (("cond", given.cond), ("uncond", given.uncond)):
            own = given.fn is not None or (value is not MISSING and value is not each[branch])
            names[branch] = f"{name}_{branch}" if own else branch
            each[names[branch]] = each[branch] if value is MISSING else value
        roles.append(Role(name, rules[name], **names))
    return Roles(*roles), each


def check_batch(roles: Roles, batch: int) -> None:
    """Raises ValueError for a rule with scales of another number of samples."""
    for role in roles:
        if batch_of(role.rule) not in (None, batch):
            raise ValueError(f"{role} has {batch_of(role.rule)} scales, one a sample, but x has {batch} samples")


def check_generator(generator: object, batch: int) -> None:
    """Raises unless `generator` is None, a `torch.Generator`, or a list of one for each sample."""
    each = list(generator) if isinstance(generator, list | tuple) else [generator]
    if not all(g is None if each[0] is None else isinstance(g, torch.Generator) for g in each):
        raise TypeError(f"generator must be a torch.Generator, or a list of them, got {generator!r}")
    if isinstance(generator, list | tuple) and (len(each) != batch or each[0] is None):
        raise ValueError(f"generator must be a list of one for each of the {batch} samples, got {len(each)}")


def moves_recorded(path: Sequence[Move] | Steering, grad: bool | int) -> Iterable[bool]:
    """For each move whether it records gradients: all, none, or those of the last `grad` steps.

    Raises:
        TypeError, ValueError: for a number of steps that the path does not have, or that is not known beforehand.
    """
    if isinstance(grad, bool):
        return repeat(grad) if isinstance(path, Steering) else [grad] * len(path)
    if not isinstance(grad, int):
        raise TypeError(f"grad must be True, False or a number of steps, got {grad!r}")
    if isinstance(path, Steering):
        raise ValueError(f"grad={grad} needs a path that is known beforehand, and this one is steered; use grad=True")
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
    made = made_for_of(fn)
    if made is None:
        return
    # "unknown" is that of steps read off a scheduler that says nothing of its levels.
    if solver.prediction not in (made.prediction, "unknown"):
        adapted = f", or adapt_prediction({name}, solver, {made.prediction!r})"
        raise ValueError(
            f"{name} predicts {made.prediction!r}, but {solver!r} wants {solver.prediction!r}: use a solver of "
            f"{made.prediction!r}{adapted if made.prediction in get_args(Said) else ''}"
        )
    if made.grid is not None and made.grid is not solver:
        known = {t: (alpha, sigma) for alpha, sigma, t in zip(*made.grid.knots, strict=False)}
        for i, (alpha, sigma, t) in enumerate(zip(*solver.knots, strict=False)):
            if t not in known or not all(map(_same_level, known[t], (alpha, sigma))):
                raise ValueError(
                    f"{name} was made for {made.grid!r}, which has no knot of time {t:g} with alpha {alpha:g} and "
                    f"sigma {sigma:g}, as knot {i} of {solver!r} is: make it for the solver that it is sampled with"
                )
        for t in solver.asked_between:
            if t not in made.grid.all_times:
                raise ValueError(
                    f"{name} was made for {made.grid!r}, which has no time {t:g}, at which {solver!r} asks between its "
                    "knots; use Heun, which asks at knots only"
                )


def _same_level(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-6)  # grids are also read off float32 tables


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
    # Numbers first: a protocol is slow to ask for.
    if not isinstance(value, int | float) and isinstance(value, Guidance) and not isinstance(value, type):
        return value
    try:
        return CFG(finite(name, value))
    except TypeError:
        hint = "; one scale a sample is CFG(tensor)" if isinstance(value, Tensor) else ""
        raise TypeError(f"{name} must be a number or a Guidance (branches() and a call), got {value!r}{hint}") from None
