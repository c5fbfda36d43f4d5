"""diffusers' guiders as guidance: the same numbers, one state a role, and no more than two branches."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from zigzag import CFG, FlowEuler, Guidance, RescaledCFG, Standard, Trace, Z2Sampling, ZSampling, sample

guiders = pytest.importorskip("diffusers.guiders")
from_guider = pytest.importorskip("zigzag.adapters.diffusers").from_guider

EPS = torch.finfo(torch.float32).eps
T = 6
SOLVER = FlowEuler.uniform(T, time_scale=1000.0)
MOMENTUM: dict[str, Any] = {"adaptive_projected_guidance_momentum": -0.5}
WINDOW: dict[str, Any] = {"start": 0.2, "stop": 0.7}
GUIDERS: dict[str, Callable[[], Any]] = {
    "cfg": lambda: guiders.ClassifierFreeGuidance(4.0),
    "cfg rescaled": lambda: guiders.ClassifierFreeGuidance(4.0, guidance_rescale=0.7),
    "cfg original": lambda: guiders.ClassifierFreeGuidance(4.0, use_original_formulation=True),
    "cfg in a window": lambda: guiders.ClassifierFreeGuidance(4.0, **WINDOW),
    "cfg off": lambda: guiders.ClassifierFreeGuidance(4.0, enabled=False),
    "apg": lambda: guiders.AdaptiveProjectedGuidance(4.0, adaptive_projected_guidance_rescale=1.0, eta=0.5),
    "apg with momentum": lambda: guiders.AdaptiveProjectedGuidance(4.0, **MOMENTUM),
    "apg mix": lambda: guiders.AdaptiveProjectedMixGuidance(3.5, adaptive_projected_guidance_start_step=2),
    "zero star": lambda: guiders.ClassifierFreeZeroStarGuidance(4.0, zero_init_steps=2),
    "tangential": lambda: guiders.TangentialClassifierFreeGuidance(4.0),
}
REMEMBERS = {"apg with momentum", "apg mix"}


def predict(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
    """A smooth field; the condition is a number a sample."""
    return (x + 0.01 * t.reshape(-1, 1, 1, 1) + cond.reshape(-1, 1, 1, 1)).sin() + 0.2 * x


def start() -> Tensor:
    return torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))


C, U = torch.tensor([1.0, -2.0]), torch.zeros(2)


def guided_by_diffusers(guider: Any, x: Tensor) -> Tensor:
    """Diffusers' own loop over a guider: state, inputs, one model call a branch, forward."""
    for i in range(T):
        t = SOLVER.times[i].float()
        guider.set_state(step=i, num_inference_steps=T, timestep=t)
        batches = guider.prepare_inputs({"cond": (C, U)})
        for batch in batches:
            batch.noise_pred = predict(x, t.expand(2), batch.cond)
        x = SOLVER.step(i).forward(x, guider(batches).pred)
    return x


def check_as_diffusers(guidance: Guidance, name: str) -> None:
    ours = sample(predict, start(), SOLVER, Standard(), cond=C, uncond=U, strong=guidance, batched=False)
    assert torch.equal(ours, guided_by_diffusers(GUIDERS[name](), start()))


@pytest.mark.parametrize("name", GUIDERS)
def test_a_guider_guides_as_in_diffusers_and_again_from_the_start(name: str) -> None:
    guidance = from_guider(GUIDERS[name](), steps=T)
    check_as_diffusers(guidance, name)
    check_as_diffusers(guidance, name)


def test_the_comparison_notices_a_memory_that_is_kept_and_a_step_too_late() -> None:
    class Kept:
        """A guidance whose reset does nothing."""

        def __init__(self, guidance: Any) -> None:
            self.branches, self.inner = guidance.branches, guidance

        def __call__(self, e_c: Tensor | None, e_u: Tensor | None, step: Any) -> Tensor:
            return self.inner(e_c, e_u, step)

    class Late(Kept):
        def __call__(self, e_c: Tensor | None, e_u: Tensor | None, step: Any) -> Tensor:
            return self.inner(e_c, e_u, step._replace(i=min(step.i + 1, T - 1)))

    kept = Kept(from_guider(GUIDERS["apg with momentum"](), steps=T))
    check_as_diffusers(kept, "apg with momentum")
    with pytest.raises(AssertionError):
        check_as_diffusers(kept, "apg with momentum")
    with pytest.raises(AssertionError):
        check_as_diffusers(Late(from_guider(GUIDERS["apg mix"](), steps=T)), "apg mix")


@pytest.mark.parametrize(
    ("name", "rule"), [("cfg", CFG(4.0)), ("cfg original", CFG.from_gamma(4.0)), ("cfg rescaled", RescaledCFG(4.0))]
)
def test_plain_guiders_are_the_rules_of_this_library(name: str, rule: Any) -> None:
    """Up to four roundings of e_u + w·(e_c − e_u), eight more of the spread, which sums over the sample."""
    e_c, e_u = start(), start().flip(0)
    for i in range(T):
        gap = from_guider(GUIDERS[name]())(e_c, e_u, SOLVER.info(i)) - rule(e_c, e_u, SOLVER.info(i))
        assert (gap.abs() <= (12 if "rescaled" in name else 4) * EPS * 5 * (e_c.abs() + 2 * e_u.abs())).all()


@pytest.mark.parametrize("name", GUIDERS)
def test_a_guider_has_a_reset_exactly_where_it_remembers(name: str) -> None:
    assert hasattr(from_guider(GUIDERS[name](), steps=T), "reset") == (name in REMEMBERS)


def test_a_guider_of_somebody_else_counts_as_one_that_remembers_whatever_it_is() -> None:
    class Fading(guiders.ClassifierFreeGuidance):  # type: ignore[misc]
        calls = 0

        def forward(self, pred_cond: Tensor, pred_uncond: Tensor | None = None) -> Any:
            self.calls += 1
            return super().forward(pred_cond / self.calls, pred_uncond)

    guidance = from_guider(Fading(4.0))
    assert hasattr(guidance, "reset")
    first, again = (sample(predict, start(), SOLVER, Standard(), cond=C, uncond=U, strong=guidance) for _ in range(2))
    assert torch.equal(first, again)


def test_each_role_has_a_memory_of_its_own() -> None:
    """Z-Sampling under two instances, and under one that is refused: strong and weak alternate on the way."""
    make = GUIDERS["apg with momentum"]
    given: dict[str, Any] = {"cond": C, "uncond": U, "batched": False}
    strong, weak = from_guider(make()), from_guider(make())
    alone = sample(predict, start(), SOLVER, ZSampling(), **given, strong=strong, weak=1.0)
    with_weak = sample(predict, start(), SOLVER, ZSampling(), **given, strong=strong, weak=weak)
    assert not torch.equal(alone, with_weak)
    assert torch.equal(alone, sample(predict, start(), SOLVER, ZSampling(), **given, strong=strong, weak=1.0))
    with pytest.raises(ValueError, match="one object with state"):
        sample(predict, start(), SOLVER, ZSampling(), **given, strong=strong, weak=strong)


def test_the_guider_itself_stays_as_it_is_and_later_changes_do_not_reach_in() -> None:
    guider = GUIDERS["apg with momentum"]()
    before, guidance = copy.deepcopy(vars(guider)), from_guider(guider)
    check_as_diffusers(guidance, "apg with momentum")
    assert vars(guider) == before
    guider.guidance_scale = 1.0
    check_as_diffusers(guidance, "apg with momentum")


def test_a_branch_is_evaluated_only_where_the_guider_needs_it() -> None:
    """A window from 0.2 to 0.7 of 6 steps holds the steps 1, 2 and 3; CFG-Zero* returns zeros at its first two."""
    for name, rows in (
        ("cfg in a window", [1, 2, 2, 2, 1, 1]),
        ("zero star", [1, 1, 2, 2, 2, 2]),
        ("cfg off", [1] * T),
    ):
        trace, calls = Trace(), []

        def counted(x: Tensor, t: Tensor, cond: Tensor, calls: list[int] = calls) -> Tensor:
            calls.append(len(x) // 2)
            return predict(x, t, cond)

        guidance = from_guider(GUIDERS[name](), steps=T)
        sample(counted, start(), SOLVER, Standard(), cond=C, uncond=U, strong=guidance, trace=trace)
        assert [record.rows for record in trace.records] == rows
        assert sum(calls) == sum(rows)


def test_a_guider_goes_through_every_move() -> None:
    """Z² with CFG as a guider for both roles is Z² with CFG."""
    given: dict[str, Any] = {"cond": C, "uncond": U}
    ours = sample(
        predict, start(), SOLVER, Z2Sampling(warmup=1), **given,
        strong=from_guider(guiders.ClassifierFreeGuidance(4.0)), weak=from_guider(guiders.ClassifierFreeGuidance(0.0)),
    )  # fmt: skip
    plain = sample(predict, start(), SOLVER, Z2Sampling(warmup=1), **given, strong=4.0, weak=0.0)
    moved = sample(predict, start() * (1 + EPS), SOLVER, Z2Sampling(warmup=1), **given, strong=4.0, weak=0.0)
    assert (ours - plain).norm() <= 100 * (moved - plain).norm()


ERRORS: dict[str, tuple[Callable[[], Any], str]] = {
    "a number": (lambda: from_guider(4.0), "guider must be one of diffusers.guiders, got 4.0"),
    "PAG": (
        lambda: from_guider(guiders.PerturbedAttentionGuidance(4.0, perturbed_guidance_layers=[0])),
        "pred_cond_skip",
    ),
    "SLG": (lambda: from_guider(guiders.SkipLayerGuidance(4.0, skip_layer_guidance_layers=[0])), "pred_cond_skip"),
    "SEG": (lambda: from_guider(guiders.SmoothedEnergyGuidance(4.0, seg_guidance_layers=[0])), "pred_cond_seg"),
    "LTX2": (lambda: from_guider(guiders.LTX2Guidance(4.0)), "LTX2Guidance takes more than the conditional"),
    "AutoGuidance": (
        lambda: from_guider(guiders.AutoGuidance(4.0, auto_guidance_layers=[0], dropout=0.5)),
        "AutoGuidance changes the model between its branches .* weak_fn",
    ),
    "a window of nothing": (lambda: from_guider(GUIDERS["cfg in a window"]()), "steps is missing: .* from 0.2 to 0.7"),
    "no steps": (lambda: from_guider(GUIDERS["cfg"](), steps=0), "steps must be an integer from 1, got 0"),
    "fewer steps": (
        lambda: sample(predict, start(), SOLVER, Standard(), cond=C, uncond=U, strong=from_guider(GUIDERS["cfg"](), 4)),
        "steps=4 .* but the walk has a step 4",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_is_no_rule_of_two_branches_is_refused_with_its_reason(case: str) -> None:
    call, message = ERRORS[case]
    with pytest.raises((TypeError, ValueError), match=message):
        call()
