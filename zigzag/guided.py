"""The guided predictions that moves are made of: which branches a move asks for, and how they are joined."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

from torch import Tensor

from zigzag.roles import Role, RoleName, Roles, in_order
from zigzag.solvers import StepInfo

__all__ = ["Answer", "Guided", "Query"]


class Query(NamedTuple):
    """What the loop asks: predictions at `x` of some of `zigzag.roles.BRANCHES`, in their order.

    `told` is which of the solver's `all_times` the model is told: that of the knot, but for an evaluation between two.
    """

    x: Tensor
    told: int
    branches: tuple[str, ...]


class Answer(NamedTuple):
    """The predictions asked for by branch, in the shape of `x`, and the model rows per sample that they took."""

    branches: Mapping[str, Tensor]
    rows: int


T = TypeVar("T")
Asking: TypeAlias = Generator[Query, Any, T]


class Guided:
    """The predictions that the moves are made of: the branches asked for, joined by the rules of the roles.

    Args:
        roles: the three. traced: whether what was answered last is kept, for diagnoses.

    Attributes:
        rows: model rows per sample so far.
        direction: where it is traced, `e_c − e_∅` of the strong role at the last question; None where one of the two
            was not evaluated.
    """

    def __init__(self, roles: Roles, traced: bool = False) -> None:
        self._by_name: dict[str, Role] = roles._asdict()
        self.rows, self._traced = 0, traced
        self.direction: Tensor | None = None
        for rule in {id(role.rule): role.rule for role in roles}.values():
            if (reset := getattr(rule, "reset", None)) is not None:
                reset()

    def ask(self, x: Tensor, at: StepInfo, roles: Sequence[RoleName], told: int | None = None) -> Asking[list[Tensor]]:
        """The predictions of `roles` at `x`, from one evaluation of the branches that they need.

        `told` is which time the model is told, where it is not that of the knot `at.i`.
        """
        asked = [self._by_name[name] for name in roles]
        needs = [role.needs(at) for role in asked]
        answer: Answer = yield Query(x, at.i if told is None else told, in_order(*needs))
        self.rows += answer.rows
        # Cast before guidance: a gap in half precision would have lost its digits.
        e = {name: p if p.dtype == x.dtype else p.to(x.dtype) for name, p in answer.branches.items()}
        if self._traced and told is None:  # of a step's two evaluations the first, which is made at its state
            self._last = e, at
            self.direction = e["cond"] - e["uncond"] if "cond" in e and "uncond" in e else None
        return [_guide(role, its, e, at) for role, its in zip(asked, needs, strict=True)]

    def known(self, name: RoleName) -> Tensor | None:
        """The prediction of a role at the last question, where the branches that were asked for suffice for it.

        It is for diagnoses, which must change nothing: a rule with state is not called.
        """
        role = self._by_name[name]
        e, at = self._last
        needs = role.needs(at)
        if hasattr(role.rule, "reset") or not e.keys() >= set(needs):
            return None
        return _guide(role, needs, e, at)


def _guide(role: Role, needs: Sequence[str], e: Mapping[str, Tensor], at: StepInfo) -> Tensor:
    e_c = e[role.cond] if role.cond in needs else None
    e_u = e[role.uncond] if role.uncond in needs else None
    guided = role.rule(e_c, e_u, at)
    like = e_u if e_c is None else e_c
    if not isinstance(guided, Tensor) or (like is not None and guided.shape != like.shape):
        got = tuple(guided.shape) if isinstance(guided, Tensor) else type(guided).__name__
        wanted = None if like is None else tuple(like.shape)
        raise ValueError(f"{role.rule!r} must return a prediction of shape {wanted}, as its branches have, got {got}")
    return guided
