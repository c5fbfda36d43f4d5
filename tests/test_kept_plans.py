"""A plan that is kept is the one that would be made: for methods that are values, on grids that never change."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from support.sampling import COND, UNCOND, X
from zigzag import DDIM, EndToEnd, ImplicitZ, Resampling, Standard, Z2Sampling, ZSampling, sample, walk
from zigzag.held import steps_of
from zigzag.moves import Move
from zigzag.paths import MOST_KEPT, plan_path
from zigzag.solvers import AffineStep, DPMSolver, StepInfo
from zigzag.visits import Visit

T = 6
GIVEN: dict[str, Any] = {"cond": COND, "uncond": UNCOND, "strong": 3.0}


def model(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
    return 0.3 * torch.sin(x) * cond[:, None]


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


@dataclass(frozen=True)
class Named:
    """A rule whose equality is that of its name."""

    name: str
    values: Tensor = field(compare=False)
    reads_state: ClassVar[bool] = False

    def __call__(self, gap: Tensor, cached: Tensor, step: StepInfo, *seen: Any) -> Tensor:
        return self.values


def test_rules_that_are_equal_and_act_otherwise_are_two() -> None:
    solver = DDIM.stable_diffusion(T)
    ruled = [
        sample(model, X, solver, Z2Sampling(strength=strength), **GIVEN)
        for half in (0.5, 1.0)
        for strength in (Named("mine", torch.full((2,), half, dtype=torch.float64)), half)
    ]
    torch.testing.assert_close(ruled[0], ruled[1])
    torch.testing.assert_close(ruled[2], ruled[3])
    assert (ruled[0] - ruled[2]).abs().max() > 1e-3


class Same(DDIM):
    """Solvers that say that they are equal."""

    gain = 1.0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same)

    def __hash__(self) -> int:
        return 0

    def coefficients(self, i: int, j: int, remembered: tuple[int, ...]) -> AffineStep:
        step = super().coefficients(i, j, remembered)
        return AffineStep(step.a, self.gain * step.b)


def test_a_plan_is_of_the_solver_itself_and_of_what_it_is_set_to() -> None:
    grid = DDIM.stable_diffusion(T)
    one, other = (Same(grid.alphas, grid.sigmas, grid.times) for _ in range(2))
    other.gain = 0.5
    assert plan_path(Standard(), one)[1][0].step.b == 2 * plan_path(Standard(), other)[1][0].step.b
    noisy = DDIM(grid.alphas, grid.sigmas, grid.times, eta=1.0)
    held = plan_path(ZSampling(), noisy)[1]
    noisy.fresh_noise = True
    assert [h.draws for h in plan_path(ZSampling(), noisy)[1]] != [h.draws for h in held]


def test_a_sweep_keeps_a_bounded_number_of_plans() -> None:
    solver = DDIM.stable_diffusion(T)
    for k in range(3 * MOST_KEPT):
        plan_path(Z2Sampling(strength=k / 7), solver)
        assert 1 <= len(solver.plans) <= MOST_KEPT


def test_a_gap_is_let_go_before_the_next_evaluation() -> None:
    gaps: list[weakref.ref[Tensor]] = []
    alive: list[bool] = []

    def watching(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        alive.append(any(gap() is not None for gap in gaps))
        return model(x, t, cond)

    def noting(visit: Visit) -> None:
        if visit.gap is not None and not any(gap() is visit.gap for gap in gaps):
            gaps.append(weakref.ref(visit.gap))

    for visit in walk(watching, X, DDIM.stable_diffusion(T), Z2Sampling(warmup=1), callback=noting, **GIVEN):
        del visit
    assert len(gaps) >= T - 2
    assert not any(alive)
