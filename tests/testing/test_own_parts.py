"""`zigzag.testing` holds the parts of the library, and refuses mutants of each with a sentence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from support.held import SOLVERS, make
from support.tensors import noise
from support.theorems import SOLVERS as FIRST
from zigzag import (
    APG,
    CFG,
    DDIM,
    AffineStep,
    CFGPlusPlus,
    CFGZeroStar,
    Denoise,
    EndToEnd,
    FlowEuler,
    ImplicitZ,
    Interval,
    Invert,
    Polaris,
    Resampling,
    RescaledCFG,
    Solver,
    Spherical,
    Standard,
    Z2Sampling,
    ZSampling,
)
from zigzag.inversion import EDICT, OBELM, FixedPoint, Recorded, Rex
from zigzag.inversion.endings import ending_above
from zigzag.solvers import DPMSolver
from zigzag.testing import check_guidance, check_inversion, check_method, check_predictor, check_solver
from zigzag.testing.strategies import solvers
from zigzag.zoo import Digits

# Solvers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*FIRST, *SOLVERS])
def test_every_solver_is_held(name: str) -> None:
    solver = FIRST.get(name) or make(name)
    check_solver(solver, marginal=name not in ("LCM", "DDPM, large", "ancestral, large"))


@settings(max_examples=20)
@given(solvers())
def test_solvers_on_random_grids_are_held(solver: Solver) -> None:
    check_solver(solver)


def smooth(T: int) -> Solver:
    """It ends above clean data, where a multistep solver steps at order 1."""
    return Spherical(torch.linspace(1.4, 0.3, T + 1, dtype=torch.float64))


def test_the_order_is_measured() -> None:
    check_solver(smooth(4), order=1, refined=smooth)
    second = lambda T: DPMSolver.on(smooth(T), order=2, lower_order_final=False)  # noqa: E731
    check_solver(second(6), order=2, refined=second)
    with pytest.raises(AssertionError, match="has the order"):
        check_solver(smooth(4), order=2, refined=smooth)
    with pytest.raises(TypeError, match="refined="):
        check_solver(smooth(4), order=1)


class Off(DPMSolver):
    """DPM-Solver++ 2M with something of its step changed."""

    changes: Any = staticmethod(lambda step: step)

    def coefficients(self, i: int, j: int, remembered: tuple[int, ...]) -> AffineStep:
        return self.changes(super().coefficients(i, j, remembered))


@pytest.mark.parametrize(
    "changes",
    [
        lambda s: replace(s, a=s.a * (1 + 1e-6)),
        lambda s: replace(s, b=s.b * (1 + 1e-6)),
        lambda s: replace(s, memory=tuple(m * (1 + 1e-5) for m in s.memory)) if s.memory else s,
        lambda s: replace(s, memory=()),
        lambda s: replace(s, noise=1e-3),
    ],
)
def test_a_solver_whose_step_is_off_is_refused(changes: Any) -> None:
    mutant = type("Mutant", (Off,), {"changes": staticmethod(changes)}).on(DDIM.stable_diffusion(6))
    with pytest.raises(AssertionError, match=r"step \d -> \d.* a true pair is led to another share"):
        check_solver(mutant)


def test_a_solver_that_remembers_something_else_is_refused() -> None:
    class Squares(DPMSolver):
        def remember(self, i: int, x: Tensor, e: Tensor) -> Tensor:
            return super().remember(i, x, e) ** 2

    with pytest.raises(AssertionError, match="not linear"):
        check_solver(Squares.on(DDIM.stable_diffusion(6)), marginal=False)


# Guidance --------------------------------------------------------------------------------------------------------

RULES = [CFG(3.0), CFG(1.0), CFG(0.0), CFG(noise(0, 3)), CFGPlusPlus(0.6), RescaledCFG(3.0), Interval(CFG(2.0), 1, 3),
         Polaris(), APG(4.0, norm=3.0, momentum=-0.5), CFGZeroStar(2.0), Interval(APG(2.0), 2)]  # fmt: skip


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_every_guidance_is_held(rule: Any) -> None:
    check_guidance(rule)


class Rule(CFG):
    """CFG with something changed."""

    def __init__(self, scale: float, e: Any = None, branches: Any = None) -> None:
        super().__init__(scale)
        self.e, self.needs, self.calls = e, branches, 0

    def branches(self, step: Any) -> Any:
        self.calls += 1
        return super().branches(step) if self.needs is None else self.needs(self.calls)

    def __call__(self, e_c: Any, e_u: Any, step: Any) -> Any:
        e = super().__call__(e_c, e_u, step)
        return e if self.e is None else self.e(e, e_c, self.calls)


@pytest.mark.parametrize(
    ("rule", "match"),
    [
        (Rule(3.0, branches=lambda n: [True, True]), "two bools"),
        (Rule(3.0, branches=lambda n: (n % 2 == 0, True)), "more than the step"),
        (Rule(3.0, e=lambda e, e_c, n: e[:1]), r"makes \(1,"),
        (Rule(3.0, e=lambda e, e_c, n: e.float()), "float32"),
        (Rule(3.0, e=lambda e, e_c, n: e_c.zero_()), "writes to what it is given"),
        (Rule(3.0, e=lambda e, e_c, n: e + e.mean()), "depends on its batch"),
        (Rule(3.0, e=lambda e, e_c, n: 2 * e), "two equal branches"),
        (Rule(3.0, e=lambda e, e_c, n: e_c + 0.5 * (e - e_c)), "not linear"),
        (Rule(3.0, e=lambda e, e_c, n: e + torch.rand(()).double()), "answers otherwise"),
        (type("Other", (), {})(), "must have branches"),
    ],
)
def test_a_guidance_that_is_off_is_refused(rule: Any, match: str) -> None:
    with pytest.raises(AssertionError, match=match):
        check_guidance(rule)


# Methods ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    [Standard(), Resampling(), EndToEnd(), ZSampling(rounds=2, span=2), ZSampling(refine=1), ZSampling(released=True),
     ZSampling(plain=True), ImplicitZ(), ImplicitZ(strength=0.5), Z2Sampling()],
    ids=repr,
)  # fmt: skip
def test_every_method_is_held(method: Any) -> None:
    check_method(method)


class Path:
    def __init__(self, path: Any) -> None:
        self.of = path

    def path(self, T: int) -> Any:
        return self.of(T) if callable(self.of) else next(self.of).path(T)


@pytest.mark.parametrize(
    ("path", "match"),
    [
        (lambda T: [Denoise(i, i + 1) for i in range(T - 1)], "ends at knot 7"),
        (lambda T: [Denoise(i, i + 1) for i in range(1, T)], "begins at knot 1"),
        (iter([Standard(), Standard(), ZSampling(), Standard()]), "another one"),
    ],
)  # fmt: skip
def test_a_method_that_is_off_is_refused(path: Any, match: str) -> None:
    with pytest.raises(AssertionError, match=match):
        check_method(Path(path))


# Predictors ------------------------------------------------------------------------------------------------------


def test_a_predictor_of_the_zoo_is_held() -> None:
    digits, solver = Digits(), DDIM.stable_diffusion(4)
    x = solver.noise((3, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    check_predictor(digits.predictor(solver), x, solver, torch.arange(3))


KEPT = torch.zeros(3, 4, dtype=torch.float64)


def _overwrites(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
    kept = KEPT if len(x) == len(KEPT) else x.clone()
    return kept.copy_(x.sin())


@pytest.mark.parametrize(
    ("fn", "match"),
    [
        (lambda x, t, cond: x[:, :2], "shape of x"),
        (lambda x, t, cond: x.mul_(2), "writes to x"),
        (lambda x, t, cond: x + torch.rand(()).double(), "something else when it is asked again"),
        (lambda x, t, cond: x - x.mean(), "depends on its batch"),
        (lambda x, t, cond: x + float("nan"), "not finite"),
        (_overwrites, "overwrites what it returned"),
        (lambda x, t, cond: x.sin() + 1, "not the true prediction"),
    ],
)
def test_a_predictor_that_is_off_is_refused(fn: Any, match: str) -> None:
    with pytest.raises(AssertionError, match=match):
        check_predictor(fn, noise(0, 3, 4), FlowEuler.uniform(3), noise(1, 3), truth=lambda x, at: x.sin())


# Inversion -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scheme", [FixedPoint(tol=1e-10, most=100), EDICT(), OBELM(), Recorded(), Recorded("independent")], ids=repr
)
def test_every_scheme_is_held(scheme: Any) -> None:
    check_inversion(scheme, DDIM.stable_diffusion(8))


def test_rex_is_held_above_data() -> None:
    check_inversion(Rex(), ending_above(DDIM.stable_diffusion(8)))


def test_a_scheme_that_does_not_come_back_is_refused() -> None:
    class Plain(Recorded):
        def down(self, run: Any, found: Any) -> Any:
            return (yield from super().down(run, replace(found, residuals=0 * found.residuals)))

    with pytest.raises(AssertionError, match="does not come back"):
        check_inversion(Plain(), DDIM.stable_diffusion(8))


def test_invert_is_a_move() -> None:
    """The path of a zigzag written by hand is held as the method is."""
    check_method(
        Path(lambda T: [m for i in range(T) for m in (Denoise(i, i + 1), Invert(i + 1, i), Denoise(i, i + 1))])
    )
