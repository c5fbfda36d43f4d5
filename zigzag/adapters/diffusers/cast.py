"""Who plays the roles of a path in a pipeline, and in which passes of its loop each question is answered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from torch import Tensor

from zigzag import roles as kernel
from zigzag.adapters.diffusers.branches import Branches
from zigzag.adapters.diffusers.roles import Role
from zigzag.checks import as_guidance
from zigzag.guidance import Guidance
from zigzag.held import HeldStep
from zigzag.moves import Denoise, Invert, Move, Shift, Tol, evaluations, gap_is_read
from zigzag.roles import RoleName

__all__ = ["NAMES", "Cast", "Pass", "Source", "asked_on", "calls_of", "passes_for", "passes_of"]

Source: TypeAlias = RoleName | Literal["own"]
NAMES: tuple[RoleName, ...] = kernel.STRONG + kernel.WEAK + kernel.PLAIN


@dataclass(frozen=True)
class Cast:
    """The roles, as far as they are not what the pipeline is by itself: its own calls, joined as it joins them.

    Attributes:
        weak, plain: a rule for the branches of the pipeline's own calls, or a `Role`, whose calls are its own; None is
            the pipeline as it is. strong: likewise, but for a rule.
    """

    weak: Guidance | Role | None
    plain: Guidance | Role | None = None
    strong: Role | None = None

    def __post_init__(self) -> None:
        named = {name: rule for name, rule in self.rules().items() if hasattr(rule, "reset")}
        if len({*map(id, named.values())}) < len(named):
            shared = next(iter(named.values()))
            raise ValueError(f"{' and '.join(named)} are one object with state, {shared!r}; each role needs its own")

    def edits(self, source: Source) -> Role | None:
        """What is edited of the model's calls; None of the pipeline's own."""
        given = None if source == "own" else getattr(self, source)
        return given if isinstance(given, Role) else None

    def source(self, name: RoleName) -> Source:
        """Whose passes the predictions of a role are made in."""
        return "own" if self.edits(name) is None else name

    @property
    def is_own(self) -> bool:
        """Whether every role is what the pipeline is by itself."""
        return all(getattr(self, name) is None for name in NAMES)

    def rules(self) -> dict[RoleName, Guidance]:
        """The rules of the roles whose branches are not joined as the pipeline joins them."""
        given: dict[RoleName, Guidance | Role | None] = {name: getattr(self, name) for name in NAMES}
        return {name: rule for name, role in given.items() if (rule := _rule(role)) is not None}

    def roles(self, guidances: Mapping[Source, Guidance]) -> kernel.Roles:
        """The roles for `traverse`; `guidances` is how the pipeline joins the branches, by whose they are."""
        rules = {name: guidances[self.source(name)] for name in NAMES} | self.rules()
        return kernel.Roles(*(kernel.Role(name, rules[name], *self._branches(name)) for name in NAMES))

    def found(self, source: Source, branches: Branches | None, guided: Tensor) -> Mapping[str, Tensor]:
        """By their names for `traverse`, the predictions of a pass: `branches`, or the one that a role is made of."""
        found = dict[str, Tensor]()
        for name in NAMES:
            cond, uncond = self._branches(name)
            if self.source(name) == source and branches is not None:
                found |= {cond: branches.cond, uncond: branches.uncond}
            elif self.source(name) == source != "own":
                found[cond] = guided
        return found

    def _branches(self, name: RoleName) -> tuple[str, str]:
        """The names of a role's two branches: those of the strong role, where it is asked in the same passes."""
        prefix = "" if name == "strong" or self.source(name) == self.source("strong") else f"{name}_"
        return f"{prefix}cond", f"{prefix}uncond"

    def check_path(self, path: Sequence[Move], method: object) -> None:
        """Raises ValueError for a role that the path does not ask, plain or strong.

        (A weak one has a default: a path without Invert and Shift, as of Resampling, leaves it unread.)
        """
        if self.plain is not None and not any(isinstance(move, Denoise) and move.plain for move in path):
            raise ValueError(
                f"plain={self.plain!r} was passed, but {method!r} has no plain Denoise, as ZSampling(plain=True) has"
            )
        if self.strong is not None and all(isinstance(move, Denoise) for move in path):
            raise ValueError(
                f"strong={self.strong!r} was passed, but {method!r} has no zigzag, so that nothing is edited"
            )

    def check_branches(self, names: Sequence[RoleName], knot: int) -> None:
        """Raises ValueError where a role needs two branches, of which the pipeline evaluates one.

        names: of the roles that are still to be asked. knot: where it was seen.
        """
        for name in names:
            edits = self.edits(name)
            if edits is None and name in self.rules():
                raise ValueError(
                    f"the pipeline evaluates no unconditional branch at knot {knot}, and without one there is no gap "
                    "to zigzag over: raise its guidance_scale above 1 (true_cfg_scale, with a negative prompt, where a "
                    f"pipeline has that); or pass a Role that needs none, {name}=Role(guidance=1.0), say, or "
                    f'{name}=Role(prompt=""); or end the zigzag before (steps=), or use method Standard()'
                )
            if edits is not None and edits.cfg is not None:
                raise ValueError(
                    f"{name}={edits!r}: cfg joins two branches, and the pipeline evaluates one at knot {knot}; leave "
                    "cfg out, or raise its guidance_scale above 1"
                )
            if edits is not None and edits.negative_prompt is not None:
                raise ValueError(
                    f"{name}={edits!r}: negative_prompt is of the unconditional branch, and the pipeline evaluates "
                    f"none at knot {knot}; pass a prompt in its place, or raise its guidance_scale above 1"
                )


class Pass(NamedTuple):
    """One pass of a pipeline's loop: its model is called as one role has it, and its scheduler's `step` follows.

    Attributes:
        told: which of the solver's `all_times` the model is told.
        stood: at which of them the state stands; None where it is data. That is where it comes from: an inversion is
            told the time of the knot that it returns to, and begins at the other.
        source: whose pass it is. last: whether it completes the answer to a question.
        move: the place of the move that asks.
    """

    told: int
    stood: int | None
    source: Source
    last: bool
    move: int = 0


def calls_of(move: Move, held: HeldStep) -> int:
    """How often a move asks for predictions; at most, where it is refined to a tolerance."""
    match move:
        case Invert(refine=Tol(most=most)):
            return most
        case Invert():
            return evaluations(move, "a pipeline's loop")
        case Shift(_, fresh, _):
            return int(fresh)
        case Denoise():
            return 1 if held.inner is None else 2
    return 0


def passes_of(path: Sequence[Move], steps: Sequence[HeldStep], count: int, cast: Cast) -> list[Pass]:
    """The passes of a pipeline's loop along a path of so many steps (`count`), as many as there may be."""
    known = enumerate(zip(path, steps, gap_is_read(path), strict=True))
    return [each for n, (move, held, read) in known for each in passes_for(n, move, held, read, count, cast)]


def passes_for(n: int, move: Move, held: HeldStep, reads_gap: bool, count: int, cast: Cast) -> list[Pass]:
    """The passes that move `n` of a path takes, on a grid of `count` steps.

    reads_gap: whether the next Shift takes its gap from there.
    """
    passes = list[Pass]()
    told = [min(move.start, move.end)] * calls_of(move, held)
    if isinstance(move, Denoise) and held.inner is not None:
        told[-1] = held.inner.told
    stood = [move.start, *told[1:]] if isinstance(move, Invert) else told
    sources = _each_once(cast.source(name) for name in kernel.roles_asked(move, reads_gap))
    for at, where in zip(told, stood, strict=True):
        place = where if where != count or isinstance(move, Denoise) else None
        passes += [Pass(at, place, source, source == sources[-1], n) for source in sources]
    return passes


def asked_on(path: Sequence[Move]) -> list[RoleName]:
    """The roles that a path asks, as far as what they are made of matters there."""
    wanted: list[RoleName] = [*kernel.STRONG]
    wanted += kernel.WEAK if any(isinstance(move, Invert | Shift) for move in path) else ()
    wanted += kernel.PLAIN if any(isinstance(move, Denoise) and move.plain for move in path) else ()
    return wanted


def _each_once(names: Iterable[Source]) -> list[Source]:
    return [*dict.fromkeys(names)]


def _rule(role: Guidance | Role | None) -> Guidance | None:
    """None of a role that leaves its branches to the pipeline."""
    if not isinstance(role, Role):
        return role
    return None if role.cfg is None else as_guidance("cfg", role.cfg)
