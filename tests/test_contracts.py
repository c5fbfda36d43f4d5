"""What the pieces promise each other, where a slip would be silent."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from zigzag import (
    CFG,
    DDIM,
    Denoise,
    FlowEuler,
    ImplicitZ,
    Interval,
    Invert,
    Renoise,
    RescaledCFG,
    Shift,
    Spherical,
    Standard,
    StepInfo,
    Trace,
    Z2Sampling,
    ZSampling,
    matched_cfg,
    sample,
    walk,
)
from zigzag.conditions import share_calls
from zigzag.zoo import Digits, GaussianMixture

GRID = DDIM.stable_diffusion(6, spacing="trailing")
X = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3)


def eps_fn(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
    return torch.sin(x) + cond.reshape(-1, 1)


COND, UNCOND = torch.ones(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)


class Recorder:
    """CFG that remembers what it was given, with state."""

    def __init__(self, scale: float) -> None:
        self.inner, self.calls, self.resets = CFG(scale), [], 0

    def reset(self) -> None:
        self.resets += 1

    def branches(self, step: StepInfo) -> tuple[bool, bool]:
        return self.inner.branches(step)

    def __call__(self, e_c: Tensor | None, e_u: Tensor | None, step: StepInfo) -> Tensor:
        self.calls.append((e_c is None, e_u is None))
        return self.inner(e_c, e_u, step)


def test_a_rule_gets_none_for_a_branch_it_does_not_need_even_where_it_was_evaluated() -> None:
    weak = Recorder(0.0)
    sample(eps_fn, X, GRID, ImplicitZ(), cond=COND, uncond=UNCOND, weak=weak)
    assert weak.calls == [(True, False)] * 6


def test_a_trace_never_calls_a_weak_rule_with_state() -> None:
    """A diagnosis changes nothing: as many calls with a trace as without."""
    plain, traced = Recorder(0.0), Recorder(0.0)
    for weak, trace in ((plain, None), (traced, Trace())):
        sample(eps_fn, X, GRID, ZSampling(), cond=COND, uncond=UNCOND, weak=weak, trace=trace)
    assert traced.calls == plain.calls


def test_a_rule_inside_an_interval_is_reset() -> None:
    inner = Recorder(5.5)
    sample(eps_fn, X, GRID, Standard(), cond=COND, uncond=UNCOND, strong=Interval(inner, 1, 3))
    assert inner.resets == 1 and len(inner.calls) == 2


def test_one_rule_with_state_cannot_play_both_roles() -> None:
    rule = Recorder(5.5)
    with pytest.raises(ValueError, match="strong and weak"):
        walk(eps_fn, X, GRID, ZSampling(), cond=COND, uncond=UNCOND, strong=rule, weak=rule)


def test_an_interval_around_a_rule_that_is_not_linear_has_no_scale() -> None:
    rule = Interval(RescaledCFG(5.5), 0, 2)
    assert rule.at(GRID.info(4)) == 1.0
    with pytest.raises(TypeError, match="not linear"):
        rule.at(GRID.info(1))


def test_a_trace_holds_no_graph() -> None:
    trace = Trace()
    x = X.clone().requires_grad_()
    out = sample(eps_fn, x, GRID, ZSampling(), cond=COND, uncond=UNCOND, grad=True, trace=trace)
    assert out.requires_grad
    tensors = [t for r in trace.records for t in (r.delta, r.tau1, r.tau2) if t is not None]
    assert tensors and not any(t.requires_grad for t in tensors)


@pytest.mark.parametrize("batched", [True, False])
def test_the_gradient_to_a_condition_does_not_depend_on_batching_or_on_ambient_grad_mode(batched: bool) -> None:
    cond = COND.clone().requires_grad_()
    with torch.no_grad():
        out = sample(eps_fn, X, GRID, Standard(), cond=cond, uncond=UNCOND, grad=True, batched=batched)
    (gradient,) = torch.autograd.grad(out.sum(), cond)
    reference = COND.clone().requires_grad_()
    out = sample(eps_fn, X, GRID, Standard(), cond=reference, uncond=UNCOND, grad=True, batched=not batched)
    torch.testing.assert_close(gradient, torch.autograd.grad(out.sum(), reference)[0])
    assert gradient.abs().min() > 0


def test_noise_is_drawn_where_the_generator_is() -> None:
    """A generator on the host serves a state elsewhere; drawing on the state's own device would refuse it."""
    x = torch.zeros(2, 3, device="meta")
    out = sample(
        lambda x, t, c: x, x, GRID, (Denoise(0, 1), Renoise(1, 0)), cond=None, strong=1.0, generator=torch.Generator()
    )
    assert out.device.type == "meta"


def test_equal_leaves_that_are_no_tensors_pass_into_a_doubled_batch() -> None:
    a, b = torch.ones(2, 3), torch.zeros(2, 3)
    both = ("uncond", "cond")
    each = {"uncond": {"e": a, "size": 8, "none": None}, "cond": {"e": b, "size": 8, "none": None}}
    doubled = share_calls(each, [both], 2, True).joined[both]
    assert doubled["size"] == 8 and doubled["none"] is None
    torch.testing.assert_close(doubled["e"], torch.cat([a, b]))
    with pytest.raises(ValueError, match="leaf"):
        share_calls({"uncond": {"e": a, "size": 8}, "cond": {"e": b, "size": 9}}, [both], 2, True)


def test_of_several_conditions_those_that_are_alike_share_a_call() -> None:
    """A null condition of None, and texts of two lengths: what stands between them keeps no two of them apart."""
    seen = []

    def told(x: Tensor, t: Tensor, cond: Any) -> Tensor:
        seen.append(None if cond is None else cond if isinstance(cond, Tensor) else cond["text"])
        return x.sin()

    x, short, long = X[:2], torch.randn(2, 4), torch.randn(2, 7)
    given = {"weak_cond": short + 1, "strong": 3.0, "weak": 0.5, "batched": "auto"}
    sample(told, x, GRID, (Denoise(0, 1), Shift(1, fresh=True)), cond=short, uncond=None, **given)
    alone, together = seen[-2:]
    assert alone is None
    torch.testing.assert_close(together, torch.cat([short, short + 1]))
    each = {"uncond": {"text": long}, "cond": short, "weak_uncond": {"text": long + 1}, "weak_cond": short + 1}
    conditions = share_calls(each, [tuple(each)], 2, "auto")
    assert conditions.calls[tuple(each)] == [("uncond", "weak_uncond"), ("cond", "weak_cond")]
    torch.testing.assert_close(conditions.joined["uncond", "weak_uncond"]["text"], torch.cat([long, long + 1]))
    assert len(conditions.joined) == 2
    with pytest.warns(UserWarning, match="the branches run as 3 calls: leaf 0 of cond and weak_cond has shapes"):
        share_calls(
            {"uncond": None, "cond": short, "weak_cond": short[:1]}, [("uncond", "cond", "weak_cond")], 2, "auto"
        )
    apart = share_calls(each, [tuple(each)], 2, False)
    assert [*apart.calls[tuple(each)]] == [(name,) for name in each] and not apart.joined


def test_conditions_of_two_dtypes_are_not_mixed_into_one_batch() -> None:
    """Concatenated, int64 labels would reach the model as floats."""
    seen = []

    def typed(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        seen.append(cond.dtype)
        return x

    labels, null = torch.tensor([1, 2]), torch.zeros(2)
    sample(typed, X, GRID, Standard(), cond=labels, uncond=null)
    assert set(seen) == {torch.int64, torch.float32}
    with pytest.raises(ValueError, match="batched=True"):
        sample(typed, X, GRID, Standard(), cond=labels, uncond=null, batched=True)


@pytest.mark.parametrize(("a", "invertible"), [(1e-11, True), (1e-13, False)])
def test_a_step_has_an_inverse_down_to_a_of_1e_12(a: float, invertible: bool) -> None:
    grid = DDIM([1.0, a], [2.0, a / 2], [0.0])
    assert grid.step(0).a == a
    if invertible:
        assert math.isfinite(float(grid.invertible_step(0).c))
    else:
        with pytest.raises(ValueError, match="knot 0 to 1"):
            grid.invertible_step(0)


def test_a_quarter_turn_in_float32_is_a_quarter_turn() -> None:
    """float32(π/2) exceeds π/2 by 4e-8: its cosine must not become a negative α."""
    grid = Spherical(torch.tensor([math.pi / 2, 0.5, 0.0], dtype=torch.float32))
    assert grid.alphas[0] == 0
    with pytest.raises(ValueError, match="angles"):
        Spherical([math.pi / 2 + 1e-6, 0.5, 0.0])


def test_a_released_inverse_has_no_matched_scale() -> None:
    """It rescales the state: on a constant field, e_∅ included, no scale of plain guidance gives the same."""
    with pytest.raises(ValueError, match="matched scale"):
        matched_cfg(ZSampling(released=True), GRID)


@pytest.mark.parametrize("method", [lambda: Z2Sampling(warmup=5, steps=3), lambda: ImplicitZ(start=4, steps=2)])
def test_a_method_that_could_never_shift_is_refused(method: object) -> None:
    with pytest.raises(ValueError, match="steps"):
        method()  # type: ignore[operator]


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_a_spread_needs_two_elements_a_sample(shape: tuple[int, ...]) -> None:
    x = torch.ones(shape)
    with pytest.raises(ValueError, match="spread"):
        sample(
            lambda x, t, c: x * c, x, FlowEuler.uniform(2), Standard(), cond=1.0, uncond=2.0, strong=RescaledCFG(3.0)
        )


def test_a_constant_prediction_is_left_as_it_is() -> None:
    """std(e_w) = 0: nothing to bring back, and nothing that is not a number."""
    out = RescaledCFG(3.0)(torch.ones(2, 4), torch.zeros(2, 4), GRID.info(0))
    torch.testing.assert_close(out, torch.full((2, 4), 3.0))


def test_a_class_that_the_mixture_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="labels"):
        Digits().predict(torch.zeros(2, 1, 8, 8), 1.0, 1.0, torch.tensor([10, 3]))
    with pytest.raises(ValueError, match="stds"):
        GaussianMixture(torch.zeros(2, 3), math.inf)


def test_the_presets_run_to_the_ends_of_the_training_grid() -> None:
    """Where the last time is 0, the last knot is clean data: ᾱ_0 has been reached already."""
    for grid in (DDIM.stable_diffusion(50, steps_offset=0), DDIM.stable_diffusion(1000, spacing="trailing")):
        assert grid.times[-1] == 0 and grid.alphas[-1] == 1
    with pytest.raises(ValueError, match="steps_offset"):
        DDIM.stable_diffusion(1000)


def test_a_class_in_the_place_of_a_guidance_is_refused() -> None:
    with pytest.raises(TypeError, match="strong"):
        walk(eps_fn, X, GRID, Standard(), cond=COND, uncond=UNCOND, strong=CFG)  # type: ignore[arg-type]


def test_moves_between_knots_that_are_no_integers_are_refused() -> None:
    with pytest.raises(TypeError, match="move 0"):
        walk(eps_fn, X, GRID, (Denoise(0.0, 1.0),), cond=COND, strong=1.0)  # type: ignore[arg-type]


def test_an_inversion_alone_runs_from_data_to_noise() -> None:
    up = tuple(Invert(i + 1, i) for i in reversed(range(6)))
    assert sample(eps_fn, X, GRID, up, cond=COND, weak=1.0).isfinite().all()
