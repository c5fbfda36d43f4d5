"""The roles of a walk: who predicts for a Denoise, for an Invert, and for a plain step, from which branches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from zigzag.guidance import Guidance
from zigzag.solvers import StepInfo

__all__ = ["BRANCHES", "Role", "RoleName", "Roles", "branch_of", "in_order"]

RoleName: TypeAlias = Literal["strong", "weak", "plain"]

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

    def needs(self, at: StepInfo) -> list[str]:
        """The branches that the role needs at a step.

        Raises:
            TypeError: for a rule that does not say so by two bools.
        """
        needed = self.rule.branches(at)
        if not (isinstance(needed, tuple) and len(needed) == 2 and all(isinstance(branch, bool) for branch in needed)):
            raise TypeError(f"{self}: branches() must return two bools, (cond, uncond), got {needed!r}")
        return [name for name, wanted in zip((self.cond, self.uncond), needed, strict=True) if wanted]

    def __str__(self) -> str:
        return f"{self.name}={self.rule!r}"


class Roles(NamedTuple):
    """Strong: of Denoise. weak: of Invert. plain: of a Denoise that is plain."""

    strong: Role
    weak: Role
    plain: Role


def branch_of(role: RoleName, branch: Literal["cond", "uncond"], own: bool) -> str:
    """The name of a role's branch: its own, or that of the strong role."""
    return f"{role}_{branch}" if own and role != "strong" else branch


def in_order(branches: Iterable[Any]) -> tuple[str, ...]:
    """The same branches, each once, in the order of `BRANCHES`."""
    wanted = set(branches)
    return tuple(name for name in BRANCHES if name in wanted)
