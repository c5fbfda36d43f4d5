"""Every step is affine, x_j = a·x_i + b·e, and its inverse is the algebraic one (DESIGN, section 2)."""

import math
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass
from fractions import Fraction
from itertools import accumulate
from typing import Any, NamedTuple, Protocol

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from zigzag.solvers import (
    DDIM,
    AffineStep,
    FlowEuler,
    Solver,
    Spherical,
    ddim_inverse,
    ddim_step,
    flow_inverse,
    flow_step,
    spherical_inverse,
    spherical_step,
)

EPS = torch.finfo(torch.float64).eps
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
seeds = st.integers(0, 2**31 - 1)
# A relative bound says nothing of subnormal numbers.
signed = st.floats(-100.0, 100.0).map(lambda b: b if abs(b) > 1e-200 else 0.0)


class StepLike(Protocol):
    @property
    def a(self) -> Any: ...
    @property
    def b(self) -> Any: ...
    @property
    def c(self) -> Any: ...
    @property
    def d(self) -> Any: ...


@dataclass(frozen=True)
class Mutant:
    """A step whose inverse need not be the inverse of its forward."""

    a: Any
    b: Any
    c: Any
    d: Any

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        return self.a * x + self.b * e

    def inverse(self, x: Tensor, e: Tensor) -> Tensor:
        return self.c * x + self.d * e


class Grid(NamedTuple):
    """A solver beside the numbers that it was built from."""

    kind: str
    solver: Solver
    knots: list[float]


@st.composite
def falling(draw: st.DrawFn, high: float, low: float = 0.0) -> list[float]:
    """Three to eight numbers that fall strictly from `high` to `low`, unevenly."""
    gaps = draw(st.lists(st.floats(0.05, 1.0), min_size=2, max_size=7))
    total = math.fsum(gaps)
    inner = [high - (high - low) * s / total for s in accumulate(gaps[:-1])]
    return [high, *inner, low]


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    """A random grid of each solver, with α_0 >= cos 1.45 ≈ 0.12, so that every 1/a stays finite in fp16."""
    kind = draw(st.sampled_from(["vp", "edm", "flow", "spherical"]))
    if kind == "vp":
        knots = draw(falling(1.45))
        alphas, sigmas = [math.cos(p) for p in knots], [math.sin(p) for p in knots]
        times = torch.arange(len(knots) - 1, 0, -1)
        return Grid(kind, DDIM(torch.tensor(alphas).double(), torch.tensor(sigmas).double(), times), knots)
    if kind == "edm":
        sigma = torch.tensor(draw(falling(20.0)), dtype=torch.float64)
        return Grid(kind, DDIM(torch.ones_like(sigma), sigma, sigma[:-1]), sigma.tolist())
    knots = draw(falling(1.0)) if kind == "flow" else draw(falling(1.45))
    tensor = torch.tensor(knots, dtype=torch.float64)
    return Grid(kind, FlowEuler(tensor) if kind == "flow" else Spherical(tensor), knots)


@st.composite
def spans(draw: st.DrawFn) -> tuple[Grid, int, int]:
    grid = draw(grids())
    i = draw(st.integers(0, len(grid.solver) - 1))
    return grid, i, draw(st.integers(i + 1, len(grid.solver)))


def noise(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def left(c: Any, x: Tensor) -> Tensor:
    """A coefficient as float64, broadcast from the left against x."""
    c = torch.as_tensor(c, dtype=torch.float64)
    return c.reshape(c.shape + (1,) * (x.ndim - c.ndim))


def assert_within(actual: Tensor, expected: Tensor, bound: Tensor | float) -> None:
    """|actual − expected| <= bound, element by element, in float64."""
    gap = (actual.double() - expected.double()).abs()
    bound = torch.as_tensor(bound, dtype=torch.float64)
    assert torch.isfinite(gap).all()
    assert (gap <= bound).all(), f"off by {(gap / bound.clamp_min(1e-300)).max().item():.3g} bounds"


# The dualities ---------------------------------------------------------------------------------------------


def check_duality(step: StepLike) -> None:
    """a·c = 1, b·c + d = 0, a·d + b = 0, each to four ulp (three roundings of half an ulp, and slack)."""
    a, b, c, d = (torch.as_tensor(v, dtype=torch.float64) for v in (step.a, step.b, step.c, step.d))
    assert_within(a * c, torch.ones_like(a), 4 * EPS)
    assert_within(b * c + d, torch.zeros_like(d), 4 * EPS * d.abs())
    assert_within(a * d + b, torch.zeros_like(b), 4 * EPS * b.abs())


@given(spans())
def test_every_step_of_every_grid_and_span_is_dual_to_its_inverse(span: tuple[Grid, int, int]) -> None:
    """Lemma 1 of DESIGN section 2, for steps i -> j with j >= i + 1."""
    grid, i, j = span
    step = grid.solver.step(i, j)
    assert all(isinstance(v, float) for v in (step.a, step.b, step.c, step.d))
    check_duality(step)


@given(
    st.lists(st.tuples(st.floats(0.01, 100.0), signed), min_size=1, max_size=5),
    st.booleans(),
)
def test_dualities_hold_for_numbers_and_for_one_coefficient_per_sample(
    pairs: list[tuple[float, float]], negative: bool
) -> None:
    a, b = torch.tensor(pairs, dtype=torch.float64).unbind(1)
    a = -a if negative else a
    step = AffineStep(a, b)
    assert torch.as_tensor(step.c).shape == torch.as_tensor(step.d).shape == a.shape
    check_duality(step)
    check_duality(AffineStep(a[0], b[0]))
    check_duality(AffineStep(a[0].item(), b[0].item()))


def test_the_duality_check_refuses_the_swapped_spherical_inverse_and_the_neighbouring_interval() -> None:
    """Mutants: c = cos δ and d = sin δ (so a·c = cos² δ); c and d of the step i+1 -> i+2."""
    solver = Spherical(torch.tensor([1.4, 0.9, 0.5, 0.0], dtype=torch.float64))
    step, neighbour, delta = solver.step(0), solver.step(1), 1.4 - 0.9
    check_duality(step)
    with pytest.raises(AssertionError):
        check_duality(Mutant(step.a, step.b, math.cos(delta), math.sin(delta)))
    with pytest.raises(AssertionError):
        check_duality(Mutant(step.a, step.b, neighbour.c, neighbour.d))


# Round trips -----------------------------------------------------------------------------------------------


def check_round_trips(
    forward: Callable[[Tensor, Tensor], Tensor],
    inverse: Callable[[Tensor, Tensor], Tensor],
    step: StepLike,
    x: Tensor,
    e: Tensor,
) -> None:
    """|Ψ(Φ(x)) − x| <= 5·eps·(|c||y| + |d e|) and |Φ(Ψ(y)) − y| <= 5·eps·(|a||x| + |b e|).

    Derivation, u = eps/2: one pass rounds its coefficients, its products and its sum, 3u of the sum of the
    magnitudes; the second pass carries the first one's error and adds its own; |x| <= |c y| + |d e| closes
    it with 9u in all. Where a product is subnormal (fp16) a rounding may cost the smallest subnormal instead.
    """
    eps, tiny = torch.finfo(x.dtype).eps, torch.finfo(x.dtype).tiny
    a, b, c, d = (left(v, x).abs() for v in (step.a, step.b, step.c, step.d))
    floor = eps * tiny * (1 + e.double().abs())

    y = forward(x, e)
    assert y.dtype == x.dtype and y.shape == x.shape
    bound = 5 * eps * (c * y.double().abs() + d * e.double().abs()) + floor * (1 + c)
    assert_within(inverse(y, e), x, bound)

    back = inverse(x, e)
    assert back.dtype == x.dtype and back.shape == x.shape
    bound = 5 * eps * (a * back.double().abs() + b * e.double().abs()) + floor * (1 + a)
    assert_within(forward(back, e), x, bound)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(span=spans(), seed=seeds)
def test_a_step_and_its_inverse_undo_each_other_within_the_rounding_bound(
    dtype: torch.dtype, span: tuple[Grid, int, int], seed: int
) -> None:
    grid, i, j = span
    x, e = noise(seed, 2, 3, 4, dtype=dtype), noise(seed + 1, 2, 3, 4, dtype=dtype)
    step = grid.solver.step(i, j)
    check_round_trips(step.forward, step.inverse, step, x, e)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(st.lists(st.tuples(st.floats(0.1, 4.0), st.floats(-4.0, 4.0)), min_size=3, max_size=3), seeds)
def test_per_sample_steps_undo_each_other_within_the_rounding_bound(
    dtype: torch.dtype, pairs: list[tuple[float, float]], seed: int
) -> None:
    """a and b are float64 of shape (B,), the state is of any dtype: they are cast, it keeps its own."""
    step = AffineStep(*torch.tensor(pairs, dtype=torch.float64).unbind(1))
    x, e = noise(seed, 3, 3, 4, dtype=dtype), noise(seed + 1, 3, 3, 4, dtype=dtype)
    check_round_trips(step.forward, step.inverse, step, x, e)


def test_the_round_trip_check_refuses_wrong_inverses() -> None:
    """Mutants: the inverse of the neighbouring interval, in every solver and dtype; swapped spherical."""
    t = torch.tensor([0.95, 0.6, 0.35, 0.0], dtype=torch.float64)
    x, e = noise(0, 2, 3, 4), noise(1, 2, 3, 4)
    for solver in (DDIM(t.cos(), t.sin(), t[:-1]), FlowEuler(t), Spherical(t)):
        here, there = solver.step(0), solver.step(1)
        for dtype in DTYPES:
            with pytest.raises(AssertionError):
                check_round_trips(here.forward, there.inverse, here, x.to(dtype), e.to(dtype))
    delta = 0.95 - 0.6
    swapped = Mutant(math.cos(delta), -math.sin(delta), math.cos(delta), math.sin(delta))
    with pytest.raises(AssertionError):
        check_round_trips(swapped.forward, swapped.inverse, swapped, x, e)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(grid=grids(), seed=seeds)
def test_the_pure_functions_undo_each_other_per_sample(dtype: torch.dtype, grid: Grid, seed: int) -> None:
    """*_inverse takes the arguments of *_step, in the same order."""
    solver, n = grid.solver, len(grid.solver)
    x, e = noise(seed, n, 5, dtype=dtype), noise(seed + 1, n, 5, dtype=dtype)
    forward, inverse = pure(grid, torch.arange(n), torch.arange(1, n + 1))
    table = solver.table()
    check_round_trips(forward, inverse, table, x, e)


# One coefficient per sample --------------------------------------------------------------------------------


def check_equals_loop(batched: Callable[..., Tensor], x: Tensor, e: Tensor, *coefficients: Tensor) -> None:
    """One call with (B,) coefficients is B calls with numbers, to the rounding of one affine map."""
    rows = zip(x.split(1), e.split(1), torch.stack(coefficients, 1).tolist(), strict=True)
    expected = torch.cat([batched(one, prediction, *numbers) for one, prediction, numbers in rows])
    actual = batched(x, e, *coefficients)
    assert actual.dtype == x.dtype
    scale = max(1.0, *(c.abs().max().item() for c in coefficients))
    assert_within(actual, expected, 8 * torch.finfo(x.dtype).eps * scale**2 * (x.abs() + e.abs()).double())


FORMS: dict[str, Callable[..., Tensor]] = {
    "forward": lambda x, e, a, b: AffineStep(a, b).forward(x, e),
    "inverse": lambda x, e, a, b: AffineStep(a, b).inverse(x, e),
    "shift": lambda x, e, a, b: AffineStep(a, b).shift(x, e),
    "flow_step": flow_step,
    "flow_inverse": flow_inverse,
    "spherical_step": spherical_step,
    "spherical_inverse": spherical_inverse,
    "ddim_step": lambda x, e, a, b: ddim_step(x, e, a, b, 0.5 + a / 2, b / 2),
    "ddim_inverse": lambda x, e, a, b: ddim_inverse(x, e, a, b, 0.5 + a / 2, b / 2),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", (torch.float64, torch.float32), ids=str)
@pytest.mark.parametrize("shape", [(4,), (4, 4), (4, 2, 4), (4, 1, 2, 2)], ids=str)
def test_per_sample_coefficients_equal_a_loop_over_samples(
    form: str, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    """Coefficients of shape (B,) go with the first dimension of x, also where another one has size B."""
    a = torch.tensor([0.4, 0.95, 0.7, 0.55], dtype=torch.float64)
    b = torch.tensor([0.2, 0.1, 0.35, 0.5], dtype=torch.float64)
    check_equals_loop(FORMS[form], noise(2, *shape, dtype=dtype), noise(3, *shape, dtype=dtype), a, b)


def test_the_loop_check_refuses_broadcasting_from_the_right() -> None:
    def mutant(x: Tensor, e: Tensor, a: Any, b: Any) -> Tensor:
        return a * x + b * e

    a, b = noise(4, 4), noise(5, 4)
    with pytest.raises(AssertionError):
        check_equals_loop(mutant, noise(2, 4, 4), noise(3, 4, 4), a, b)


# Coefficients ----------------------------------------------------------------------------------------------


def check_coefficients(step: StepLike, grid: Grid, i: int, j: int) -> None:
    """The table of DESIGN section 2, in exact arithmetic on the knots (cos and sin excepted)."""
    alpha_i, alpha_j = (Fraction(grid.solver.alphas[k].item()) for k in (i, j))
    sigma_i, sigma_j = (Fraction(grid.solver.sigmas[k].item()) for k in (i, j))
    if grid.kind == "flow":
        assert step.a == 1
        assert abs(Fraction(step.b) - (sigma_j - sigma_i)) <= Fraction(EPS) * (sigma_i - sigma_j)
    elif grid.kind == "spherical":
        delta = grid.knots[i] - grid.knots[j]
        assert abs(step.a - math.cos(delta)) <= 4 * EPS
        assert abs(step.b + math.sin(delta)) <= 4 * EPS
    else:
        a = alpha_j / alpha_i
        assert abs(Fraction(step.a) - a) <= Fraction(EPS) * a
        assert abs(Fraction(step.b) - (sigma_j - a * sigma_i)) <= 2 * Fraction(EPS) * (sigma_j + a * sigma_i)


@given(spans())
def test_the_coefficients_are_those_of_the_design(span: tuple[Grid, int, int]) -> None:
    grid, i, j = span
    check_coefficients(grid.solver.step(i, j), grid, i, j)
    with pytest.raises(AssertionError):  # mutant: the sign of b
        step = grid.solver.step(i, j)
        check_coefficients(AffineStep(step.a, -step.b), grid, i, j)


def pure(grid: Grid, i: Any, j: Any) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """The pure step and inverse i -> j of a grid, knots numbers or index tensors."""
    knots = torch.tensor(grid.knots, dtype=torch.float64)
    alphas, sigmas = grid.solver.alphas, grid.solver.sigmas
    if grid.kind == "flow":
        args = [knots[i], knots[j]]
        pair: Any = (flow_step, flow_inverse)
    elif grid.kind == "spherical":
        args = [knots[i], knots[j]]
        pair = (spherical_step, spherical_inverse)
    else:
        args = [alphas[i], sigmas[i], alphas[j], sigmas[j]]
        pair = (ddim_step, ddim_inverse)
    return tuple(lambda x, e, f=f: f(x, e, *args) for f in pair)  # type: ignore[return-value]


@given(spans(), seeds)
def test_a_solvers_step_is_the_pure_function(span: tuple[Grid, int, int], seed: int) -> None:
    """solver.step(i, j).forward = *_step and .inverse = *_inverse, with () and with (B,) tensors."""
    grid, i, j = span
    step = grid.solver.step(i, j)
    x, e = noise(seed, 3, 4), noise(seed + 1, 3, 4)
    for k, to in ((i, j), (torch.full((3,), i), torch.full((3,), j))):
        forward, inverse = pure(grid, k, to)
        scale = 1 + grid.solver.sigmas[i] * abs(step.a)  # b = σ_j − a σ_i may cancel
        assert_within(forward(x, e), step.forward(x, e), 8 * EPS * (abs(step.a * x) + scale * e.abs()))
        scale = scale * abs(step.c)
        assert_within(inverse(x, e), step.inverse(x, e), 8 * EPS * (abs(step.c * x) + scale * e.abs()))


def test_the_pure_functions_take_python_numbers() -> None:
    x, e = noise(0, 2, 3), noise(1, 2, 3)
    a = 0.9 / 0.6
    expected = a * x + (0.4 - a * 0.8) * e
    assert_within(ddim_step(x, e, 0.6, 0.8, 0.9, 0.4), expected, 8 * EPS * (x.abs() + e.abs()))
    assert_within(flow_step(x, e, 0.8, 0.5), x - (0.8 - 0.5) * e, 4 * EPS * (x.abs() + e.abs()))
    expected = math.cos(0.4) * x - math.sin(0.4) * e
    assert_within(spherical_step(x, e, 1.0, 0.6), expected, 8 * EPS * (x.abs() + e.abs()))


# Shift: theorems 1 and 2 of the Z² paper -------------------------------------------------------------------


def check_collapse(shift: Callable[[Tensor, Tensor], Tensor], step: AffineStep, seed: int) -> None:
    """Ψ(Φ(x; e_s); e_w) = x + (b/a)·(e_s − e_w), and Φ(x̃; e) = Φ(x; e + gap) for the shifted x̃."""
    x, strong, weak = noise(seed, 2, 5), noise(seed + 1, 2, 5), noise(seed + 2, 2, 5)
    y, shifted = step.forward(x, strong), shift(x, strong - weak)
    size = x.abs() + abs(step.c * y) + abs(step.d) * (strong.abs() + weak.abs())
    assert_within(shifted, step.inverse(y, weak), 8 * EPS * size)
    size = abs(step.a * x) + abs(step.b) * 3 * (strong.abs() + weak.abs())
    assert_within(step.forward(shifted, weak), step.forward(x, weak + (strong - weak)), 8 * EPS * size)


@given(spans(), seeds)
def test_going_down_and_up_with_a_reused_prediction_collapses_to_the_shift(
    span: tuple[Grid, int, int], seed: int
) -> None:
    grid, i, j = span
    step = grid.solver.step(i, j)
    check_collapse(step.shift, step, seed)
    with pytest.raises(AssertionError):  # mutants: x + d·gap, and a shift that never moves its state
        check_collapse(lambda x, gap: x + step.d * gap, step, seed)
    with pytest.raises(AssertionError):
        check_collapse(lambda x, gap: x, step, seed)


# Purity, gradients -----------------------------------------------------------------------------------------


def test_a_step_is_a_frozen_value_that_leaves_its_arguments_alone() -> None:
    step = AffineStep(torch.tensor([0.5, 2.0]), torch.tensor([1.0, -1.0]))
    with pytest.raises(FrozenInstanceError):
        step.a = 1.0  # type: ignore[misc]
    x, e = noise(0, 2, 3), noise(1, 2, 3)
    kept = x.clone(), e.clone()
    for method in (step.forward, step.inverse, step.shift):
        out = method(x, e)
        assert out.data_ptr() not in (x.data_ptr(), e.data_ptr())
    assert torch.equal(x, kept[0]) and torch.equal(e, kept[1])


GRADIENTS: dict[str, tuple[Callable[..., Tensor], int]] = {
    "forward": (lambda x, e, a, b: AffineStep(a, b).forward(x, e), 2),
    "inverse": (lambda x, e, a, b: AffineStep(a, b).inverse(x, e), 2),
    "shift": (lambda x, e, a, b: AffineStep(a, b).shift(x, e), 2),
    "ddim_step": (ddim_step, 4),
    "ddim_inverse": (ddim_inverse, 4),
    "flow_step": (flow_step, 2),
    "flow_inverse": (flow_inverse, 2),
    "spherical_step": (spherical_step, 2),
    "spherical_inverse": (spherical_inverse, 2),
}


@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize("shape", [(), (3,)], ids=["one time", "one time per sample"])
def test_gradients_flow_to_state_prediction_and_times(name: str, shape: tuple[int, ...]) -> None:
    function, count = GRADIENTS[name]
    times = [(0.3 + torch.rand(shape, dtype=torch.float64) / 2).requires_grad_() for _ in range(count)]
    x, e = noise(0, 3, 2).requires_grad_(), noise(1, 3, 2).requires_grad_()
    assert torch.autograd.gradcheck(function, (x, e, *times))


@pytest.mark.parametrize("name", ["forward", "inverse", "shift"])
def test_gradients_flow_through_a_solvers_own_step(name: str) -> None:
    step = Spherical.cosine(4).step(1)
    x, e = noise(0, 3, 2).requires_grad_(), noise(1, 3, 2).requires_grad_()
    assert torch.autograd.gradcheck(getattr(step, name), (x, e))


# Steps without an inverse ----------------------------------------------------------------------------------


def no_inverse() -> list[Any]:
    """(solver, i, j): δ = π/2 over one step, over a span, and at a later knot; zero terminal SNR with ε."""
    half = math.pi / 2
    zero_snr = DDIM(torch.tensor([0.0, 0.6, 1.0]), torch.tensor([1.0, 0.8, 0.0]), torch.tensor([2, 1]))
    return [
        pytest.param(Spherical(torch.tensor([half, 0.0], dtype=torch.float64)), 0, 1, id="spherical"),
        pytest.param(Spherical.cosine(2), 0, 2, id="spherical span"),
        pytest.param(zero_snr, 0, 1, id="zero terminal SNR"),
    ]


@pytest.mark.parametrize(("solver", "i", "j"), no_inverse())
def test_a_path_that_needs_a_missing_inverse_is_refused_with_its_knot_before_any_call(
    solver: Solver, i: int, j: int
) -> None:
    """|a| < 1e-12 or a not finite: "said with the knot", "before the first model call"."""
    from zigzag import sample
    from zigzag.moves import Denoise, Invert

    def never(x: Tensor, t: Tensor, cond: object) -> Tensor:
        pytest.fail("the model was called")

    path = (Denoise(i, j), Invert(j, i), Denoise(i, j))
    with pytest.raises(ValueError, match=rf"knot\D*{i}"):
        sample(never, noise(0, 2, 3), solver, path, cond=None, strong=1.0, weak=1.0)


@pytest.mark.parametrize(("solver", "i", "j"), [p for p in no_inverse() if "span" not in str(p.id)])
def test_a_table_with_a_missing_inverse_is_refused_with_its_knot(solver: Solver, i: int, j: int) -> None:
    with pytest.raises(ValueError, match=rf"knot\D*{i}"):
        solver.table()


def test_a_step_without_an_inverse_can_still_be_taken_forward() -> None:
    """δ = π/2: x_1 = cos(π/2)·x − sin(π/2)·v = −v; plain sampling needs no inverse."""
    from zigzag import Standard, sample

    solver = Spherical(torch.tensor([math.pi / 2, 0.0], dtype=torch.float64))
    x = noise(0, 2, 3)
    out = sample(lambda x, t, cond: x.tanh(), x, solver, Standard(), cond=None, strong=1.0)
    assert_within(out, -x.tanh(), EPS * (1 + x.abs()))
