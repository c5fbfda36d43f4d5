"""CFG, e_w = e_∅ + w·(e_c − e_∅), with the branches that w needs, and Interval, which bounds its steps."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from support.guidance import BOTH, COND, STEP, UNCOND, at, branches, needed
from support.tensors import assert_within, noise, seeds
from zigzag.guidance import CFG, CFGPlusPlus, Interval, RescaledCFG
from zigzag.solvers import StepInfo

EPS = torch.finfo(torch.float64).eps

scales = st.one_of(st.sampled_from([0.0, 1.0, 5.5, 0.5, 7.5]), st.floats(0.01, 20.0))

# CFG -------------------------------------------------------------------------------------------------------


def check_scale(rule: Any, w: float, step: StepInfo = STEP, seed: int = 0) -> None:
    """The rule is e_u + w·(e_c − e_u) at this step, asks for what w needs, and says its w."""
    e_c, e_u = noise(seed, 2, 3), noise(seed + 1, 2, 3)
    assert tuple(rule.branches(step)) == branches(w)
    assert rule.at(step) == w
    out = needed(rule, e_c, e_u, step)
    assert_within(out, e_u + w * (e_c - e_u), 4 * EPS * (1 + abs(w)) * (e_c.abs() + e_u.abs()))


@given(scales, seeds)
def test_cfg_extrapolates_from_the_unconditional_prediction_by_w(w: float, seed: int) -> None:
    check_scale(CFG(w), w, seed=seed)


def test_at_w_1_and_w_0_one_branch_is_returned_bit_for_bit_and_the_other_is_not_needed() -> None:
    e = noise(0, 2, 3)
    for one, zero in ((1, 0), (1.0, 0.0)):
        assert torch.equal(CFG(one)(e, None, STEP), e)
        assert torch.equal(CFG(zero)(None, e, STEP), e)


@given(st.floats(-1.0, 20.0))
def test_from_gamma_is_w_equal_one_plus_gamma(gamma: float) -> None:
    """Z-Sampling, eq. 5: (1 + γ)·u_c − γ·u_∅."""
    e_c, e_u = noise(0, 2, 3), noise(1, 2, 3)
    rule = CFG.from_gamma(gamma)
    assert isinstance(rule, CFG)
    check_scale(rule, 1 + gamma)
    expected = (1 + gamma) * e_c - gamma * e_u
    size = (2 + abs(gamma)) * (e_c.abs() + e_u.abs())
    assert_within(needed(rule, e_c, e_u, STEP), expected, 8 * EPS * size)


def test_gamma_0_is_conditional_and_gamma_minus_1_unconditional() -> None:
    assert tuple(CFG.from_gamma(0).branches(STEP)) == COND
    assert tuple(CFG.from_gamma(-1).branches(STEP)) == UNCOND


def test_the_scale_check_refuses_gamma_for_w_and_exchanged_branches() -> None:
    class Exchanged(CFG):
        def __call__(self, e_c: Tensor | None, e_u: Tensor | None, step: StepInfo) -> Tensor:
            return super().__call__(e_u, e_c, step)

    for mutant in (CFG.from_gamma(5.5), CFG(4.5), Exchanged(5.5)):
        with pytest.raises(AssertionError):
            check_scale(mutant, 5.5)


def test_the_scale_may_be_a_function_of_the_step() -> None:
    """w(step) is asked at the step itself, also for the branches."""
    seen: list[StepInfo] = []

    def ramp(step: StepInfo) -> float:
        seen.append(step)
        return float(step.i)

    rule = CFG(ramp)
    for i in range(4):
        step = at(i=i, j=i + 1)
        check_scale(rule, float(i), step)
        assert seen[-1] == step
    by_noise = CFG(lambda step: 1 + step.sigma_i * step.t)
    check_scale(by_noise, 1 + 0.8 * 0.5)


# Interval --------------------------------------------------------------------------------------------------


def check_interval(rule: Any, w: float, start: int, stop: int) -> None:
    for i in range(8):
        check_scale(rule, w if start <= i < stop else 1.0, at(i=i, j=i + 1))


@pytest.mark.parametrize("w", [0.0, 5.5])
def test_an_interval_guides_from_start_to_before_stop_and_is_conditional_outside(w: float) -> None:
    check_interval(Interval(CFG(w), 2, 5), w, 2, 5)
    check_interval(Interval(CFG(w), start=2), w, 2, 99)
    check_interval(Interval(CFG(w), stop=5), w, 0, 5)
    check_interval(Interval(CFG(w)), w, 0, 99)


def test_the_interval_check_refuses_an_interval_off_by_one() -> None:
    for mutant in (Interval(CFG(5.5), 2, 6), Interval(CFG(5.5), 1, 5), CFG(5.5)):
        with pytest.raises(AssertionError):
            check_interval(mutant, 5.5, 2, 5)


def test_an_interval_holds_any_rule_and_goes_by_the_knot_that_the_step_starts_from() -> None:
    """A span or an inversion of i -> j is inside where i is, whatever j is."""
    e_c, e_u = noise(0, 2, 3), noise(1, 2, 3)
    inner = RescaledCFG(5.5)
    rule = Interval(inner, 2, 4)
    wide = at(i=3, j=7)
    assert torch.equal(needed(rule, e_c, e_u, wide), needed(inner, e_c, e_u, wide))
    assert tuple(rule.branches(wide)) == BOTH
    outside = at(i=1, j=3)
    assert torch.equal(needed(rule, e_c, e_u, outside), e_c)
    assert tuple(rule.branches(outside)) == COND
    plus = Interval(CFGPlusPlus(0.6), 2, 4)
    assert plus.at(wide) == CFGPlusPlus(0.6).at(wide) and plus.at(outside) == 1
