"""EDICT, O-BELM and Rex against their formulas written out, and there and back again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from support.grids import Grid, grids
from support.predictors import field
from support.reversible import SCHEMES, Near, Straight, solver_of
from support.sampling import COND, UNCOND, X
from support.tensors import assert_finite_within
from zigzag.guidance import CFG
from zigzag.guided import Answer, Guided
from zigzag.inversion import EDICT, OBELM, Reversible, fresh, invert, obelm, reconstruct
from zigzag.inversion.scheme import Pair, Run, answered
from zigzag.inversion.settling import settle
from zigzag.roles import Role, Roles
from zigzag.solvers import DDIM, FlowEuler, Solver, Spherical

DTYPES = (torch.float64, torch.float32)
each_scheme = pytest.mark.parametrize("name", list(SCHEMES))
scales = st.sampled_from([1.0, 0.0, 3.0, -1.0])


def eps_of(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps


def options(w: float) -> dict[str, Any]:
    return {"cond": COND, "uncond": UNCOND, "guidance": w}


def up(name: str, grid: Grid, w: float, x: Tensor) -> Any:
    return invert(field, x, solver_of(name, grid), SCHEMES[name], accuracy=1e12, **options(w))


@each_scheme
@given(grid=grids(), w=scales, dtype=st.sampled_from(DTYPES))
def test_the_way_down_is_the_formulas_of_the_paper(name: str, grid: Grid, w: float, dtype: torch.dtype) -> None:
    """In the dtype of the state within the rounding that the formulas, in float64, carry along."""
    straight, solver = Straight(name, grid, w, eps_of(dtype)), solver_of(name, grid)
    x = X.to(dtype)
    *_, last = straight.all_down(x.double())
    made = reconstruct(field, fresh(x, solver, SCHEMES[name]), solver, **options(w))
    assert made.dtype == dtype
    assert_finite_within(made, last[0].value, last[0].off)


@each_scheme
@given(grid=grids(), w=scales, dtype=st.sampled_from(DTYPES))
def test_the_way_up_is_the_formulas_solved(name: str, grid: Grid, w: float, dtype: torch.dtype) -> None:
    straight, x = Straight(name, grid, w, eps_of(dtype)), X.to(dtype)
    *_, last = straight.all_up(x.double())
    wanted = last[::-1] if name == "OBELM" else last  # (x_0, x_1) of (x_1, x_0)
    for state, near in zip(up(name, grid, w, x).states, wanted, strict=True):
        assert_finite_within(state, near.value, near.off)


@each_scheme
@given(grid=grids(), w=scales, dtype=st.sampled_from(DTYPES))
def test_data_come_back(name: str, grid: Grid, w: float, dtype: torch.dtype) -> None:
    """Within the rounding of each interval, carried down from there: no growth, whatever the way up did to it."""
    x, solver = X.to(dtype), solver_of(name, grid)
    bound = Straight(name, grid, w, eps_of(dtype)).missed_data(x.double())
    back = reconstruct(field, up(name, grid, w, x), solver, **options(w))
    assert_finite_within(back, x, bound)


@each_scheme
@given(grid=grids(), w=scales)
def test_noise_comes_back(name: str, grid: Grid, w: float) -> None:
    """From the whole pair at the data, within the rounding of each interval carried up from there."""
    straight, solver, scheme = Straight(name, grid, w, eps_of(X.dtype)), solver_of(name, grid), SCHEMES[name]
    assert isinstance(scheme, Reversible)
    settled = settle(field, X, solver, COND, UNCOND, w, "auto")
    run = settled.run(solver, None)
    pair = answered(scheme.start(run, X), settled.model)
    for i in range(scheme.first, len(solver)):
        pair = answered(scheme.forward(run, i, *pair), settled.model)
    for i in reversed(range(scheme.first, len(solver))):
        pair = answered(scheme.inverse(run, i, *pair), settled.model)
    assert_finite_within(scheme.noise_first(*pair)[0], X, straight.missed_noise(X))


class AnotherInterval(Straight):
    """The formulas with the coefficients of the neighbouring interval."""

    def ab(self, i: int) -> tuple[float, float]:
        return super().ab(i + 1 if i + 1 < self.T else i - 1)

    def weights(self, i: int) -> tuple[float, float, float]:
        return super().weights(i + 1 if i + 1 < self.T else i - 1)


class AnotherTime(Straight):
    """The formulas with the time of the neighbouring knot."""

    def e(self, x: Near, i: int) -> Near:
        return super().e(x, i - 1 if i else i + 1)


class SameRoles(Straight):
    """The formulas with x first in every step."""

    def down(self, i: int, x: Near, y: Near) -> tuple[Near, Near]:
        if not isinstance(self.scheme, EDICT):
            return super().down(i, x, y)
        old, self.times = self.times, self.times[i:]
        first, self.knots = self.knots, self.knots[i:]
        levels, self.alphas, self.sigmas = (self.alphas, self.sigmas), self.alphas[i:], self.sigmas[i:]
        try:
            return super().down(0, x, y)
        finally:
            self.times, self.knots, (self.alphas, self.sigmas) = old, first, levels


@pytest.mark.parametrize("kind", ["vp", "flow", "spherical"])
@pytest.mark.parametrize("other", [AnotherInterval, AnotherTime, SameRoles])
@each_scheme
def test_the_formulas_of_a_mutant_are_refused(name: str, kind: str, other: type[Straight]) -> None:
    """By a factor of a million too, where the scheme has what they change."""
    grid = uneven(kind)
    solver = solver_of(name, grid)
    made = reconstruct(field, fresh(X, solver, SCHEMES[name]), solver, **options(3.0))
    for straight, fails in ((Straight, False), (other, other is not SameRoles or name.startswith("EDICT"))):
        *_, (last, _) = straight(name, grid, 3.0, eps_of(X.dtype)).all_down(X)
        off = float((made - last.value).abs().max())
        assert (off > 1e6 * last.off) == fails and (off <= last.off) != fails, (off, last.off)


# What a way up might do instead.


def not_alternated(scheme: Reversible, run: Run, i: int, x: Tensor, y: Tensor) -> Iterator[Any]:
    x, y = (y, x) if i % 2 else (x, y)
    x, y = yield from scheme.inverse(run, i, x, y)
    return (y, x) if i % 2 else (x, y)


def neighbour(scheme: Reversible, run: Run, i: int, x: Tensor, y: Tensor) -> Iterator[Any]:
    """The coefficients of the next interval, but for the last: that of the one before."""
    n = i + 1 if i + 1 < len(run.solver) else i - 1

    class Other(Run):
        def step(self, _: int, remembered: object = ()) -> Any:
            return super().step(n)

    own = obelm._coefficients
    obelm._coefficients = lambda solver, _: own(solver, n)
    try:
        return (yield from scheme.inverse(Other(run.solver, run.guided), i, x, y))
    finally:
        obelm._coefficients = own


def told_another(scheme: Reversible, run: Run, i: int, x: Tensor, y: Tensor) -> Iterator[Any]:
    """The time one knot off."""

    class Other(Run):
        def predict(self, x: Tensor, i: int, told: int | None = None) -> Any:
            n = i if told is None else told
            return (yield from super().predict(x, i, n - 1 if n else n + 1))

    return (yield from scheme.inverse(Other(run.solver, run.guided), i, x, y))


@dataclass(frozen=True)
class Mutant(Reversible):
    """A scheme with another way up."""

    scheme: Reversible
    other: Callable[..., Iterator[Any]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "first", self.scheme.first)
        for name in ("check", "forward", "enter", "start", "noise_first"):
            object.__setattr__(self, name, getattr(self.scheme, name))

    def check(self, solver: Solver) -> None: ...

    def forward(self, run: Run, i: int, x: Tensor, y: Tensor) -> Any: ...

    def inverse(self, run: Run, i: int, x: Tensor, y: Tensor) -> Any:
        return (yield from self.other(self.scheme, run, i, x, y))


UNEVEN = (1.0, 0.83, 0.7, 0.42, 0.3, 0.0)


def uneven(kind: str) -> Grid:
    """A grid of five steps, no two alike."""
    s = torch.tensor(UNEVEN, dtype=torch.float64)
    if kind == "flow":
        return Grid(kind, FlowEuler(s), s.tolist())
    if kind == "spherical":
        return Grid(kind, Spherical(1.4 * s), (1.4 * s).tolist())
    phi = 1.4 * s
    return Grid(kind, DDIM(phi.cos(), phi.sin(), phi[:-1]), phi.tolist())


MUTANTS = [
    *((name, not_alternated) for name in SCHEMES if name.startswith("EDICT")),
    *((name, other) for name in SCHEMES for other in (neighbour, told_another)),
]


@pytest.mark.parametrize("kind", ["vp", "flow", "spherical"])
@pytest.mark.parametrize(("name", "other"), MUTANTS, ids=[f"{name}, {other.__name__}" for name, other in MUTANTS])
def test_data_do_not_come_back_by_a_mutant(name: str, kind: str, other: Callable[..., Iterator[Any]]) -> None:
    """The bound of the round trip refuses each, by a factor of a million."""
    grid, w = uneven(kind), 3.0
    solver, bound = solver_of(name, grid), Straight(name, grid, w, eps_of(X.dtype)).missed_data(X)
    scheme = SCHEMES[name]
    assert isinstance(scheme, Reversible)
    for mutant, fails in ((scheme, False), (Mutant(scheme, other), True)):
        inverted = invert(field, X, solver, mutant, accuracy=1e12, **options(w))
        back = reconstruct(field, replace(inverted, scheme=scheme), solver, **options(w))
        off = float((back - X).abs().max())
        assert (off > 1e6 * bound) == fails and (off <= bound) != fails, (off, bound)


def test_the_pair_of_data_is_of_the_data_alone() -> None:
    """EDICT and Rex come back with the pair that they began with: both states are the data."""
    grid = uneven("vp")
    for name in ("EDICT", "Rex"):
        scheme, solver = SCHEMES[name], solver_of(name, grid)
        assert isinstance(scheme, Reversible)
        settled = settle(field, X, solver, COND, UNCOND, 1.0, "auto")
        run = settled.run(solver, None)
        pair: Pair = answered(scheme.up(run, X, None), settled.model).states  # type: ignore[assignment]
        for i in range(len(solver)):
            pair = answered(scheme.forward(run, i, *pair), settled.model)
        bound = Straight(name, grid, 1.0, eps_of(X.dtype)).missed_data(X)
        for state in pair:
            assert_finite_within(state, X, 2 * bound)


def frozen(solver: Solver) -> Run:
    """A run whose model says nothing: what the scheme alone does to a difference."""
    role = Role("strong", CFG(1.0))
    return Run(solver, Guided(Roles(role, role, role), solver))


def zero(query: Any) -> Any:
    return Answer({"cond": torch.zeros_like(query.x)}, 1)


@pytest.mark.parametrize("kind", ["vp", "flow"])
@pytest.mark.parametrize("name", ["EDICT", "EDICT, p = 0.8", "Rex"])
def test_the_growth_is_by_how_much_the_way_up_parts_two_states(name: str, kind: str) -> None:
    """In the variables in which a = 1: `|x_0 − y_0|/α_0 = growth·|x_T − y_T|/α_T` with a constant field."""
    grid, scheme = uneven(kind), SCHEMES[name]
    assert isinstance(scheme, Reversible)
    solver = solver_of(name, grid)
    x, y = X, X + 1e-3
    for i in reversed(range(len(solver))):
        x, y = answered(scheme.inverse(frozen(solver), i, x, y), zero)
    scale = 1.0 if kind == "flow" else float(solver.alphas[0] / solver.alphas[-1])
    growth = scheme.growth(solver)
    torch.testing.assert_close((y - x).abs(), torch.full_like(X, 1e-3 * growth * scale), rtol=1e-9, atol=0)


@pytest.mark.parametrize("kind", ["vp", "flow", "spherical"])
def test_the_growth_of_obelm_is_that_of_the_difference_of_neighbours(kind: str) -> None:
    """`(h_first/h_last)²` where the steps fall, in `x/α` (of which the circle is exact): `x_0/c_0 − x_1/c_1` over that
    of the last two knots."""
    s = torch.tensor([1.0, 0.6, 0.35, 0.2, 0.1], dtype=torch.float64)
    solver: Solver = FlowEuler(s)
    if kind == "vp":
        solver = DDIM((1.4 * s).cos(), (1.4 * s).sin(), s[:-1])
    if kind == "spherical":
        solver = Spherical(0.02 * s)  # so near the data that its chord is its arc
    T, scheme = len(solver), OBELM()
    c = solver.alphas if kind == "vp" else torch.ones_like(s)
    before, after = X / c[T] * c[T - 1] + 1e-3, X
    first = (before / c[T - 1] - after / c[T]).abs()
    x, y = after, before
    for i in reversed(range(1, T)):
        x, y = answered(scheme.inverse(frozen(solver), i, x, y), zero)
    rtol = 2e-2 if kind == "spherical" else 1e-9
    torch.testing.assert_close((y / c[0] - x / c[1]).abs(), scheme.growth(solver) * first, rtol=rtol, atol=0)
