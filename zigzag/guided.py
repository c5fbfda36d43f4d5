"""The guided predictions that moves are made of: which branches a move asks for, and how they are joined."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar, get_args

import torch
from torch import Tensor

from zigzag.guidance.base import State, needs_state
from zigzag.roles import Role, RoleName, Roles, in_order
from zigzag.solvers import Prediction, Solver, StepInfo
from zigzag.solvers.predictions import level_after

__all__ = ["Answer", "Guided", "Query", "check_shown"]


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
        roles: the three. solver: whose predictions they are, for rules that read the state.
        traced: whether what was answered last is kept, for diagnoses.

    Attributes:
        rows: model rows per sample so far.
        direction: where it is traced, `e_c − e_∅` of the first role of the last question, which is the one that a
            Denoise moves by; None where one of the two was not evaluated.
    """

    def __init__(self, roles: Roles, solver: Solver, traced: bool = False) -> None:
        self._by_name: dict[str, Role] = roles._asdict()
        self._solver, self._shows = solver, any(needs_state(role.rule) for role in roles)
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
        shown = self._state(x, at, told) if self._shows else None
        if self._traced and told is None:  # of a step's two evaluations the first, which is made at its state
            self._last = x, e, at, shown
            c, u = asked[0].cond, asked[0].uncond
            self.direction = e[c] - e[u] if c in e and u in e else None
        shape = x.shape
        return [_guide(role, its, shape, e, at, shown) for role, its in zip(asked, needs, strict=True)]

    def _state(self, x: Tensor, at: StepInfo, told: int | None) -> State:
        """What a rule may read of the state; `told` is that of a second evaluation, at the level between."""
        kind, level = self._solver.prediction, (at.alpha_i, at.sigma_i)
        inner = None if told is None or told == at.i else self._solver.inner(at.i, at.j)
        if inner is not None and inner.told == told:
            level = level_after(inner.first, kind, *level)
        return State(x, *level, kind)

    def known(self, name: RoleName) -> Tensor | None:
        """The prediction of a role at the last question, where the branches that were asked for suffice for it.

        It is for diagnoses, which must change nothing: a rule with state is not called.
        """
        role = self._by_name[name]
        x, e, at, shown = self._last
        needs = role.needs(at)
        if hasattr(role.rule, "reset") or not e.keys() >= set(needs):
            return None
        return _guide(role, needs, x.shape, e, at, shown)


def _guide(
    role: Role, needs: Sequence[str], shape: torch.Size, e: Mapping[str, Tensor], at: StepInfo, shown: State | None
) -> Tensor:
    rule: Any = role.rule
    e_c = e[role.cond] if role.cond in needs else None
    e_u = e[role.uncond] if role.uncond in needs else None
    guided = rule(e_c, e_u, at) if shown is None or not needs_state(rule) else rule(e_c, e_u, at, shown)
    if not isinstance(guided, Tensor) or guided.shape != shape:
        got = tuple(guided.shape) if isinstance(guided, Tensor) else type(guided).__name__
        raise ValueError(f"{rule!r} must return a prediction of shape {tuple(shape)}, as its branches have, got {got}")
    return guided


def check_shown(roles: Roles, solver: Solver) -> None:
    """Holds rules that read the state against a solver: whether the levels of its states are those of its predictions.

    Raises:
        ValueError: for a solver whose prediction has no name, or whose levels are unknown or of another state.
    """
    for role in roles:
        if not needs_state(role.rule):
            continue
        if solver.prediction not in get_args(Prediction) or solver.alphas.isnan().any():
            raise ValueError(
                f"{role} reads the state, and of {solver!r} it is not known what its predictions say of that; use a "
                "rule that reads the predictions alone, such as CFG"
            )
        try:
            solver.alpha_sigma(solver.times[:1])
        except ValueError as error:
            raise ValueError(f"{role} reads the state: {error}") from None
