"""The roles of a walk: who predicts for a Denoise, for an Invert, and for a plain step, from which branches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from zigzag.conditions import MISSING
from zigzag.guidance import Guidance
from zigzag.moves import Denoise, Invert, Move, Shift, gap_is_read
from zigzag.solvers import Solver, StepInfo

__all__ = [
    "BRANCHES",
    "PLAIN",
    "STRONG",
    "WEAK",
    "Role",
    "RoleName",
    "Roles",
    "branches_asked",
    "branches_on_grid",
    "check_read",
    "in_order",
    "roles_asked",
]

RoleName: TypeAlias = Literal["strong", "weak", "plain"]

STRONG: tuple[RoleName, ...] = ("strong",)
WEAK: tuple[RoleName, ...] = ("weak",)
PLAIN: tuple[RoleName, ...] = ("plain",)

BRANCHES: Final = ("uncond", "cond", "weak_uncond", "weak_cond", "plain_uncond", "plain_cond")
"""All branches that a model may be asked for, in the order in which they stand in one batch."""


class Role(NamedTuple):
    """A guidance, and the two branches that it is made of.

    Attributes:
        name: of the role. rule: the guidance. cond, uncond: of `BRANCHES`; those of the strong role, where the role
            has no condition and no predictor of its own.
    """

    name: str
    rule: Guidance
    cond: str = "cond"
    uncond: str = "uncond"

    def needs(self, at: StepInfo) -> tuple[str, ...]:
        """The branches that the role needs at a step."""
        return self.named(*self.rule.branches(at))

    def named(self, cond: bool, uncond: bool) -> tuple[str, ...]:
        """The names of its two branches, or of the one that is needed."""
        if cond and uncond:
            return self.uncond, self.cond
        return (self.cond,) if cond else (self.uncond,) if uncond else ()

    def __str__(self) -> str:
        return f"{self.name}={self.rule!r}"


class Roles(NamedTuple):
    """Strong: of Denoise. weak: of Invert. plain: of a Denoise that is plain."""

    strong: Role
    weak: Role
    plain: Role


@cache
def in_order(*several: tuple[str, ...]) -> tuple[str, ...]:
    """The branches of several roles, each once, in the order of `BRANCHES`."""
    wanted = {name for branches in several for name in branches}
    return tuple(name for name in BRANCHES if name in wanted)


def roles_asked(move: Move, gap_read: bool) -> tuple[RoleName, ...]:
    """The roles whose predictions a move needs, the one that it is made with first.

    `gap_read` says that a Denoise has to fill the cache.
    """
    match move:
        case Denoise(plain=plain):
            role = PLAIN if plain else STRONG
            return role if not gap_read else (*role, *STRONG, *WEAK) if plain else STRONG + WEAK
        case Invert():
            return WEAK
        case Shift(fresh=True):
            return STRONG + WEAK
    return ()


def branches_asked(
    path: Sequence[Move], solver: Solver, roles: Roles, conditions: Mapping[str, Any]
) -> list[tuple[str, ...]]:
    """The sets of branches that are asked for on a path, each once.

    Raises:
        ValueError: if one is needed whose condition is MISSING, naming the guidance that needs it.
    """
    return _branches_of(_questions(path), solver, roles, conditions)


def branches_on_grid(solver: Solver, roles: Roles, conditions: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The sets of branches that any path of steps between neighbours may ask for; raises as `branches_asked`."""
    asked = (STRONG + WEAK, WEAK, *([PLAIN + STRONG + WEAK] if roles.plain[1:] != roles.strong[1:] else []))
    return _branches_of([(names, i, i + 1) for i in range(len(solver)) for names in asked], solver, roles, conditions)


def check_read(path: Sequence[Move], solver: Solver, role: Role, told: set[str]) -> None:
    """Raises ValueError where a path asks a role, and the role reads none of the branches whose conditions it was told.

    (A path that does not ask it, as of `Standard`, may be given what others need.)
    """
    if not told:
        return
    reads = [set(_needs(role, _step(solver, i, j))) for names, i, j in _questions(path) if role.name in names]
    if reads and told.isdisjoint(needed := set[str]().union(*reads)):
        raise ValueError(
            f"no prediction reads {' and '.join(sorted(told))}: {role} needs {' and '.join(needed) or 'no branch'} "
            f"alone; pass another {role.name}"
        )


def _questions(path: Sequence[Move]) -> list[tuple[tuple[RoleName, ...], int, int]]:
    """What a path asks, each once: the roles, and the knots of the step."""
    questions = dict.fromkeys(
        (names, move.i, move.i if isinstance(move, Shift) else move.j)
        for move, read in zip(path, gap_is_read(path), strict=True)
        if (names := roles_asked(move, read))
    )
    return list(questions)


def _step(solver: Solver, i: int, j: int) -> StepInfo:
    return solver.info(i, j if j > i else i + 1)  # a Shift stands for the step to the next knot


def _branches_of(
    questions: Iterable[tuple[tuple[RoleName, ...], int, int]],
    solver: Solver,
    roles: Roles,
    conditions: Mapping[str, Any],
) -> list[tuple[str, ...]]:
    missing = {branch for branch, condition in conditions.items() if condition is MISSING}
    by_name: dict[str, Role] = roles._asdict()
    needed: dict[tuple[tuple[str, ...], ...], None] = {}
    for names, i, j in questions:
        at = _step(solver, i, j)
        needs = tuple([_needs(by_name[name], at) for name in names])
        if missing:
            for name, branch in [(name, b) for name, its in zip(names, needs, strict=True) for b in its]:
                if branch in missing:
                    short = branch.rpartition("_")[2]
                    raise ValueError(
                        f"{short} is missing but {by_name[name]} needs the {short}itional branch at knot {i}; pass "
                        f"{short}= (None, if that is the model's null condition)"
                    )
        needed[needs] = None
    return [branches for branches in dict.fromkeys(in_order(*needs) for needs in needed) if branches]


def _needs(role: Role, at: StepInfo) -> tuple[str, ...]:
    needed = role.rule.branches(at)
    if type(needed) is tuple and len(needed) == 2 and type(needed[0]) is type(needed[1]) is bool:
        return role.named(*needed)
    raise TypeError(f"{role}: branches() must return two bools, (cond, uncond), got {needed!r}")
