"""Rules that read the state: what they are told, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from support.gaussians import KINDS
from support.guidance import E_C, E_U, STEP, shown
from support.held import make, says
from support.refusals import refused
from support.tensors import assert_within, noise
from zigzag import (
    APG,
    CFG,
    DDIM,
    CFGZeroStar,
    FlowEuler,
    ImplicitZ,
    Interval,
    Standard,
    State,
    StepInfo,
    Z2Sampling,
    ZSampling,
    capture,
    matched_cfg,
    sample,
)
from zigzag.inversion import FixedPoint, invert, reconstruct
from zigzag.solvers import DPM2, Heun

EPS = torch.finfo(torch.float64).eps


class Watch:
    """CFG that writes down what it is told."""

    needs_state = True

    def __init__(self, w: float) -> None:
        self.cfg, self.seen = CFG(w), list[tuple[StepInfo, State]]()

    def branches(self, step: StepInfo) -> tuple[bool, bool]:
        return self.cfg.branches(step)

    def __call__(self, e_c: Tensor | None, e_u: Tensor | None, step: StepInfo, state: State) -> Tensor:
        self.seen.append((step, state))
        return self.cfg(e_c, e_u, step)


def model(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
    return 0.4 * torch.tanh(x + cond[:, None]) + 0.1 * torch.cos(t.to(x.dtype))[:, None]


C, U = torch.tensor([0.5, -0.7]).double(), torch.tensor([0.1, 0.2]).double()
Y = noise(7, 2, 5)


@pytest.mark.parametrize(
    "method", [ZSampling(), ImplicitZ(), Z2Sampling(warmup=1), ZSampling(refine=1, rounds=2)], ids=repr
)
@pytest.mark.parametrize(
    "solver", [FlowEuler.uniform(4), DDIM.stable_diffusion(4), make("2M"), make("eta 1")], ids=repr
)
def test_a_rule_is_told_the_state_the_level_and_what_is_predicted(method: Any, solver: Any) -> None:
    """The state is the one that the model was called with, the level that of the time it was told; nothing moves."""
    shows: list[tuple[Tensor, float]] = []

    def watched(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        shows.append((x, float(t[0])))
        return model(x, t, cond)

    def run(strong: Any, weak: Any, fn: Any) -> Tensor:
        g = torch.Generator().manual_seed(0)
        return sample(fn, Y, solver, method, cond=C, uncond=U, strong=strong, weak=weak, generator=g, batched=False)

    strong, weak = Watch(2.0), Watch(0.5)
    out = run(strong, weak, watched)
    assert torch.equal(out, run(2.0, 0.5, model))
    assert strong.seen and weak.seen
    calls = {(t, tuple(x.flatten().tolist())) for x, t in shows}
    for step, state in (*strong.seen, *weak.seen):
        assert (step.t, tuple(state.x.flatten().tolist())) in calls
        assert state[1:] == (step.alpha_i, step.sigma_i, solver.prediction)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["Heun", "DPM2"])
def test_in_a_second_evaluation_the_level_is_that_between(name: str, kind: Any) -> None:
    """On a true pair: the data that a rule reads off state and prediction are x₀ at both evaluations of every step."""
    solver: Any = make(name, "karras" if name == "Heun" else "trailing", kind=kind)
    assert isinstance(solver, Heun | DPM2)
    x0, eps = noise(0, 2, 3), noise(1, 2, 3)
    levels = {
        t: (float(a), float(s)) for t, a, s in zip(solver.times.tolist(), solver.alphas, solver.sigmas, strict=False)
    }
    if name == "DPM2":
        levels |= dict(zip(solver.inner_times.tolist(), solver._levels, strict=False))

    def true(x: Tensor, t: Tensor, cond: Any) -> Tensor:
        on_x0, on_eps = says(kind, *levels[float(t[0])]).tolist()
        return on_x0 * x0 + on_eps * eps

    rule = Watch(1.0)
    x = float(solver.alphas[0]) * x0 + float(solver.sigmas[0]) * eps
    sample(true, x, solver, Standard(), cond=None, strong=rule)
    assert len(rule.seen) > len(solver)
    for _, state in rule.seen:
        p, q = state.form("x0")
        on_x0, on_eps = says(kind, state.alpha, state.sigma).tolist()
        size = abs(p) * state.x.abs() + abs(q) * (x0.abs() + eps.abs()) + 1
        assert_within(p * state.x + q * (on_x0 * x0 + on_eps * eps), x0, 1e3 * EPS * size)
        assert (state.alpha, state.sigma) == pytest.approx(levels_near(state, levels), rel=1e-9, abs=1e-12)


def levels_near(state: State, levels: dict[float, tuple[float, float]]) -> tuple[float, float]:
    return min(levels.values(), key=lambda level: abs(level[0] - state.alpha) + abs(level[1] - state.sigma))


def test_an_interval_tells_the_rule_inside_and_an_inversion_the_rule_it_has() -> None:
    solver, rule = FlowEuler(torch.linspace(0.95, 0, 7).tolist()), APG(2.0, eta=0.5)
    inside = Interval(rule, 1, 4)
    assert inside.needs_state and not Interval(CFG(2.0), 1).needs_state
    expected = [rule if 1 <= i < 4 else CFG(1.0) for i in range(6)]
    ours = sample(model, Y, solver, Standard(), cond=C, uncond=U, strong=inside)
    x = Y
    for i, each in enumerate(expected):
        t = solver.times[i].expand(2)
        state = State(x, float(solver.alphas[i]), float(solver.sigmas[i]), "flow")
        e_c, e_u = model(x, t, C), model(x, t, U)
        e = each(e_c, e_u, solver.info(i), state) if each is rule else e_c
        x = solver.step(i).forward(x, e)
    assert_within(ours, x, 256 * EPS * (1 + x.abs()))
    found = invert(model, ours, solver, FixedPoint(tol=1e-12, most=100), cond=C, uncond=U, guidance=inside)
    back = reconstruct(model, found, solver, cond=C, uncond=U, guidance=inside)
    assert_within(back, ours, 1e-9)
    with pytest.raises(ValueError, match="state, and would guide"):
        invert(model, ours, solver, FixedPoint(), cond=C, uncond=U, guidance=APG(2.0, momentum=-0.5))


def test_what_a_state_says_is_refused_where_it_cannot_be_said() -> None:
    with pytest.raises(TypeError, match="reads the state"):
        capture(model, Y, FlowEuler.uniform(4), Standard(), cond=C, uncond=U, strong=APG(2.0))
    with pytest.raises(TypeError, match="not linear"):
        matched_cfg(ZSampling(), FlowEuler.uniform(4), APG(2.0), 0.0)
    with pytest.raises(TypeError, match="call it with a State"):
        APG(2.0)(E_C, E_U, STEP)

    class Elsewhere(FlowEuler):
        def alpha_sigma(self, t: Tensor, dtype: torch.dtype = torch.float64) -> Any:
            raise ValueError("its predictions are of another state")

    refused("strong=APG.*another state", solver=Elsewhere([1.0, 0.5, 0.0]), strong=APG(2.0))
    unnamed = FlowEuler.uniform(4)
    unnamed.prediction = "preconditioned"  # type: ignore[assignment]
    refused("not known what its predictions say", solver=unnamed, method=Standard(), strong=CFGZeroStar(2.0))


@pytest.mark.parametrize(
    ("make_rule", "error", "match"),
    [
        (lambda: APG(2.0, norm=0.0), ValueError, "norm"),
        (lambda: APG(2.0, eta="1"), TypeError, "eta"),
        (lambda: APG(2.0, momentum=float("nan")), ValueError, "momentum"),
        (lambda: APG("2"), TypeError, "scale"),
        (lambda: CFGZeroStar(2.0, zero_init=-1), ValueError, "zero_init"),
        (lambda: CFGZeroStar(2.0, zero_init=0.5), ValueError, "zero_init"),
        (lambda: APG(2.0)(None, E_U, STEP, shown()), ValueError, "conditional"),
        (lambda: CFGZeroStar(2.0)(None, E_U, STEP, shown()), ValueError, "conditional"),
    ],
)
def test_arguments_of_the_rules_are_refused_by_name(make_rule: Any, error: Any, match: str) -> None:
    with pytest.raises(error, match=match):
        make_rule()
