"""A plan that is kept is the one that would be made: for methods that are values, on grids that never change."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from support.sampling import COND, UNCOND, X
from zigzag import DDIM, EndToEnd, ImplicitZ, Resampling, Standard, Z2Sampling, ZSampling, sample, walk
from zigzag.held import steps_of
from zigzag.moves import Move
from zigzag.paths import _KEPT, _MOST_KEPT, plan_path
from zigzag.solvers import DPMSolver, StepInfo
from zigzag.visits import Visit

T = 6
GIVEN: dict[str, Any] = {"cond": COND, "uncond": UNCOND, "strong": 3.0}


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize(
    "method", [Standard(), Resampling(), EndToEnd(), ZSampling(span=2), Z2Sampling(strength=0.3), ImplicitZ()]
)
def test_the_second_plan_of_a_method_is_the_first(method: Any, order: int) -> None:
    solver = DPMSolver.on(DDIM.stable_diffusion(T), order=order)
    path, steps = first = plan_path(method, solver)
    assert plan_path(method, solver) is first
    assert path == tuple(method.path(T))
    assert steps == steps_of(path, solver)


def test_plans_are_those_of_their_solver_and_settings() -> None:
    short, long = DDIM.stable_diffusion(T), DDIM.stable_diffusion(2 * T)
    assert len(plan_path(Standard(), short)[0]) == T
    assert len(plan_path(Standard(), long)[0]) == 2 * T
    assert plan_path(Z2Sampling(warmup=1), short)[0] != plan_path(Z2Sampling(warmup=2), short)[0]


class Growing:
    """A method of a user's, with a path that is another each time."""

    def __init__(self) -> None:
        self.steps = 0

    def path(self, T: int) -> Iterable[Move]:
        self.steps += 1
        return ZSampling(steps=self.steps).path(T)


@dataclass(frozen=True)
class Reversing(Standard):
    """One derived from a method here, with a path that nothing in its fields says."""

    calls: list[int]
    __hash__ = object.__hash__

    def path(self, T: int) -> tuple[Move, ...]:
        self.calls.append(T)
        return super().path(T)


def test_a_users_method_is_asked_for_its_path_each_time() -> None:
    solver, growing, reversing = DDIM.stable_diffusion(T), Growing(), Reversing([])
    assert [len(plan_path(growing, solver)[0]) for _ in range(3)] == [T + 2, T + 4, T + 6]
    for _ in range(2):
        plan_path(reversing, solver)
    assert reversing.calls == [T, T]


class Half:
    """A rule without a hash."""

    reads_state = False
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Half)

    def __call__(self, gap: Tensor, cached: Tensor, step: StepInfo, *seen: Any) -> Tensor:
        return torch.full_like(gap[:, 0], 0.5)


def test_a_strength_without_a_hash_is_walked_all_the_same() -> None:
    solver = DDIM.stable_diffusion(T)
    ruled, plain = (
        sample(lambda x, t, c: 0.1 * x * c[:, None], X, solver, Z2Sampling(strength=strength), **GIVEN)
        for strength in (Half(), 0.5)
    )
    torch.testing.assert_close(ruled, plain)


def test_a_sweep_keeps_a_bounded_number_of_plans_and_no_solver() -> None:
    solver = DDIM.stable_diffusion(T)
    for k in range(3 * _MOST_KEPT):
        plan_path(Z2Sampling(strength=k / 7), solver)
        assert 1 <= len(_KEPT[solver]) <= _MOST_KEPT
    gone = weakref.ref(solver)
    del solver
    gc.collect()
    assert gone() is None


def test_a_gap_is_let_go_before_the_next_evaluation() -> None:
    gaps: list[weakref.ref[Tensor]] = []
    alive: list[bool] = []

    def model(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        alive.append(any(gap() is not None for gap in gaps))
        return 0.3 * torch.sin(x) * cond[:, None]

    def noting(visit: Visit) -> None:
        if visit.gap is not None and not any(gap() is visit.gap for gap in gaps):
            gaps.append(weakref.ref(visit.gap))

    for visit in walk(model, X, DDIM.stable_diffusion(T), Z2Sampling(warmup=1), callback=noting, **GIVEN):
        del visit
    assert len(gaps) >= T - 2
    assert not any(alive)
