"""Inversions refined to a tolerance: tau_2 goes, and what comes out is the iteration written out."""

from __future__ import annotations

import warnings
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from support.held import MULTISTEP, STOCHASTIC, TWO_STAGE, make
from support.predictors import LIP, Counted, field, steep
from support.sampling import COND, EPS, KNOWN, SOLVERS, UNCOND, B, X, seed
from zigzag import Standard, Tol, Trace, Visit, ZSampling, sample, walk
from zigzag.moves import Invert, Move
from zigzag.solvers import FlowEuler, Solver

each = pytest.mark.parametrize("name", list(SOLVERS))


def inverted(path: tuple[Move, ...], solver: Solver, fn: Any = field, x: Tensor = X, **more: Any) -> Visit:
    """The visit after the last move."""
    *_, last = walk(fn, x, solver, path, **(KNOWN | {"weak": 1.0} | more))
    return last


@each
@pytest.mark.parametrize("weak", [0.0, 1.0])
def test_tau_2_is_what_the_tolerance_leaves_of_it(name: str, weak: float) -> None:
    """`x̃ = g(x)` with `‖g(x) − x‖ ≤ tol·‖g(x)‖`, and so `‖τ₂‖ = ‖e(x̃) − e(x)‖ ≤ Lip·tol·‖x̃‖`."""
    largest = []
    for tol in (1e-1, 1e-4, 1e-8, 1e-12):
        trace = Trace()
        states = [
            visit.state for visit in walk(field, X, SOLVERS[name], ZSampling(refine=Tol(tol)), **KNOWN, strong=3.0,
                                          weak=weak, trace=trace)
        ]  # fmt: skip
        taus = [(r.tau2, x) for r, x in zip(trace.records, states, strict=True) if isinstance(r.move, Invert)]
        assert taus
        for tau2, x in taus:
            assert tau2 is not None
            size = x.norm(dim=1)
            assert bool((tau2 <= LIP * tol * size + 64 * EPS * (1 + size)).all())
        largest.append(max(float(tau2.max()) for tau2, _ in taus if tau2 is not None))
    assert largest[0] > 1e3 * largest[2] and largest[3] < 1e-11


@pytest.mark.parametrize("name", [*MULTISTEP, *STOCHASTIC])
def test_without_a_gap_a_zigzag_to_a_tolerance_is_standard_sampling(name: str) -> None:
    """On what the steps hold: memory and noise are those of the Denoise that is undone."""
    solver = make(name, T=5)
    for method in (ZSampling(refine=Tol(1e-13)), ZSampling(steps=2, span=3, refine=Tol(1e-13))):
        plain, there = (
            sample(field, X, solver, m, **KNOWN, strong=1.5, weak=1.5, generator=seed()) for m in (Standard(), method)
        )
        torch.testing.assert_close(there, plain, rtol=1e-9, atol=1e-9)
    once = sample(field, X, solver, ZSampling(), **KNOWN, strong=1.5, weak=1.5, generator=seed())
    assert float((once - plain).abs().max()) > 1e-6


def by_hand(
    x_j: Tensor, solver: Solver, tol: float, most: int, m: int, beta: float, fn: Any = field, told: int = 0, of: int = 0
) -> tuple[list[Tensor], list[int]]:
    """Each sample by itself, by least squares in the residuals: what comes out, and the evaluations it took."""
    found, counts = [], []
    for k, x_1 in enumerate(x_j):
        step, t = solver.step(of), solver.times[told].to(x_j.dtype)
        x, xs, fs = x_1, [], []
        best = (float("inf"), x_1)
        for n in range(1, most + 1):  # noqa: B007
            g = (x_1 - step.b * fn(x[None], t[None], COND[k : k + 1])[0]) / step.a
            f = g - x
            best = min(best, (float(f.norm() / g.norm()), g), key=lambda pair: pair[0])
            if best[0] <= tol:
                break
            xs, fs = [*xs, x][-m - 1 :], [*fs, f][-m - 1 :]
            x = x + beta * f
            if len(fs) > 1:
                dX = torch.stack([b - a for a, b in pairwise(xs)], 1)
                dF = torch.stack([b - a for a, b in pairwise(fs)], 1)
                gamma = torch.linalg.lstsq(dF, f[:, None]).solution
                x = x - ((dX + beta * dF) @ gamma)[:, 0]
        found.append(best[1])
        counts.append(n)
    return found, counts


@pytest.mark.parametrize(("m", "beta"), [(0, 1.0), (0, 0.6), (1, 1.0), (2, 0.8)])
def test_an_inversion_is_the_iteration_written_out_for_each_sample(m: int, beta: float) -> None:
    solver, tol = FlowEuler.uniform(3, shift=2.0), 1e-6  # uneven steps
    fn, trace = Counted(), Trace()
    got = inverted((Invert(1, 0, Tol(tol, 30, m, beta)),), solver, fn, trace=trace)
    want, counts = by_hand(X, solver, tol, 30, m, beta)
    torch.testing.assert_close(got.state, torch.stack(want), rtol=1e-9, atol=1e-9)
    # The batch is asked until its last sample is done.
    assert fn.rows == trace.rows == got.rows == max(counts)
    for mutant in ({"told": 1}, {"of": 1}):
        wrong, _ = by_hand(X, solver, tol, 30, m, beta, **mutant)
        assert not torch.allclose(got.state, torch.stack(wrong), rtol=1e-4)
    if m:
        assert max(counts) < max(by_hand(X, solver, tol, 30, 0, beta)[1])


def test_it_converges_where_the_plain_iteration_does_not() -> None:
    solver = FlowEuler.uniform(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = inverted((Invert(1, 0, Tol(1e-12)),), solver, steep)
    # The state leads back to where it came from, and so is no other root.
    step, t = solver.step(0), solver.times[:1].expand(B)
    torch.testing.assert_close(step.forward(got.state, steep(got.state, t, COND)), X, rtol=1e-10, atol=1e-10)
    with pytest.warns(UserWarning, match="did not converge"):
        plain = inverted((Invert(1, 0, Tol(1e-12, anderson=0)),), solver, steep)
    assert not torch.allclose(step.forward(plain.state, steep(plain.state, t, COND))[0], X[0], rtol=1e-2)


@each
def test_without_acceleration_it_is_a_count_of_refinements(name: str) -> None:
    """`most = K + 1` evaluations are `refine=K`, to the last bit; the prediction is that of the last one."""
    for K in (0, 2):
        with pytest.warns(UserWarning, match="did not converge"):
            to = list(walk(field, X, SOLVERS[name], ZSampling(refine=Tol(1e-300, K + 1, anderson=0)), **KNOWN))
        counted = list(walk(field, X, SOLVERS[name], ZSampling(refine=K), **KNOWN))
        for one, other in zip(to, counted, strict=True):
            assert torch.equal(one.state, other.state) and one.rows == other.rows
            assert (one.prediction is None) == (other.prediction is None)
            assert one.prediction is None or torch.equal(one.prediction, other.prediction)  # type: ignore[arg-type]


def test_a_sample_is_what_it_is_alone() -> None:
    """One that has converged is left alone while others go on."""
    solver, path = FlowEuler.uniform(1), (Invert(1, 0, Tol(1e-10)),)
    together = inverted(path, solver, steep)
    alone = inverted(path, solver, lambda x, t, c: steep(x.expand(2, 3), t, c.expand(2))[1:], X[1:], cond=COND[1:],
                     uncond=UNCOND[1:])  # fmt: skip
    assert alone.rows < together.rows
    torch.testing.assert_close(together.state[1:], alone.state, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", list(TWO_STAGE))
def test_on_steps_of_two_evaluations_it_undoes_with_one_as_a_count_does(name: str) -> None:
    solver = make(name, T=4)
    to, counted = (
        sample(field, X, solver, ZSampling(refine=refine), **KNOWN) for refine in (Tol(1e-13), 60)
    )  # fmt: skip
    torch.testing.assert_close(to, counted, rtol=1e-9, atol=1e-9)


def test_gradients_are_those_of_the_converged_inverse() -> None:
    x = X.clone().requires_grad_()
    options: dict[str, Any] = KNOWN | {"strong": 3.0, "weak": 1.0, "grad": True}
    to, counted = (
        torch.autograd.grad(sample(field, x, SOLVERS["flow"], ZSampling(refine=r), **options).square().sum(), x)[0]
        for r in (Tol(1e-14, most=80, anderson=0), 60)
    )
    torch.testing.assert_close(to, counted, rtol=1e-8, atol=1e-8)
