"""The fixed-point inversion: what it reports of itself is true."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from support.grids import Grid, grids
from support.held import MULTISTEP, STOCHASTIC, TWO_STAGE, make
from support.predictors import LIP, field
from support.sampling import COND, EPS, UNCOND, X
from support.tensors import assert_finite_within
from zigzag import Standard, walk
from zigzag.anderson import Anderson
from zigzag.inversion import FixedPoint, Inverted, invert, reconstruct
from zigzag.solvers import FlowEuler, Solver

OPTIONS: dict[str, Any] = {"cond": COND, "uncond": UNCOND}
TOL = 1e-9


class Asked:
    """A predictor that notes the states it was asked at, by the time told."""

    def __init__(self) -> None:
        self.states: dict[float, list[Tensor]] = {}

    def __call__(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        self.states.setdefault(float(t[0]), []).append(x.clone())
        return field(x, t, cond)


def quietly(*args: Any, **options: Any) -> Inverted:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return invert(*args, **options)


def norms(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=1)


@settings(max_examples=30)
@given(grid=grids(), most=st.integers(1, 6), memory=st.integers(0, 3), damping=st.sampled_from([1.0, 0.6]))
def test_the_residual_is_the_true_one_and_the_smallest_seen(grid: Grid, most: int, memory: int, damping: float) -> None:
    """Followed from the data up: at each interval the state asked at that solves the step best, and by how much."""
    solver, asked = grid.solver, Asked()
    scheme = FixedPoint(1e-7, most, memory, damping)
    inverted = quietly(asked, X, solver, scheme, cond=COND)
    assert inverted.report is not None and inverted.report.residual is not None
    x = X
    for i in reversed(range(len(solver))):
        t, step = solver.times[i].expand(len(X)), solver.step(i)
        states = asked.states[float(solver.times[i])]
        mapped = [(x - step.b * field(state, t, COND)) / step.a for state in states]
        each = torch.stack([norms(g - s) / norms(g) for g, s in zip(mapped, states, strict=True)])
        residual, best = each.min(0)
        # 20 roundings of terms that are as large as the state and its prediction, over the size of what is solved for.
        size = (norms(x) + abs(step.b) * (LIP + 0.1) * X[0].numel() ** 0.5) / abs(step.a)
        bound = 20 * EPS * (1 + size / norms(mapped[0]).clamp_min(1e-3))
        assert_finite_within(inverted.report.residual[i], residual, bound)
        x = torch.stack([states[n][sample] for sample, n in enumerate(best.tolist())])
    torch.testing.assert_close(inverted.noise, x, rtol=0, atol=0)


@settings(max_examples=30)
@given(grid=grids(), w=st.sampled_from([1.0, 2.0]))
def test_data_come_back_as_near_as_the_residuals_say(grid: Grid, w: float) -> None:
    """A residual ρ at an interval is a step down that misses by `|a|·ρ·‖g‖`, which the steps below carry along.

    Only where the scheme says so did it converge: then every residual is below the tolerance.
    """
    solver, lip = grid.solver, LIP * (abs(w) + abs(1 - w))
    inverted = quietly(field, X, solver, FixedPoint(TOL), guidance=w, **OPTIONS)
    report = inverted.report
    assert report is not None and report.residual is not None and report.converged is not None
    assert report.converged.tolist() == (report.residual <= TOL).all(0).tolist()
    states = [v.state for v in walk(field, inverted.noise, solver, Standard(), strong=w, **OPTIONS)]
    off = torch.zeros(len(X), dtype=torch.float64)
    for i, (x, y) in enumerate(zip([inverted.noise, *states[:-1]], states, strict=True)):
        step = solver.step(i)
        missed = abs(step.a) * report.residual[i] * 1.1 * (norms(x) + off) + 50 * EPS * (norms(x) + norms(y) + 1)
        off = (abs(step.a) + abs(step.b) * lip) * off + missed
    back = reconstruct(field, inverted, solver, guidance=w, **OPTIONS)
    assert (norms(back - X) <= off).all(), (norms(back - X) / off).max()


HELD = [*MULTISTEP, *(name for name in STOCHASTIC if name not in ("LCM", "consistency")), *TWO_STAGE]


@pytest.mark.parametrize("name", HELD)
def test_every_solver_is_inverted(name: str) -> None:
    """With memory, noise and second evaluations: what is reported is small, and the data come back as near as that."""
    solver = make(name, "leading", 8)
    scheme = FixedPoint(TOL, sweeps=200, window=20) if name == "SDE-3M" else FixedPoint(TOL)
    inverted = invert(field, X, solver, scheme, generator=torch.Generator().manual_seed(0), **OPTIONS)
    assert inverted.report is not None and inverted.report.residual is not None
    assert float(inverted.report.residual.max()) <= TOL
    back = reconstruct(field, inverted, solver, **OPTIONS)
    # Eight steps, each of which may multiply what the ones before have missed: by 3, with the memory.
    assert float((back - X).abs().max()) < 3**8 * TOL


@pytest.mark.parametrize("name", ["2M", "3M", "DEIS-3", "AB-4", "SDE-2M"])
def test_the_steps_of_first_order_do_not_invert_a_multistep_solver(name: str) -> None:
    """They are what is begun with; after one look at them it is reported that they did not converge."""
    solver, scheme = make(name, "leading", 8), FixedPoint(TOL, sweeps=1)
    generator = torch.Generator().manual_seed(0)
    says = f"did not converge for 2 of 2 samples.*the {solver.memory} predictions that a step remembers are unknown too"
    with pytest.warns(UserWarning, match=says):
        inverted = invert(field, X, solver, scheme, generator=generator, **OPTIONS)
    assert float((reconstruct(field, inverted, solver, **OPTIONS) - X).abs().max()) > 100 * TOL


@pytest.mark.parametrize("name", ["2M", "3M", "DEIS-3", "AB-4"])
def test_the_residual_with_memory_is_that_of_the_way_down(name: str) -> None:
    """Of the states that the first-order steps lead through: what each step misses with the memory that they leave."""
    solver, plain = make(name, "leading", 8), make("DPM-1", "leading", 8)
    inverted = quietly(field, X, solver, FixedPoint(TOL, sweeps=1), cond=COND)
    path = walk(field, inverted.noise, plain, Standard(), strong=1.0, cond=COND)
    states = [inverted.noise, *(visit.state for visit in path)]
    remembered: list[Tensor] = []
    expected = []
    for i, (x, y) in enumerate(itertools.pairwise(states)):
        e, step = field(x, solver.times[i].expand(len(X)), COND), solver.step(i, None, range(i))
        r = sum(k * m for k, m in zip(step.memory, reversed(remembered), strict=False))
        g = (y - step.b * e - r) / step.a
        expected.append(norms(g - x) / norms(g))
        remembered.append(solver.remember(i, x, e))
    assert inverted.report is not None and inverted.report.residual is not None
    # The first-order states are solved for to TOL, and carried down eight steps.
    torch.testing.assert_close(inverted.report.residual, torch.stack(expected), rtol=1e-5, atol=3**8 * TOL)
    assert (inverted.report.residual.amax(0) > 1e-2).all()


@pytest.mark.parametrize("name", ["eta 1", "SDE-1", "SDE-2M"])
def test_the_noise_of_an_interval_is_held(name: str) -> None:
    """With other noises on the way down other data come back."""
    solver = make(name, "leading", 6)
    inverted = invert(field, X, solver, FixedPoint(TOL), generator=torch.Generator().manual_seed(0), **OPTIONS)
    assert inverted.noises is not None and inverted.noises.shape == (6, *X.shape)
    other = replace(inverted, noises=inverted.noises.roll(1, 0))
    assert float((reconstruct(field, other, solver, **OPTIONS) - X).abs().max()) > 1e-2


def linear(factor: float) -> Any:
    return lambda x, t, cond: factor * x + cond[:, None]


@pytest.mark.parametrize("factor", [0.3, -0.7, 1.5])
def test_the_contraction_of_a_linear_field_is_its_own(factor: float) -> None:
    """`|d|·Lip` is `|σ_i − σ_j|·|factor|` at every interval of a flow, by any two iterates."""
    solver = FlowEuler([1.0, 0.5, 0.2, 0.0])
    inverted = invert(linear(factor), X, solver, FixedPoint(1e-10), cond=COND)
    assert inverted.report is not None and inverted.report.contraction is not None
    expected = abs(factor) * (solver.sigmas[:-1] - solver.sigmas[1:])
    shown = inverted.report.contraction
    torch.testing.assert_close(shown, expected[:, None].expand_as(shown), rtol=1e-6, atol=0)


def test_where_the_plain_iteration_does_not_contract_it_says_so_and_the_accelerated_one_converges() -> None:
    """`|d|·Lip = 3` on a linear field: a scalar equation, which two differences of Anderson's solve."""
    solver = FlowEuler([1.0, 0.0])
    with pytest.warns(UserWarning, match=r"0 \(residual .*\|d\|·Lip at least 3\), 1 \(residual .* EDICT, OBELM"):
        plain = invert(linear(3.0), X, solver, FixedPoint(1e-8, anderson=0), cond=COND)
    assert plain.report is not None and plain.report.converged is not None
    assert not plain.report.converged.any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fast = invert(linear(3.0), X, solver, FixedPoint(1e-8, anderson=2), cond=COND)
    assert fast.report is not None and fast.report.rows <= 6
    # x_T = x − 3x − c over the whole interval.
    torch.testing.assert_close(fast.noise, -(X + COND[:, None]) / 2, rtol=1e-7, atol=0)


def test_damping_makes_a_diverging_iteration_converge() -> None:
    """`g' = −1.5`: `1 + β(g' − 1)` is −0.25 with β = 1/2."""
    solver = FlowEuler([1.0, 0.0])
    with pytest.warns(UserWarning, match="did not converge"):
        invert(linear(-1.5), X, solver, FixedPoint(1e-8, anderson=0), cond=COND)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        invert(linear(-1.5), X, solver, FixedPoint(1e-8, anderson=0, damping=0.5), cond=COND)


def test_a_sample_is_the_same_in_another_batch() -> None:
    """What has converged is left alone while the others go on."""
    solver = FlowEuler.uniform(6)

    def by_sample(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return cond[:, None] * torch.sin(x)

    cond = torch.tensor([0.1, 2.5], dtype=torch.float64)
    both = invert(by_sample, X, solver, FixedPoint(1e-8), cond=cond)
    for n in range(2):
        alone = invert(by_sample, X[n : n + 1], solver, FixedPoint(1e-8), cond=cond[n : n + 1])
        torch.testing.assert_close(alone.noise[0], both.noise[n], rtol=1e-13, atol=1e-14)
    alone = invert(by_sample, X[:1], solver, FixedPoint(1e-8), cond=cond[:1])
    assert alone.report is not None and both.report is not None
    assert alone.report.rows < both.report.rows


def test_a_prediction_that_is_not_finite_ends_in_the_best_state_seen() -> None:
    """The other sample is none the worse."""

    def bursting(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        e = field(x, t, cond)
        return torch.where((cond > 0)[:, None] & (x != X), torch.full_like(e, torch.inf), e)

    with pytest.warns(UserWarning, match="1 of 2 samples: 0 "):
        inverted = invert(bursting, X, FlowEuler.uniform(1), FixedPoint(1e-8), cond=COND)
    assert torch.isfinite(inverted.noise).all()
    alone = invert(field, X[1:], FlowEuler.uniform(1), FixedPoint(1e-8), cond=COND[1:])
    torch.testing.assert_close(inverted.noise[1:], alone.noise, rtol=1e-13, atol=1e-14)


def test_anderson_with_one_difference_is_the_secant_method() -> None:
    """On a scalar: `x_{n+1} = x_n − f_n·(x_n − x_{n−1})/(f_n − f_{n−1})`."""
    mix = Anderson(1, 1.0)

    def f(x: Tensor) -> Tensor:
        return torch.cos(x) - x

    x = torch.tensor([[0.3], [1.4]], dtype=torch.float64)
    y = mix(x, f(x))
    torch.testing.assert_close(y, x + f(x))
    for _ in range(3):
        secant = y - f(y) * (y - x) / (f(y) - f(x))
        x, y = y, mix(y, f(y))
        torch.testing.assert_close(y, secant, rtol=1e-6, atol=1e-9)


def test_rows_are_those_that_ran() -> None:
    """Two a guided evaluation, one a conditional one; second evaluations count."""
    for w, a_call in ((1.0, 1), (3.0, 2)):
        for name in ("DPM-1", "2M", "Heun"):
            calls: list[int] = []

            def counted(x: Tensor, t: Tensor, cond: Tensor, calls: list[int] = calls) -> Tensor:
                calls.append(len(x) // len(X))
                return field(x, t, cond)

            inverted = quietly(counted, X, make(name, "leading", 5), FixedPoint(1e-6), guidance=w, **OPTIONS)
            assert inverted.report is not None
            assert inverted.report.rows == sum(calls) and sum(calls) % a_call == 0


@pytest.mark.parametrize(
    ("changed", "error", "match"),
    [
        ({"tol": 0.0}, ValueError, "tol must be positive, got 0.0"),
        ({"tol": "small"}, TypeError, "tol must be a real number, got 'small'"),
        ({"most": 0}, ValueError, "most must be at least 1, got 0"),
        ({"most": 1.5}, TypeError, "most must be an integer, got 1.5"),
        ({"anderson": -1}, ValueError, "anderson must be at least 0, got -1"),
        ({"sweeps": 0}, ValueError, "sweeps must be at least 1, got 0"),
        ({"window": -1}, ValueError, "window must be at least 0, got -1"),
        ({"damping": 0.0}, ValueError, r"damping must lie in \(0, 1\], got 0.0"),
    ],
)
def test_arguments_out_of_range_are_refused(changed: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        FixedPoint(**changed)


def test_a_step_without_inverse_is_refused_before_the_first_call() -> None:
    def never(x: Tensor, t: Tensor, cond: object) -> Tensor:
        pytest.fail("the model was called")

    solver: Solver = make("DPM-1", "leading", 4, "x0")
    ends = type(solver)([*solver.alphas[:-1], 1.0], [*solver.sigmas[:-1], 0.0], solver.times, prediction="x0", order=1)
    with pytest.raises(ValueError, match="from knot 3 to 4 has no inverse: a = 0, so knot 4 keeps nothing"):
        invert(never, X, ends, FixedPoint(), cond=None)
