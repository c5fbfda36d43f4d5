"""Recorded residuals: the data come back on every solver, under the prompt that they were recorded with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from support.held import SOLVERS, cases, make
from support.predictors import LIP, field
from support.sampling import COND, UNCOND, X
from support.tensors import assert_finite_within
from zigzag.inversion import Recorded, invert, reconstruct
from zigzag.inversion.recorded import independent
from zigzag.solvers import DDIM, FlowEuler, Solver

OPTIONS: dict[str, Any] = {"cond": COND, "uncond": UNCOND}
TRAJECTORIES = ("naive", "independent")


def seed(n: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(n)


def bound(solver: Solver, x: Tensor, w: float, residuals: Tensor) -> float:
    """How far rounding may take the way down from the recorded states.

    A step is off by 20 roundings of its terms, and what it is off by the next ones carry: by `|a| + |b|·Lip` the state,
    and by as much as the memory of it counts, in the state or in the prediction.
    """
    lip, eps = LIP * (abs(w) + abs(1 - w)), torch.finfo(x.dtype).eps
    top = float(x.abs().max()) + float(solver.sigmas.max()) * 6
    offs: list[float] = [0.0]
    kept: list[float] = []
    alphas, sigmas, _ = solver.knots
    for i in range(len(solver)):
        step = solver.step(i, None, range(i))
        memory = [abs(float(k)) for k in step.memory]
        # What is remembered is at most (1 + σ)/α of the state and the prediction, in either form.
        scale = (1 + sigmas[i]) / max(alphas[i], 1e-3) * (1 + lip)
        terms = abs(float(step.a)) * top + abs(float(step.b)) * (1 + lip * top) + sum(memory) * scale * top
        terms += float(residuals[i].abs().max())
        twice = 1 + lip if solver.inner(i, i + 1) is not None else 1
        off = (abs(float(step.a)) + abs(float(step.b)) * lip * twice) * offs[-1] + 40 * eps * terms
        off += sum(k * m for k, m in zip(memory, reversed(kept), strict=False))
        kept.append(scale * offs[-1])
        offs.append(off)
    return offs[-1]


@settings(max_examples=60)
@given(
    case=cases(tuple(name for name in SOLVERS if name not in ("LCM", "consistency"))),
    trajectory=st.sampled_from(TRAJECTORIES),
    w=st.sampled_from([1.0, 4.0]),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)
def test_data_come_back_on_every_solver(case: Any, trajectory: Any, w: float, dtype: torch.dtype) -> None:
    """Multistep, stochastic or of two evaluations, on every grid and prediction."""
    solver, x = case.solver, X.to(dtype)
    if trajectory == "naive" and (solver.sigmas[-1] == 0 and case.kind == "x0"):
        trajectory = "independent"
    inverted = invert(field, x, solver, Recorded(trajectory), guidance=w, generator=seed(), **OPTIONS)
    assert inverted.noises is None and inverted.residuals is not None
    back = reconstruct(field, inverted, solver, guidance=w, **OPTIONS)
    assert back.dtype == dtype
    assert_finite_within(back, x, bound(solver, x, w, inverted.residuals))


ALL = ["DPM-1", "2M", "DEIS-3", "eta 1", "SDE-2M", "LCM", "TCD", "Heun"]
each_trajectory = pytest.mark.parametrize("trajectory", TRAJECTORIES)


@each_trajectory
@pytest.mark.parametrize("name", ALL)
def test_data_do_not_come_back_under_another_prompt_or_by_another_interval(name: str, trajectory: Any) -> None:
    """The bound that the data come back within refuses both."""
    solver = make(name, "leading", 6)
    inverted = invert(field, X, solver, Recorded(trajectory), generator=seed(), **OPTIONS)
    assert inverted.residuals is not None
    most = bound(solver, X, 1.0, inverted.residuals)
    good = reconstruct(field, inverted, solver, **OPTIONS)
    other = reconstruct(field, inverted, solver, cond=COND + 1)
    moved = reconstruct(field, replace(inverted, residuals=inverted.residuals.roll(1, 0)), solver, **OPTIONS)
    assert float((good - X).abs().max()) <= most
    for mutant in (other, moved):
        assert float((mutant - X).abs().max()) > 1e3 * most


def test_the_residuals_of_an_ancestral_solver_are_its_noise_maps() -> None:
    """Edit-friendly: `z_i = (x_j − a·x_i − b·e)/s` of states that have each a noise of their own, of the deviation that
    two independent noises have: larger than 1."""
    solver = DDIM.stable_diffusion(6, eta=1.0)
    x = torch.zeros(1, 4000, dtype=torch.float64)
    inverted = invert(
        lambda x, t, cond: torch.zeros_like(x), x, solver, Recorded("independent"), cond=None, generator=seed()
    )  # fmt: skip
    states = independent(solver, x, seed())
    assert inverted.residuals is not None
    for i in range(len(solver)):
        step = solver.step(i)
        z = inverted.residuals[i] / step.noise
        torch.testing.assert_close(z, (states[i + 1] - step.a * states[i]) / step.noise)
        spread = (solver.sigmas[i + 1] ** 2 * (i + 1 < len(solver)) + (step.a * solver.sigmas[i]) ** 2) ** 0.5
        # The deviation of 4000 normal numbers is itself off by 1/√8000 of it, thrice or five times at most.
        assert abs(float(z.std()) * step.noise / float(spread) - 1) < 5 / 8000**0.5


def test_independent_states_are_those_of_the_forward_process() -> None:
    """`α_i·x + σ_i·ε_i` at each knot above the last, with noises of their own; the last is the data."""
    solver = FlowEuler.uniform(5)
    x = torch.full((1, 4000), 2.0, dtype=torch.float64)
    states = independent(solver, x, seed())
    assert len(states) == 6 and states[-1] is x
    noises = torch.stack([(s - a * x) / b for s, a, b in zip(states, solver.alphas, solver.sigmas, strict=False)][:-1])
    correlation = torch.corrcoef(noises[:, 0])
    assert float((correlation - torch.eye(5)).abs().max()) < 5 / 4000**0.5
    assert abs(float(noises.std()) - 1) < 5 / 40000**0.5
    assert not torch.equal(independent(solver, x, seed(1))[0], states[0])


def test_the_naive_trajectory_is_that_of_plain_inversion() -> None:
    """Paper eq. 4 on every interval, whatever the solver's own step."""
    for name in ("DPM-1", "2M", "eta 1"):
        solver, plain = make(name, "leading", 5), DDIM.stable_diffusion(5)
        x = X
        for i in reversed(range(5)):
            x = plain.step(i).inverse(x, field(x, solver.times[i].expand(len(X)), COND))
        inverted = invert(field, X, solver, Recorded(), cond=COND)
        torch.testing.assert_close(inverted.noise, x, rtol=1e-13, atol=1e-13)


def test_rows_are_counted() -> None:
    """One evaluation a step for the residuals, and one for a naive trajectory."""
    for trajectory, calls in (("naive", 2), ("independent", 1)):
        for w, branches in ((1.0, 1), (4.0, 2)):
            inverted = invert(field, X, FlowEuler.uniform(5), Recorded(trajectory), guidance=w, **OPTIONS)  # type: ignore[arg-type]
            assert inverted.report is not None and inverted.report.rows == 5 * calls * branches


def test_refusals() -> None:
    def never(x: Tensor, t: Tensor, cond: object) -> Tensor:
        pytest.fail("the model was called")

    with pytest.raises(ValueError, match="trajectory must be 'naive' or 'independent', got 'other'"):
        Recorded("other")  # type: ignore[arg-type]
    solver = make("DPM-1", "linspace", 4, "x0")
    says = r"the step 3 -> 4 of DPMSolver.*has no inverse to go up by; take Recorded\('independent'\)"
    with pytest.raises(ValueError, match=says):
        invert(never, X, solver, Recorded(), cond=None)
    invert(field, X, solver, Recorded("independent"), cond=COND)
