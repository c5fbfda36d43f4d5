"""The effective scale where it is not that of every step alike: memory, plain roles, rules that skip a branch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from zigzag import (
    CFG,
    DDIM,
    ImplicitZ,
    Interval,
    Standard,
    Trace,
    Visit,
    Z2Sampling,
    ZSampling,
    matched_cfg,
    sample,
)
from zigzag.presets import w2sd
from zigzag.solvers import DPMSolver
from zigzag.zoo import GaussianMixture

T, S, W = 8, 4.0, 0.5
SOLVER = DDIM.stable_diffusion(T)
GENERATOR = torch.Generator().manual_seed(0)
X, C, U, P = (torch.randn(3, 4, dtype=torch.float64, generator=GENERATOR) for _ in range(4))


def constant(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
    return cond


def traced(method: Any, solver: Any = SOLVER, eps_fn: Any = constant, **given: Any) -> Trace:
    trace = Trace()
    sample(eps_fn, X, solver, method, **{"cond": C, "uncond": U, "strong": S, "weak": W} | given, trace=trace)
    return trace


def by_step(trace: Trace) -> dict[int, float]:
    return {r.move.start: float(r.beta[0]) for r in trace.records if r.beta is not None}


@pytest.mark.parametrize("order", [2, 3])
def test_in_a_memory_plain_guidance_holds_a_larger_gap_than_a_zigzag(order: int) -> None:
    """On a constant field a zigzag adds `s − w` at each step, memory or not; plain guidance needs more for the same."""
    solver = DPMSolver.on(SOLVER, order=order)
    betas, matched = by_step(traced(ZSampling(), solver)), matched_cfg(ZSampling(), solver, S, W)
    assert betas == pytest.approx(dict.fromkeys(range(T - 1), S - W))
    added = [float(matched.at(solver.info(i))) - S for i in range(T)]
    assert added[0] == pytest.approx(S - W) and all(more > S - W + 0.5 for more in added[1 : T - 1])
    zigzag, plain = (
        sample(constant, X, solver, method, cond=C, uncond=U, strong=strong, weak=W)
        for method, strong in ((ZSampling(), S), (Standard(), matched))
    )
    torch.testing.assert_close(zigzag, plain, rtol=1e-9, atol=1e-9)


def test_of_a_plain_step_it_is_along_the_gap_of_the_plain_role() -> None:
    """W2SD on three mixtures, by hand: ⟨Δ, g⟩/⟨g, g⟩ with the gap of the network that leaves the knot."""
    means = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    strong, weak, plain = (GaussianMixture(means + 0.3 * k, 0.5).predictor(SOLVER) for k in (1.5, -1.5, 0.8))
    c, u, visits = torch.tensor([0, 1, 2]), torch.full((3,), -1), list[Visit]()
    trace = Trace()
    sample(
        strong, X, SOLVER, **w2sd(), weak_fn=weak, plain_fn=plain, cond=c, uncond=u, trace=trace, callback=visits.append
    )
    states = [X, *(visit.state for visit in visits)]  # down, up, and plainly down again
    for i in range(T - 1):
        arrived, left = states[3 * i], states[3 * i + 2]
        step, t = SOLVER.step(i), SOLVER.times[i].expand(3)
        g = plain(left, t, c) - plain(left, t, u)
        expected = ((left - arrived) * float(step.a / step.b) * g).sum(1) / (g * g).sum(1)
        beta = trace.records[3 * i + 2].beta
        assert beta is not None
        torch.testing.assert_close(beta, expected, rtol=1e-9, atol=1e-9)
    mean = torch.stack([r.beta for r in trace.records if r.beta is not None]).sum(0) / T
    assert trace.beta is not None
    torch.testing.assert_close(trace.beta, mean)


@pytest.mark.parametrize("own", [{"plain_cond": P}, {"plain_fn": constant}, {"plain_cond": P, "plain_uncond": U}])
def test_a_plain_role_of_another_condition_has_one(own: dict[str, Any]) -> None:
    beta = traced(ZSampling(plain=True), plain=2.0, **own).beta
    assert beta is not None and beta.isfinite().all()


def test_a_mean_over_steps_of_which_one_is_unknown_is_unknown() -> None:
    """Outside the interval the strong prediction is one branch, and says not along what the shift lies."""
    trace = traced(ImplicitZ(), strong=Interval(CFG(5.5), 2, 5), weak=0.0)
    assert by_step(trace) == pytest.approx(dict.fromkeys((2, 3, 4), 5.5))
    assert trace.beta is None


def test_where_the_branches_are_equal_it_is_nothing() -> None:
    same = torch.cat([U[:1], C[1:]])
    beta = traced(ImplicitZ(), cond=same).beta
    assert beta is not None
    torch.testing.assert_close(beta, torch.tensor([0.0, S - W, S - W], dtype=beta.dtype))


def test_a_callback_that_replaces_a_state_on_arrival_moves_where_it_is_counted_from() -> None:
    """The state of the callback has come down to the knot; put in later, it is no part of what the method did."""

    def nudged(start: int, end: int) -> Any:
        return lambda visit: visit.state + 1 if (visit.move.start, visit.move.end) == (start, end) else None

    plain = by_step(traced(ImplicitZ()))
    assert by_step(traced(ImplicitZ(), callback=nudged(1, 2))) == pytest.approx(plain)
    shifted = traced(Z2Sampling(warmup=2), callback=nudged(3, 3))
    assert 3 not in by_step(shifted) and len(by_step(shifted)) == T - 3 and shifted.beta is None
