"""The diagnostics: rows, delta, tau_1 and tau_2 at no evaluation more, and the identity that ties them."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from zigzag import (
    DDIM,
    EndToEnd,
    FlowEuler,
    ImplicitZ,
    Record,
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
from zigzag.zoo import GaussianMixture

T, B = 6, 2
EPS = torch.finfo(torch.float64).eps
SOLVERS = {
    "ddim": DDIM.stable_diffusion(T),
    "flow": FlowEuler.uniform(T, shift=2.0),
    "spherical": Spherical([1.5, 1.3, 1.0, 0.6, 0.3, 0.1, 0.0]),
}
each_solver = pytest.mark.parametrize("name", list(SOLVERS))
MIXTURE = GaussianMixture(
    torch.tensor([[-1.0, 0.0], [1.0, 0.5], [0.0, 1.5]], dtype=torch.float64),
    0.5,
    labels=torch.tensor([0, 1, 1]),
)
NOISE = torch.tensor([[0.3, -1.1], [-0.8, 0.6]], dtype=torch.float64)
COND, UNCOND = torch.tensor([0, 1]), torch.tensor([-1, -1])
METHODS = [
    Standard(),
    Resampling(),
    EndToEnd(),
    ZSampling(rounds=2),
    ZSampling(refine=2),
    ZSampling(span=2),
    ZSampling(released=True),
    ImplicitZ(),
    Z2Sampling(warmup=1),
]
each_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: str(m))


class Model:
    """The mixture on the grid of a solver, with its rows counted."""

    def __init__(self, name: str) -> None:
        self.solver, self.rows = SOLVERS[name], 0.0
        self.fn = MIXTURE.predictor(self.solver)

    def __call__(self, x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        self.rows += x.shape[0] / B
        return self.fn(x, t, cond)

    def guided(self, x: torch.Tensor, i: int, w: float) -> torch.Tensor:
        t = self.solver.times[i].expand(B)
        e_u = self.fn(x, t, UNCOND)
        return e_u + w * (self.fn(x, t, COND) - e_u)


def traced(
    model: Model, method: object, strong: object = 3.0, weak: object = 0.0, **more: object
) -> tuple[list[Visit], Trace]:
    trace = Trace()
    args = {"cond": COND, "uncond": UNCOND, "generator": torch.Generator().manual_seed(0)} | more
    return list(walk(model, NOISE, model.solver, method, strong=strong, weak=weak, trace=trace, **args)), trace


def norm(v: torch.Tensor) -> torch.Tensor:
    return v.flatten(1).norm(dim=1)


@each_solver
@each_method
def test_a_trace_is_a_record_per_move_and_costs_nothing(method: object, name: str) -> None:
    """(move, knot, model time, rows) of every move; rows and bits are those of a walk without a trace."""
    model, plain = Model(name), Model(name)
    visits, trace = traced(model, method)
    rng = torch.Generator().manual_seed(0)
    x = sample(plain, NOISE, plain.solver, method, cond=COND, uncond=UNCOND, strong=3.0, weak=0.0, generator=rng)
    assert torch.equal(x, visits[-1].state)
    assert trace.rows == model.rows == plain.rows == visits[-1].rows
    before = 0
    for record, visit in zip(trace.records, visits, strict=True):
        assert isinstance(record, Record) and record.move == visit.move and record.knot == visit.knot
        assert record.rows == visit.rows - before
        before = visit.rows
        asked = isinstance(visit.move, Denoise | Invert) or (isinstance(visit.move, Shift) and visit.move.fresh)
        assert record.time == (model.solver.times[visit.move.i].item() if asked else None)
        for value in (record.delta, record.tau1, record.tau2):
            assert value is None or (value.shape == (B,) and value.device == x.device and not value.requires_grad)


def zigzags(visits: list[Visit], trace: Trace) -> list[tuple[int, torch.Tensor, torch.Tensor, Record, Visit]]:
    """(i, x_i, x~_i, record, visit) of every span-1 zigzag of a walk, from its states."""
    states = [NOISE, *(visit.state for visit in visits)]
    return [
        (visit.move.i, states[k - 1], states[k + 1], trace.records[k], visit)
        for k, visit in enumerate(visits)
        if isinstance(visit.move, Invert)
    ]


def check_taus(model: Model, visits: list[Visit], trace: Trace, strong: float, weak: float, released: bool) -> None:
    """x~_i - x_i = (b/a)(tau_1 + tau_2), tau_1 = e_s(x_i) - e_w(x~_i), tau_2 = e_w(x~_i) - e_bar.

    Bounds: cancellation costs units of the predictions and of the states; a norm of n numbers costs n units.
    """
    found = zigzags(visits, trace)
    assert found
    for i, x, back, record, visit in found:
        step = model.solver.step(i)
        e_s, e_w, bar = model.guided(x, i, strong), model.guided(back, i, weak), visit.prediction
        tau1, tau2, moved = e_s - e_w, e_w - bar, back - x
        largest = float(e_s.abs().max() + e_w.abs().max() + bar.abs().max()) * (1 + abs(strong))
        near = 64 * EPS * largest * (1 + float(x.abs().max()))
        on = 64 * EPS * (float(x.abs().max() + visit.state.abs().max()) * (1 + 1 / step.a) + largest * abs(step.b))
        ratio = step.b / step.a
        if released:
            assert record.tau1 is None and record.tau2 is None
        else:
            assert float((moved - ratio * (tau1 + tau2)).abs().max()) <= on
            assert float((record.tau1 - norm(tau1)).abs().max()) <= near
            assert float((record.tau2 - norm(tau2)).abs().max()) <= near
            assert bool((record.tau1 > 10 * near).all())
        far = float(norm(moved).max())
        assert float((record.delta - norm(moved).square()).abs().max()) <= on * (2 * far + on)


@each_solver
@pytest.mark.parametrize(("strong", "weak"), [(3.0, 0.0), (3.0, 1.0), (2.0, 0.5)])
@pytest.mark.parametrize("method", [ZSampling(), ZSampling(rounds=2), ZSampling(refine=3)], ids=lambda m: str(m))
def test_theorem_2_of_the_z_paper_holds_on_every_traced_zigzag(
    method: object, name: str, strong: float, weak: float
) -> None:
    model = Model(name)
    visits, trace = traced(model, method, strong, weak)
    check_taus(model, visits, trace, strong, weak, released=False)
    for mutant in [(strong + 1, weak), (strong, weak + 0.01)]:
        with pytest.raises(AssertionError):
            check_taus(model, visits, trace, *mutant, released=False)
    released, other = traced(model, ZSampling(released=True), strong, weak)
    with pytest.raises((AssertionError, TypeError)):
        check_taus(model, released, other, strong, weak, released=False)


@each_solver
def test_the_released_inverse_has_a_delta_and_no_taus(name: str) -> None:
    model = Model(name)
    visits, trace = traced(model, ZSampling(released=True))
    check_taus(model, visits, trace, 3.0, 0.0, released=True)


def taus(trace: Trace) -> list[bool]:
    return [r.tau1 is not None and r.tau2 is not None for r in trace.records if isinstance(r.move, Invert)]


def test_taus_exist_only_where_they_cost_nothing() -> None:
    """s = 1 has no unconditional branch, weak_fn answers elsewhere, a path may end before the answer."""
    model, path = Model("ddim"), (Denoise(0, 1), Invert(1, 0), Denoise(0, 1))
    assert taus(traced(model, path)[1]) == [True]
    rows = model.rows
    assert rows == 5
    assert taus(traced(model, path, strong=1.0, weak=0.0)[1]) == [False] and model.rows == rows + 3
    assert taus(traced(model, path, strong=1.0, weak=1.0)[1]) == [True]
    assert taus(traced(model, path, weak_fn=model.fn)[1]) == [False]
    assert taus(traced(model, path[:2])[1]) == [False]
    assert traced(model, path[:2])[1].records[1].delta is not None
    assert taus(traced(model, EndToEnd())[1]).count(True) == 0 or T == 1
    assert all(r.tau1 is None and r.tau2 is None for r in traced(model, Z2Sampling(warmup=1))[1].records)


def test_a_state_replaced_after_the_inversion_has_no_tau_of_its_own() -> None:
    """e_w(x~_i) is not what the Denoise computes then: either no figure, or the true one."""
    model, path = Model("ddim"), (Denoise(0, 1), Invert(1, 0), Denoise(0, 1))
    back = []

    def replace(visit: Visit) -> torch.Tensor | None:
        if isinstance(visit.move, Invert):
            back.append(visit.state)
            return visit.state + 0.5
        return None

    visits, trace = traced(model, path, callback=replace)
    record = trace.records[1]
    e_w = model.guided(back[0], 0, 0.0)
    want = norm(model.guided(NOISE, 0, 3.0) - e_w), norm(e_w - visits[1].prediction)
    for got, true in zip((record.tau1, record.tau2), want, strict=True):
        assert got is None or torch.allclose(got, true, rtol=1e-10)


@each_solver
@pytest.mark.parametrize("method", [ImplicitZ(), Z2Sampling(warmup=1)], ids=lambda m: type(m).__name__)
def test_the_delta_of_a_shift_is_how_far_it_shifts(method: object, name: str) -> None:
    """delta = |x~ - x|^2 = (b/a)^2 |gap|^2, gap = e_s - e_w where it was evaluated."""
    model = Model(name)
    visits, trace = traced(model, method)
    states, anchor = [NOISE, *(v.state for v in visits)], {}
    shifts = 0
    for k, (visit, record) in enumerate(zip(visits, trace.records, strict=True)):
        i, x = visit.move.i, states[k]
        if isinstance(visit.move, Denoise) or visit.move.fresh:
            anchor["gap"] = model.guided(x, i, 3.0) - model.guided(x, i, 0.0)
        if isinstance(visit.move, Shift):
            shifts += 1
            step = model.solver.step(i)
            want = norm(step.b / step.a * anchor["gap"]).square()
            slack = 256 * EPS * (1 + float(x.abs().max())) ** 2
            assert float((record.delta - norm(states[k + 1] - x).square()).abs().max()) <= slack
            assert float((record.delta - want).abs().max()) <= slack + 256 * EPS * float(want.max())
            assert float(record.delta.min()) > 0
        else:
            assert record.delta is None
    assert shifts == (T if isinstance(method, ImplicitZ) else T - 1)


@each_solver
@pytest.mark.parametrize("method", [ZSampling(steps=1, span=3), EndToEnd()], ids=lambda m: type(m).__name__)
def test_a_long_zigzag_reports_delta_where_it_comes_back(method: object, name: str) -> None:
    """The last Invert of a span is back at the knot where it began: delta = |x~_0 - x_0|^2, and no tau."""
    model = Model(name)
    visits, trace = traced(model, method)
    (k,) = [k for k, v in enumerate(visits) if v.move == Invert(1, 0)]
    want = norm(visits[k].state - NOISE).square()
    slack = 64 * EPS * (float(want.max()) + float(NOISE.abs().max()))
    assert float((trace.records[k].delta - want).abs().max()) <= slack and float(want.min()) > 100 * slack
    assert trace.records[k].tau1 is None and trace.records[k].tau2 is None


# Equal guidances: delta is the approximation error ------------------------------------------------


def error_of(name: str, solver: object, i: int, refine: int = 0, scale: float = 1.0) -> torch.Tensor:
    path = (Denoise(i, i + 1), Invert(i + 1, i, refine=refine), Denoise(i, i + 1))
    trace = Trace()
    sample(
        MIXTURE.predictor(solver),
        NOISE,
        solver,
        path,
        cond=COND,
        uncond=UNCOND,
        strong=scale,
        weak=scale,
        trace=trace,
    )
    return trace.records[1].delta


def test_with_equal_guidances_delta_is_the_approximation_error() -> None:
    """x~ - x = d (e(x_j, t_i) - e(x_i, t_i)): second order in the step, so that delta falls as h^4.

    On a field that does not depend on the state it is rounding.
    """
    logs = []
    steps = (8, 16, 32, 64)
    for n in steps:
        solver = FlowEuler.uniform(n)
        logs.append(error_of("flow", solver, n // 2).sqrt().log())
    slope = float((logs[-1] - logs[-2]).mean() / math.log(steps[-1] / steps[-2]))
    assert abs(slope + 2) < 0.15, slope
    trace, solver = Trace(), SOLVERS["flow"]
    sample(lambda x, t, c: torch.ones_like(x), NOISE, solver, ZSampling(), cond=None, uncond=None, strong=2.0,
           weak=2.0, trace=trace)  # fmt: skip
    flat = [r.delta for r in trace.records if isinstance(r.move, Invert)]
    assert len(flat) == T - 1 and all(float(d.max()) <= (16 * EPS * 4) ** 2 * 2 for d in flat)
    assert all(float(error_of("flow", solver, i).min()) > 1e-10 for i in range(T - 1))


# Refinement ---------------------------------------------------------------------------------------


def tau2_of(solver: object, i: int, refines: range) -> torch.Tensor:
    """|tau_2| against K, one row a K."""
    found = []
    for k in refines:
        trace, path = Trace(), (Denoise(i, i + 1), Invert(i + 1, i, refine=k), Denoise(i, i + 1))
        sample(MIXTURE.predictor(solver), NOISE, solver, path, cond=COND, uncond=UNCOND, strong=3.0, trace=trace)
        found.append(trace.records[1].tau2)
    return torch.stack(found)


def contraction(solver: object, i: int) -> tuple[torch.Tensor, torch.Tensor]:
    """|d| Lip(e_w) over the iterates' neighbourhood, and |d| times the spectral radius at the fixed point."""
    fn, t, d = MIXTURE.predictor(solver), solver.times[i].expand(1), solver.step(i).d
    visits = list(
        walk(
            fn,
            NOISE,
            solver,
            (Denoise(i, i + 1), Invert(i + 1, i, refine=60)),
            cond=COND,
            uncond=UNCOND,
            strong=3.0,
        )
    )
    down, fixed = visits[0].state, visits[1].state

    def jacobians(x: torch.Tensor) -> torch.Tensor:
        return torch.stack(
            [torch.autograd.functional.jacobian(lambda y: fn(y[None], t, UNCOND[:1])[0], row) for row in x]
        )

    radius = float((fixed - down).norm(dim=1).max())
    rng = torch.Generator().manual_seed(0)
    near = [fixed + radius * (2 * torch.rand(fixed.shape, generator=rng, dtype=fixed.dtype) - 1) for _ in range(40)]
    lip = torch.stack([torch.linalg.matrix_norm(jacobians(x), ord=2) for x in near]).amax(0)
    rho = torch.linalg.eigvals(jacobians(fixed)).abs().amax(-1)
    return abs(d) * lip, abs(d) * rho


def check_geometric(tau2: torch.Tensor, worst: torch.Tensor, rate: torch.Tensor) -> None:
    """tau_2(K + 1) <= q tau_2(K) with q = |d| Lip(e_w) < 1; the slope of log tau_2 over K is log(|d| rho)."""
    assert bool((worst < 1).all()) and bool((tau2 > 1e-11).all())
    assert bool((tau2[1:] <= 1.05 * worst * tau2[:-1]).all())
    k = torch.arange(len(tau2), dtype=tau2.dtype)
    k = k - k.mean()
    slope = (k[:, None] * tau2.log()).sum(0) / k.square().sum()
    print("slope of log tau_2 over K:", slope.tolist(), "log(|d| rho):", rate.log().tolist())
    assert bool(((slope - rate.log()).abs() < 0.1).all())


ANGLES = torch.linspace(1.4, 0, 13, dtype=torch.float64)
GRIDS = {
    "ddim": DDIM(torch.cos(ANGLES), torch.sin(ANGLES), torch.arange(12, 0, -1)),
    "flow": FlowEuler.uniform(12),
    "spherical": Spherical.cosine(12),
}  # fmt: skip


@pytest.mark.parametrize("name", list(GRIDS))
def test_tau_2_falls_geometrically_with_refine(name: str) -> None:
    """Refinement is a fixed-point iteration with the step's |d| Lip(e_w): so many digits an evaluation."""
    solver, i = GRIDS[name], 5
    worst, rate = contraction(solver, i)
    tau2 = tau2_of(solver, i, range(1, 6))
    check_geometric(tau2, worst, rate)
    with pytest.raises(AssertionError):
        check_geometric(tau2[:1].expand(5, -1), worst, rate)
    with pytest.raises(AssertionError):
        check_geometric(tau2, worst, rate * 0.5)


@pytest.mark.parametrize("name", list(GRIDS))
def test_with_equal_guidances_and_enough_refinement_a_zigzag_returns_to_where_it_began(name: str) -> None:
    """|x~ - x| falls as q^K down to rounding, and without refinement it does not go away."""
    solver, i, scale = GRIDS[name], 5, 1.5
    off = [error_of(name, solver, i, refine=k, scale=scale).sqrt() for k in (0, 2, 4, 80)]
    assert all(bool((two < 0.5 * one).all()) for one, two in itertools.pairwise(off[:3]))
    rounding = 64 * EPS * (1 + float(NOISE.abs().max()))
    assert float(off[3].max()) <= rounding
    assert float(off[0].min()) > 1e-3 > 1e6 * rounding


def test_a_zigzag_everywhere_with_equal_guidances_and_enough_refinement_is_standard_sampling() -> None:
    """Every excursion comes back, so that the path is the plain one; without refinement it is another."""
    solver = GRIDS["flow"]
    fn = MIXTURE.predictor(solver)

    def draw(method: object) -> torch.Tensor:
        return sample(fn, NOISE, solver, method, cond=COND, uncond=UNCOND, strong=1.5, weak=1.5)

    plain = draw(Standard())
    assert float((draw(ZSampling(refine=80)) - plain).abs().max()) <= 1e4 * EPS
    assert float((draw(ZSampling()) - plain).abs().max()) > 1e-3
