"""Rules that read the state: APG in x₀ space, CFG-Zero* of the velocity, and what any rule is told."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from support.gaussians import KINDS
from support.guidance import STEP
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
    Spherical,
    Standard,
    State,
    StepInfo,
    Trace,
    Z2Sampling,
    ZSampling,
    capture,
    convert,
    count_rows,
    matched_cfg,
    sample,
)
from zigzag.inversion import FixedPoint, invert, reconstruct
from zigzag.solvers import DPM2, Heun

EPS = torch.finfo(torch.float64).eps
X, E_C, E_U = (noise(k, 3, 4, 2) for k in range(3))
LEVEL = 0.6, 0.8


def shown(kind: Any = "flow", x: Tensor = X) -> State:
    return State(x, *LEVEL, kind)


def guided(rule: Any, kind: Any, *, c: Tensor = E_C, u: Tensor = E_U, step: StepInfo = STEP) -> Tensor:
    """A rule asked for predictions of a kind, of branches that are given as data: all kinds say the same of them."""
    branches = (convert(X, m, *LEVEL, "x0", kind) for m in (c, u))
    return convert(X, rule(*branches, step, shown(kind)), *LEVEL, kind, "x0")


# APG ---------------------------------------------------------------------------------------------------------------


def projected(c: Tensor, u: Tensor, w: float, eta: float, norm: float | None, before: Tensor | float = 0.0) -> Tensor:
    """Algorithm 1 on data, a sample at a time."""
    rows = []
    for k in range(len(c)):
        delta = c[k] - u[k] + (before[k] if isinstance(before, Tensor) else before)
        if norm is not None and float(delta.norm()) > norm:
            delta = delta / delta.norm() * norm
        axis = c[k] / c[k].norm()
        along = (delta * axis).sum() * axis
        rows.append(c[k] + (w - 1) * (delta - along + eta * along))
    return torch.stack(rows)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("eta", "norm"), [(0.0, None), (0.0, 1.5), (0.4, 2.0), (1.0, None)])
def test_apg_is_its_algorithm_on_the_data_whatever_is_predicted(kind: Any, eta: float, norm: float | None) -> None:
    out = guided(APG(4.0, eta=eta, norm=norm), kind)
    want = projected(E_C, E_U, 4.0, eta, norm)
    assert_within(out, want, 256 * EPS * (1 + want.abs() + X.abs()))


def test_apg_with_its_parallel_part_whole_and_nothing_clipped_is_cfg() -> None:
    for kind in KINDS:
        assert_within(APG(3.0, eta=1.0)(E_C, E_U, STEP, shown(kind)), CFG(3.0)(E_C, E_U, STEP), 64 * EPS * 20)


def test_the_update_of_apg_is_orthogonal_to_the_data_of_the_condition() -> None:
    moved = guided(APG(5.0), "epsilon") - E_C
    inner = (moved * E_C).flatten(1).sum(1)
    assert_within(inner, torch.zeros(3).double(), 1e3 * EPS)
    assert moved.flatten(1).norm(dim=1).min() > 0.1  # and not nothing


def test_the_momentum_of_apg_gathers_and_is_forgotten_by_a_walk() -> None:
    rule = APG(3.0, norm=2.0, momentum=-0.5)
    first, second = guided(rule, "v"), guided(rule, "v", c=E_U, u=E_C)
    assert_within(first, projected(E_C, E_U, 3.0, 0.0, 2.0), 256 * EPS * 10)
    assert_within(second, projected(E_U, E_C, 3.0, 0.0, 2.0, before=-0.5 * (E_C - E_U)), 256 * EPS * 10)
    rule.reset()
    assert torch.equal(guided(rule, "v"), first)
    assert not hasattr(APG(3.0), "reset")  # without a momentum nothing is kept, and inversions may have it


def test_apg_is_that_of_diffusers_on_predictions_of_the_data() -> None:
    guiders = pytest.importorskip("diffusers.guiders")
    theirs = guiders.AdaptiveProjectedGuidance(
        guidance_scale=2.5, adaptive_projected_guidance_momentum=-0.75, adaptive_projected_guidance_rescale=1.5,
        eta=0.3, use_original_formulation=True,
    )  # fmt: skip
    theirs.set_state(step=0, num_inference_steps=4, timestep=torch.tensor(0))
    theirs.prepare_inputs({})
    ours = APG(3.5, eta=0.3, norm=1.5, momentum=-0.75)
    for c, u in ((E_C, E_U), (E_U, E_C), (E_C, -E_U)):
        assert_within(ours(c, u, STEP, shown("x0")), theirs.forward(c, u).pred, 64 * EPS * 10)


# CFG-Zero* -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_cfg_zero_star_scales_the_unconditional_velocity_to_its_best(kind: Any) -> None:
    """By its definition: no other scale of u_∅ is nearer to u_c; and then plain guidance of the two."""
    u_c, u_u = (convert(X, m, *LEVEL, "x0", "flow") for m in (E_C, E_U))
    out = convert(X, guided(CFGZeroStar(2.0, zero_init=0), kind), *LEVEL, "x0", "flow")
    scaled = 2.0 * u_c - out  # w = 2: u = 2·u_c − s·u_∅
    s = (scaled / u_u).flatten(1)
    assert_within(s, s[:, :1].expand_as(s), 1e5 * EPS * (1 + s.abs()))
    off = (u_c - scaled).flatten(1).norm(dim=1)
    for other in torch.linspace(-2, 2, 81, dtype=torch.float64):
        assert ((u_c - other * u_u).flatten(1).norm(dim=1) >= off * (1 - 1e-9)).all()


def test_cfg_zero_star_is_that_of_diffusers_on_a_flow() -> None:
    guiders = pytest.importorskip("diffusers.guiders")
    theirs, ours = guiders.ClassifierFreeZeroStarGuidance(guidance_scale=3.0, zero_init_steps=2), CFGZeroStar(3.0, 2)
    for step in range(4):
        theirs.set_state(step=step, num_inference_steps=4, timestep=torch.tensor(0))
        branches = (E_C, E_U) if ours.branches(STEP._replace(i=step)) == (True, True) else (None, None)
        out = ours(*branches, STEP._replace(i=step), shown("flow"))
        assert_within(out, theirs.forward(E_C, E_U).pred, 1e-5)  # theirs has s* in float32
        assert (branches[0] is None) == (step < 2)


@pytest.mark.parametrize("solver", [FlowEuler.uniform(4), Spherical.cosine(4), DDIM.stable_diffusion(4)], ids=repr)
def test_a_step_of_no_velocity_leaves_the_state_where_it_is_and_asks_nothing(solver: Any) -> None:
    """x/(α + σ) stays; the rows are those of the steps after."""
    asked = []

    def model(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        asked.append(len(x))
        return torch.sin(x)

    visits: list[Any] = []
    x = solver.noise((2, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    c = torch.ones(2).double()
    trace = Trace()
    sample(
        model, x, solver, Standard(), cond=c, uncond=-c, strong=CFGZeroStar(3.0, 2), callback=visits.append, trace=trace
    )
    total = solver.alphas + solver.sigmas
    for k in (0, 1):
        assert_within(visits[k].state / total[k + 1], x / total[0], 64 * EPS * (1 + x.abs()))
        assert visits[k].rows == 0
    assert asked == [4, 4] and trace.rows == 4 == count_rows(Standard(), solver, CFGZeroStar(3.0, 2))


# What a rule is told ---------------------------------------------------------------------------------------------


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
