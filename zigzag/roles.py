"""The roles of a walk: who predicts for a Denoise, for an Invert, and for a plain step, from which branches."""

from __future__ import annotations

from functools import cache
from typing import Final, Literal, NamedTuple, TypeAlias

from zigzag.guidance import Guidance
from zigzag.solvers import StepInfo

__all__ = ["BRANCHES", "PLAIN", "STRONG", "WEAK", "Role", "RoleName", "Roles", "in_order"]

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
