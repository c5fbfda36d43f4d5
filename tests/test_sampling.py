"""What the one loop promises a predictor, a caller, a callback and a consumer of `walk`."""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Callable, Iterator

import pytest
import torch

from zigzag import (
    CFG,
    DDIM,
    EndToEnd,
    FlowEuler,
    ImplicitZ,
    Resampling,
    Spherical,
    Standard,
    Trace,
    Visit,
    Z2Sampling,
    ZSampling,
    sample,
    walk,
)
from zigzag.moves import Denoise, Invert, Shift

T, B = 4, 2
EPS = torch.finfo(torch.float64).eps
INTEGER, FLOAT = DDIM.stable_diffusion(T), FlowEuler.uniform(T)
SOLVERS = {"ddim": INTEGER, "flow": FLOAT, "spherical": Spherical.cosine(T)}
METHODS = [Standard(), Resampling(), EndToEnd(), ZSampling(refine=1), ImplicitZ(), Z2Sampling(warmup=1)]
each_solver = pytest.mark.parametrize("solver", list(SOLVERS.values()), ids=list(SOLVERS))
each_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
both = pytest.mark.parametrize("batched", [True, False])

X = torch.linspace(-1.2, 1.2, 6, dtype=torch.float64).reshape(B, 3)
COND, UNCOND = torch.tensor([0.5, -0.7]).double(), torch.tensor([0.1, 0.2]).double()


def field(x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
    return 0.3 * torch.sin(x + cond[:, None]) + 0.1 * torch.cos(t.to(x.dtype))[:, None]


def seed(n: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(n)


# What a predictor sees ----------------------------------------------------------------------------


def check_call(x: torch.Tensor, t: torch.Tensor, rows: set[int], dtype: torch.dtype, t_dtype: torch.dtype) -> None:
    """x is (B or 2B, ...) in its own dtype; t is (B or 2B,) on x's device, int64 or the state's dtype."""
    assert x.dtype == dtype and x.shape[0] in rows and x.shape[1:] == X.shape[1:]
    assert isinstance(t, torch.Tensor) and t.shape == x.shape[:1] and t.device == x.device
    assert t.dtype == t_dtype and bool((t == t[0]).all())


STATE = {torch.float16: torch.float32, torch.bfloat16: torch.float32, torch.float32: torch.float32}
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@each_solver
@both
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes_of_x_t_state_and_result(solver: object, batched: bool, dtype: torch.dtype) -> None:
    """Predictors see x.dtype; the state is promote(x.dtype, float32); the result is x.dtype again."""
    state = STATE.get(dtype, dtype)
    t_dtype = torch.int64 if solver is INTEGER else state
    rows = {2 * B, B} if batched else {B}
    seen = []

    def fn(x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        check_call(x, t, rows, dtype, t_dtype)
        for mutant in [
            (x.to(torch.int32), t),
            (x, t[:1]),
            (x, t.float().half()),
            (x, t + torch.arange(len(t))),
        ]:
            with pytest.raises(AssertionError):
                check_call(*mutant, rows, dtype, t_dtype)
        seen.append(t[0].item())
        return field(x, t, cond)

    kept = X.to(dtype)
    visits: list[Visit] = []
    y = sample(fn, kept, solver, ZSampling(), cond=COND, uncond=UNCOND, batched=batched, callback=visits.append)
    assert y.dtype == dtype and y.shape == X.shape and torch.equal(kept, X.to(dtype))
    assert {visit.state.dtype for visit in visits} == {state}
    assert torch.equal(y, visits[-1].state.to(dtype))
    assert set(seen) == {solver.times[i].to(t_dtype).item() for i in range(T)}


def check_close(got: torch.Tensor, want: torch.Tensor, bound: float) -> None:
    assert float((got.double() - want.double()).abs().max()) <= bound


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_guidance_and_update_are_computed_in_the_dtype_of_the_state(dtype: torch.dtype) -> None:
    """Predictions are cast before guidance: only x going in and the result are rounded to half precision.

    With e_c, e_u as the predictor rounds them, one step is x + b (e_u + w (e_c - e_u)) to float32 rounding.
    """
    e_c, e_u = torch.tensor([1.5, -0.75]), torch.tensor([1.25, 3.0])

    def fn(x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        return cond[:, None].expand_as(x).to(dtype) + 2**-7

    x, b = torch.full((B, 3), 0.5, dtype=dtype), float(FLOAT.sigmas[1] - FLOAT.sigmas[0])
    visit = next(walk(fn, x, FLOAT, Standard(), cond=e_c, uncond=e_u, strong=5.3))
    e_c, e_u = ((e + 2**-7).to(dtype).double()[:, None] for e in (e_c, e_u))
    bound = 8 * torch.finfo(torch.float32).eps * (0.5 + abs(b) * 20)
    check_close(visit.state, 0.5 + b * (e_u + 5.3 * (e_c - e_u)).expand(B, 3), bound)
    with pytest.raises(AssertionError):
        half = (e_u.to(dtype) + 5.3 * (e_c.to(dtype) - e_u.to(dtype))).double()
        check_close(visit.state, 0.5 + b * half.expand(B, 3), bound)


def test_nothing_waits_for_the_device() -> None:
    """On the meta device there are no values: no .item(), no branch on a tensor, and t lies where x lies."""
    x = torch.empty(B, 3, device="meta")

    def fn(x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        assert t.device == x.device == torch.device("meta")
        return x * 0.5 + cond[:, None]

    for method in METHODS:
        cond, uncond, trace = torch.empty(B, device="meta"), torch.empty(B, device="meta"), Trace()
        y = sample(fn, x, FLOAT, method, cond=cond, uncond=uncond, trace=trace)
        assert y.device == x.device and y.shape == x.shape and trace.rows > 0
    with pytest.raises((RuntimeError, NotImplementedError)):
        sample(lambda x, t, c: x * float(t[0]), x, FLOAT, Standard(), cond=cond, uncond=uncond)


# Conditions ---------------------------------------------------------------------------------------


def tree(k: float) -> dict[str, object]:
    leaf = torch.arange(B * 3, dtype=torch.float64).reshape(B, 3) * k
    return {"a": leaf, "b": {"c": leaf[:, 0], "d": [leaf + 1, (leaf - 1, leaf[:, :2])]}}


def leaves(cond: object) -> Iterator[torch.Tensor]:
    if isinstance(cond, torch.Tensor):
        yield cond
    else:
        for part in cond.values() if isinstance(cond, dict) else cond:
            yield from leaves(part)


def shape_of(cond: object) -> object:
    if isinstance(cond, torch.Tensor):
        return "leaf"
    if isinstance(cond, dict):
        return {key: shape_of(value) for key, value in cond.items()}
    return type(cond)(shape_of(value) for value in cond)


def check_doubled(x: torch.Tensor, cond: object, c: object, u: object) -> None:
    """[unconditional; conditional]: x is the state twice, every leaf cat(u, c), the structure unchanged."""
    assert x.shape[0] == 2 * B and torch.equal(x[:B], x[B:])
    assert shape_of(cond) == shape_of(c)
    for got, one, two in zip(leaves(cond), leaves(u), leaves(c), strict=True):
        assert torch.equal(got, torch.cat([one, two]))


TREES = {
    "tensor": (tree(1.0)["a"], tree(2.0)["a"]),
    "dict": (tree(1.0), tree(2.0)),
    "tuple": (tuple(tree(1.0).values()), tuple(tree(2.0).values())),
}


@pytest.mark.parametrize("case", list(TREES))
@pytest.mark.parametrize("batched", [True, "auto"])
def test_a_doubled_batch_is_unconditional_first(case: str, batched: object) -> None:
    c, u = TREES[case]
    calls = 0

    def fn(x: torch.Tensor, t: torch.Tensor, cond: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        check_doubled(x, cond, c, u)
        with pytest.raises(AssertionError):
            check_doubled(x, cond, u, c)
        return x * next(leaves(cond))[:, :1]

    y = sample(fn, X, FLOAT, Standard(), cond=c, uncond=u, strong=3.0, batched=batched)
    assert calls == T

    def one(x: torch.Tensor, t: torch.Tensor, cond: object) -> torch.Tensor:
        assert shape_of(cond) == shape_of(c) and any(cond is k for k in (c, u))
        return x * next(leaves(cond))[:, :1]

    two = sample(one, X, FLOAT, Standard(), cond=c, uncond=u, strong=3.0, batched=False)
    swapped = sample(one, X, FLOAT, Standard(), cond=u, uncond=c, strong=3.0, batched=False)
    assert torch.equal(y, two) and not torch.allclose(y, swapped)


@both
def test_a_single_branch_sees_its_own_condition_on_b_rows(batched: bool) -> None:
    for strong, want in [(1.0, COND), (0.0, UNCOND)]:

        def fn(x: torch.Tensor, t: torch.Tensor, cond: object, want: torch.Tensor = want) -> torch.Tensor:
            assert x.shape[0] == t.shape[0] == B and torch.equal(cond, want)
            return x

        sample(fn, X, FLOAT, Standard(), cond=COND, uncond=UNCOND, strong=strong, batched=batched)


LONG, SHORT = torch.zeros(B, 5, 3), torch.zeros(B, 4, 3)
AUTO = [
    (LONG, LONG + 1, True),
    ({"a": LONG, "b": [SHORT]}, {"a": LONG, "b": [SHORT]}, True),
    (torch.tensor([1, 2]), torch.tensor([-1, -1]), True),
    (LONG, SHORT, False),
    (LONG, None, False),
    (None, LONG, False),
    ("a cat", "", False),
    (3, -1, False),
    ({"a": LONG}, {"b": LONG}, False),
    ({"a": LONG}, [LONG], False),
    ([LONG], [LONG, LONG], False),
    ({"a": LONG, "b": 1}, {"a": LONG, "b": 1}, False),
    (LONG[:1], LONG[:1], False),
    (torch.tensor(1), torch.tensor(0), False),
    ({"a": LONG, "b": LONG[:1]}, {"a": LONG, "b": LONG[:1]}, False),
]


def batch_sizes(cond: object, uncond: object, batched: object) -> set[int]:
    sizes = set()

    def fn(x: torch.Tensor, t: torch.Tensor, c: object) -> torch.Tensor:
        sizes.add(x.shape[0])
        return x

    sample(fn, X, FLOAT, Standard(), cond=cond, uncond=uncond, strong=2.0, batched=batched)
    return sizes


@pytest.mark.parametrize(("cond", "uncond", "want"), AUTO, ids=range(len(AUTO)))
def test_what_auto_decides(cond: object, uncond: object, want: bool) -> None:
    """Pytrees of one structure whose every leaf is a tensor, the batch first, of equal shapes."""
    assert batch_sizes(cond, uncond, "auto") == ({2 * B} if want else {B})
    assert batch_sizes(cond, uncond, False) == {B}


def test_none_is_a_condition_and_not_a_missing_one() -> None:
    """e(x, None) is a prediction as any other."""
    seen = []

    def fn(x: torch.Tensor, t: torch.Tensor, cond: object) -> torch.Tensor:
        seen.append(cond)
        return field(x, t, UNCOND if cond is None else cond)

    y = sample(fn, X, FLOAT, Standard(), cond=COND, uncond=None, strong=3.0)
    want = sample(field, X, FLOAT, Standard(), cond=COND, uncond=UNCOND, strong=3.0, batched=False)
    assert torch.equal(y, want) and seen.count(None) == T and len(seen) == 2 * T
    sample(lambda x, t, c: x if c is None else pytest.fail("c"), X, FLOAT, Standard(), cond=None, strong=1.0)


@each_method
@each_solver
def test_batched_is_unbatched(method: object, solver: object) -> None:
    """An elementwise predictor rounds alike in one doubled call and in two: the same bits come out."""
    one, two = (
        sample(field, X, solver, method, cond=COND, uncond=UNCOND, batched=batched, generator=seed())
        for batched in (True, False)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, sample(field, X, solver, method, cond=UNCOND, uncond=COND, generator=seed()))


def test_a_number_is_the_guidance_of_that_scale() -> None:
    number = sample(field, X, FLOAT, ZSampling(), cond=COND, uncond=UNCOND, strong=5.5, weak=0.5)
    rule = sample(field, X, FLOAT, ZSampling(), cond=COND, uncond=UNCOND, strong=CFG(5.5), weak=CFG(0.5))
    gamma = sample(field, X, FLOAT, ZSampling(), cond=COND, uncond=UNCOND, strong=CFG.from_gamma(5.5), weak=0.5)
    assert torch.equal(number, rule) and not torch.allclose(number, gamma)
    default = sample(field, X, FLOAT, ZSampling(), cond=COND, uncond=UNCOND)
    assert torch.equal(default, sample(field, X, FLOAT, ZSampling(), cond=COND, uncond=UNCOND, strong=5.5, weak=0.0))


# Randomness ---------------------------------------------------------------------------------------


NOISY = Resampling(rounds=2)


def test_the_generator_is_all_the_randomness_there_is() -> None:
    """Same inputs and seed, same bits; another seed, another sample."""

    def draw(generator: torch.Generator, method: object = NOISY) -> torch.Tensor:
        return sample(field, X, INTEGER, method, cond=COND, uncond=UNCOND, generator=generator)

    assert torch.equal(draw(seed(0)), draw(seed(0))) and not torch.allclose(draw(seed(0)), draw(seed(1)))
    rng = seed(0)
    assert not torch.allclose(draw(rng), draw(rng)), "the generator did not advance"
    for method in METHODS:
        if not isinstance(method, Resampling):
            assert torch.equal(draw(seed(0), method), draw(seed(1), method))


def check_rng_untouched(run: Callable[[], object]) -> None:
    before = torch.get_rng_state()
    run()
    assert torch.equal(before, torch.get_rng_state())


@each_method
def test_the_global_generator_is_left_alone(method: object) -> None:
    def run(generator: torch.Generator | None) -> torch.Tensor:
        return sample(field, X, FLOAT, method, cond=COND, uncond=UNCOND, generator=generator)

    check_rng_untouched(lambda: run(seed()))
    if isinstance(method, Resampling):
        with pytest.raises(AssertionError):
            check_rng_untouched(lambda: run(None))
    else:
        check_rng_untouched(lambda: run(None))


# Gradients ----------------------------------------------------------------------------------------


@each_method
@each_solver
def test_gradients_of_a_whole_trajectory_are_right(method: object, solver: object) -> None:
    """d x_0 / d (x_T, parameter) against finite differences, in float64."""

    def trajectory(x: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        def fn(x: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
            return field(x, t, c) * p

        return sample(fn, x, solver, method, cond=COND, uncond=UNCOND, strong=2.0, generator=seed(), grad=True)

    x, p = X[:, :1].clone().requires_grad_(), torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    y = sample(
        lambda x, t, c: field(x, t, c) * p,
        X,
        solver,
        method,
        cond=COND,
        uncond=UNCOND,
        generator=seed(),
        grad=True,
    )
    (g,) = torch.autograd.grad(y.square().sum(), p)
    assert bool(torch.isfinite(g)) and float(g) != 0
    assert torch.autograd.gradcheck(lambda x, p: trajectory(x, p)[:, :1], (x, p), rtol=1e-3)


def test_half_precision_gradients_through_a_short_z2_trajectory_are_finite() -> None:
    for dtype in (torch.bfloat16, torch.float32):
        x, p = X.to(dtype).requires_grad_(), torch.tensor(0.7, dtype=dtype, requires_grad=True)
        y = sample(
            lambda x, t, c, p=p: field(x, t, c.to(x.dtype)) * p,
            x, FLOAT, Z2Sampling(warmup=1), cond=COND, uncond=UNCOND, grad=True,
        )  # fmt: skip
        grads = torch.autograd.grad(y.float().square().sum(), (x, p))
        assert all(bool(torch.isfinite(g).all()) and bool(g.any()) for g in grads)


def check_mode_inside(grad: bool, want: bool) -> None:
    def fn(x: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        assert torch.is_grad_enabled() is want
        return field(x, t, c)

    y = sample(fn, X.clone().requires_grad_(), FLOAT, Z2Sampling(warmup=1), cond=COND, uncond=UNCOND, grad=grad)
    assert y.requires_grad is want and torch.is_grad_enabled()


def test_a_sample_runs_without_gradients_unless_it_is_asked_to() -> None:
    for grad in (False, True):
        check_mode_inside(grad, grad)
        with pytest.raises(AssertionError):
            check_mode_inside(grad, not grad)


@pytest.mark.parametrize("grad", [False, True])
def test_grad_mode_never_crosses_a_yield(grad: bool) -> None:
    """The consumer's mode is its own at every yield, also when it changes it meanwhile or stops early."""
    for outer in (True, False):
        with torch.set_grad_enabled(outer):
            steps = walk(field, X, FLOAT, EndToEnd(), cond=COND, uncond=UNCOND, grad=grad)
            for k, _ in enumerate(steps):
                assert torch.is_grad_enabled() is (outer if k % 2 == 0 else not outer)
                torch.set_grad_enabled(outer if k % 2 else not outer)
            torch.set_grad_enabled(outer)
            steps = walk(field, X, FLOAT, EndToEnd(), cond=COND, uncond=UNCOND, grad=grad)
            next(steps)
            steps.close()
            assert torch.is_grad_enabled() is outer


@pytest.mark.parametrize("grad", [False, True])
def test_a_predictor_that_raises_leaves_the_grad_mode_as_it_was(grad: bool) -> None:
    def fn(x: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        sample(fn, X, FLOAT, Standard(), cond=COND, uncond=UNCOND, grad=grad)
    assert torch.is_grad_enabled()


# Visits, callbacks, progress ----------------------------------------------------------------------


def check_untouched(visits: list[Visit], copies: list[torch.Tensor]) -> None:
    for visit, copy in zip(visits, copies, strict=True):
        assert torch.equal(visit.state, copy)


@each_method
def test_a_walk_yields_a_visit_after_each_move_and_never_writes_over_one(method: object) -> None:
    """(move, knot where it ends, state, prediction, rows so far); the last state is what sample returns."""
    visits, copies, x = [], [], X.clone()
    for visit in walk(field, x, FLOAT, method, cond=COND, uncond=UNCOND, generator=seed()):
        visits.append(visit)
        copies.append(visit.state.clone())
    assert isinstance(visits[0], Visit) and tuple(v.move for v in visits) == method.path(T)
    assert [v.knot for v in visits] == [v.move.end for v in visits] and visits[-1].knot == T
    assert all(one.rows <= two.rows for one, two in itertools.pairwise(visits))
    check_untouched(visits, copies)
    assert torch.equal(x, X)
    assert len({visit.state.data_ptr() for visit in visits} | {x.data_ptr()}) == len(visits) + 1
    y = sample(field, X, FLOAT, method, cond=COND, uncond=UNCOND, generator=seed())
    assert torch.equal(y, visits[-1].state)
    visits[0].state.add_(1)
    with pytest.raises(AssertionError):
        check_untouched(visits, copies)


@each_solver
def test_the_prediction_of_a_visit_is_the_guided_one_that_the_move_used(solver: object) -> None:
    """Denoise: e_s at the state before it. Invert: e_w at the state the last inversion started from."""

    def guided(x: torch.Tensor, i: int, w: float) -> torch.Tensor:
        t = torch.full((B,), float(solver.times[i]), dtype=x.dtype)
        return field(x, t, UNCOND) + w * (field(x, t, COND) - field(x, t, UNCOND))

    def check(path: tuple[object, ...], scales: dict[type, float]) -> None:
        before = X
        for visit in walk(field, X, solver, path, cond=COND, uncond=UNCOND, strong=3.0, weak=0.5):
            want = guided(before, visit.move.i, scales[type(visit.move)])
            torch.testing.assert_close(visit.prediction, want, rtol=0, atol=16 * EPS)
            before = visit.state

    path = (Denoise(0, 1), Invert(1, 0), Denoise(0, 1), Denoise(1, 2))
    check(path, {Denoise: 3.0, Invert: 0.5})
    for mutant in ({Denoise: 4.0, Invert: 0.5}, {Denoise: 3.0, Invert: 3.0}):
        with pytest.raises(AssertionError):
            check(path, mutant)


def test_a_renoising_has_no_prediction() -> None:
    visits = walk(field, X, FLOAT, Resampling(), cond=COND, uncond=UNCOND, generator=seed())
    assert [v.prediction is None for v in visits] == [type(m).__name__ == "Renoise" for m in Resampling().path(T)]


def test_a_walk_does_one_move_at_a_time() -> None:
    calls = []

    def fn(x: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        calls.append(float(t[0]))
        return field(x, t, c)

    steps = walk(fn, X, FLOAT, Standard(), cond=COND, uncond=UNCOND, batched=True)
    assert calls == []
    for k, _ in enumerate(steps):
        assert len(calls) == k + 1


@each_method
def test_the_callback_gets_every_visit_and_none_changes_nothing(method: object) -> None:
    visits: list[Visit] = []
    y = sample(field, X, FLOAT, method, cond=COND, uncond=UNCOND, callback=visits.append, generator=seed())
    assert tuple(v.move for v in visits) == method.path(T)
    assert torch.equal(y, sample(field, X, FLOAT, method, cond=COND, uncond=UNCOND, generator=seed()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=str)
def test_a_callback_may_replace_the_state(dtype: torch.dtype) -> None:
    """x <- callback(visit), cast to the state's dtype: the next move starts from it, or it is the result."""

    def halve(visit: Visit) -> torch.Tensor:
        assert visit.state.dtype == torch.float32
        return (visit.state * 0.5).round(decimals=2).to(dtype)

    def constant(x: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        assert x.dtype == torch.float32
        return torch.ones_like(x)

    x = X.float()
    y = sample(constant, x, FLOAT, Standard(), cond=COND, uncond=UNCOND, callback=halve)
    for i in range(T):
        x = ((x + float(FLOAT.sigmas[i + 1] - FLOAT.sigmas[i])) * 0.5).round(decimals=2).to(dtype).float()
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, x, rtol=0, atol=8 * torch.finfo(torch.float32).eps)
    plain = sample(constant, X.float(), FLOAT, Standard(), cond=COND, uncond=UNCOND)
    assert not torch.allclose(y, plain)


@each_solver
def test_replacing_the_state_keeps_the_cached_gap(solver: object) -> None:
    """The state set to 0 after Denoise(0, 1): Shift(1) then gives -d_1 gap, gap of the prediction at x_T."""
    strong, path, after = 3.0, (Denoise(0, 1), Shift(1, False)), []

    def zero(visit: Visit) -> torch.Tensor | None:
        after.append(visit.state)
        return torch.zeros_like(visit.state) if isinstance(visit.move, Denoise) else None

    sample(field, X, solver, path, cond=COND, uncond=UNCOND, strong=strong, callback=zero)
    t = torch.full((B,), float(solver.times[0]), dtype=X.dtype)
    gap = strong * (field(X, t, COND) - field(X, t, UNCOND))
    step = solver.step(1)
    want = step.b / step.a * gap
    assert float(want.abs().max()) > 1e-3
    torch.testing.assert_close(after[1], want, rtol=16 * EPS, atol=16 * EPS)


def test_a_callback_replaces_the_state_of_a_walk_too() -> None:
    """The state set to 1 at knot 1: what follows is the walk that starts there from 1."""
    path, ones = Standard().path(T), torch.ones_like(X)

    def at_one(visit: Visit) -> torch.Tensor | None:
        return ones if visit.knot == 1 else None

    whole = [v.state for v in walk(field, X, FLOAT, path, cond=COND, uncond=UNCOND, callback=at_one)]
    rest = [v.state for v in walk(field, ones, FLOAT, path[1:], cond=COND, uncond=UNCOND)]
    plain = [v.state for v in walk(field, X, FLOAT, path, cond=COND, uncond=UNCOND)]
    assert all(torch.equal(one, two) for one, two in zip(whole[1:], rest, strict=True))
    assert not any(torch.equal(one, two) for one, two in zip(whole[1:], plain[1:], strict=True))


@each_method
def test_progress_is_one_tick_a_move_on_stderr(method: object, capsys: pytest.CaptureFixture[str]) -> None:
    n = len(method.path(T))

    def run(progress: bool) -> tuple[torch.Tensor, str]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            y = sample(
                field,
                X,
                FLOAT,
                method,
                cond=COND,
                uncond=UNCOND,
                progress=progress,
                generator=seed(),
                batched=False,
            )
        out, err = capsys.readouterr()
        assert out == ""
        return y, err

    quiet, nothing = run(False)
    loud, bar = run(True)
    assert nothing == "" and torch.equal(quiet, loud)
    assert re.findall(r"(\d+)/(\d+)", bar)[-1] == (str(n), str(n)), bar
    rows = sum(v.rows for v in list(walk(field, X, FLOAT, method, cond=COND, uncond=UNCOND))[-1:])
    assert re.search(rf"rows\D*{rows}\b", bar), bar


class Counting(CFG):
    """A guidance with state: its scale grows with every call since the last reset."""

    resets = 0
    calls = 0

    def reset(self) -> None:
        object.__setattr__(self, "resets", self.resets + 1)
        object.__setattr__(self, "calls", 0)

    def __call__(self, e_c: torch.Tensor, e_u: torch.Tensor, step: object) -> torch.Tensor:
        object.__setattr__(self, "calls", self.calls + 1)
        return e_u + (1 + self.calls) * (e_c - e_u)


def check_reset(guidance: Counting, slot: str) -> None:
    scales = {"strong": 3.0, "weak": 0.5} | {slot: guidance}
    one, two = (sample(field, X, FLOAT, ZSampling(), cond=COND, uncond=UNCOND, **scales) for _ in range(2))
    assert torch.equal(one, two) and guidance.calls > 0


@pytest.mark.parametrize("slot", ["strong", "weak"])
def test_a_guidance_with_state_is_reset_before_every_sample(slot: str) -> None:
    guidance = Counting(2.5)
    check_reset(guidance, slot)
    assert guidance.resets >= 2

    class Forgetful(Counting):
        def reset(self) -> None:
            pass

    with pytest.raises(AssertionError):
        check_reset(Forgetful(2.5), slot)


def test_a_guidance_without_state_needs_no_reset() -> None:
    class Plain:
        def branches(self, step: object) -> tuple[bool, bool]:
            return True, False

        def __call__(self, e_c: torch.Tensor, e_u: torch.Tensor | None, step: object) -> torch.Tensor:
            assert e_u is None
            return e_c

    y = sample(field, X, FLOAT, Standard(), cond=COND, strong=Plain())
    assert torch.equal(y, sample(field, X, FLOAT, Standard(), cond=COND, strong=1.0))


def test_a_guidance_is_told_the_step_that_a_move_takes_or_undoes() -> None:
    """step = (i, j, t_i, alpha_i, sigma_i, alpha_j, sigma_j), also for the Invert(j, i) and the Shift(i)."""
    for slot, want in {"strong": {(0, 1), (1, 2), (2, 3), (2, 4)}, "weak": {(0, 1), (2, 4), (1, 3)}}.items():
        seen: list[tuple[int, int]] = []

        class Asking(CFG):
            def __call__(
                self, e_c: torch.Tensor, e_u: torch.Tensor, step: object, seen: list[tuple[int, int]] = seen
            ) -> torch.Tensor:
                seen.append((step.i, step.j))
                assert step == INTEGER.info(step.i, step.j) and step.t == int(INTEGER.times[step.i])
                al, si = INTEGER.alphas.tolist(), INTEGER.sigmas.tolist()
                got = (step.alpha_i, step.sigma_i, step.alpha_j, step.sigma_j)
                assert got == (al[step.i], si[step.i], al[step.j], si[step.j])
                assert all(isinstance(v, int | float) for v in got)
                return e_u + 2.0 * (e_c - e_u)

        path = (
            Shift(0, True),
            Denoise(0, 1),
            Denoise(1, 2),
            Denoise(2, 4),
            Invert(4, 2),
            Denoise(2, 3),
            Invert(3, 1),
        )
        scales = {"strong": 3.0, "weak": 0.5} | {slot: Asking(2.0)}
        sample(field, X, INTEGER, path, cond=COND, uncond=UNCOND, **scales)
        assert set(seen) == want
