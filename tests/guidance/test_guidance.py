"""Guidance: e_w = e_∅ + w·(e_c − e_∅), the branches that it needs, and the rules built on it."""

import math
import statistics
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from zigzag.guidance import CFG, CFGPlusPlus, Interval, RescaledCFG
from zigzag.solvers import DDIM, FlowEuler, Solver, Spherical, StepInfo

EPS = torch.finfo(torch.float64).eps


def at(i: int = 3, j: int = 4, alpha_j: float = 0.8, sigma_j: float = 0.6) -> StepInfo:
    return StepInfo(i=i, j=j, t=0.5, alpha_i=0.6, sigma_i=0.8, alpha_j=alpha_j, sigma_j=sigma_j)


STEP = at()
BOTH, COND, UNCOND = (True, True), (True, False), (False, True)
seeds = st.integers(0, 2**31 - 1)
scales = st.one_of(st.sampled_from([0.0, 1.0, 5.5, 0.5, 7.5]), st.floats(0.01, 20.0))


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def branches(w: float) -> tuple[bool, bool]:
    """w = 1 needs the conditional branch, w = 0 the unconditional one, any other both."""
    return COND if w == 1 else UNCOND if w == 0 else BOTH


def needed(rule: Any, e_c: Tensor, e_u: Tensor, step: StepInfo) -> Tensor:
    """Call a rule as the loop does: a branch that it does not need is None."""
    cond, uncond = rule.branches(step)
    return rule(e_c if cond else None, e_u if uncond else None, step)


def assert_within(actual: Tensor, expected: Tensor, bound: Tensor | float) -> None:
    assert actual.shape == expected.shape
    gap = (actual - expected).abs()
    assert (gap <= torch.as_tensor(bound, dtype=torch.float64)).all(), gap.max()


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


def test_a_guided_prediction_keeps_the_dtype_of_the_predictions() -> None:
    e_c, e_u = noise(0, 2, 3).float(), noise(1, 2, 3).float()
    for rule in (CFG(5.5), CFG(1), CFG(0), CFGPlusPlus(0.6), RescaledCFG(5.5), Interval(CFG(5.5), 0, 9)):
        assert needed(rule, e_c, e_u, STEP).dtype == torch.float32


def test_rules_leave_the_predictions_alone_and_pass_gradients_to_both() -> None:
    e_c, e_u = noise(0, 3, 4), noise(1, 3, 4)
    kept = e_c.clone(), e_u.clone()
    for rule in (CFG(5.5), CFGPlusPlus(0.6), RescaledCFG(5.5), Interval(CFG(5.5), 0, 9)):
        rule(e_c, e_u, STEP)
        assert torch.equal(e_c, kept[0]) and torch.equal(e_u, kept[1])
        pair = e_c.clone().requires_grad_(), e_u.clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda c, u, rule=rule: rule(c, u, STEP), pair)


# CFG++ -----------------------------------------------------------------------------------------------------


def cfgpp_solvers() -> dict[str, Solver]:
    """Grids with α_0 >= 0.07, for the definition divides by α_i; the last knot has σ = 0."""
    return {
        "ddim": DDIM.stable_diffusion(8),
        "edm": DDIM.karras(6, sigma_min=0.1, sigma_max=10.0),
        "flow": FlowEuler(torch.tensor([0.95, 0.8, 0.3, 0.0], dtype=torch.float64)),
        "spherical": Spherical.cosine(5, phi_max=1.5),
    }


def both(x: Tensor, e: Tensor, alpha: float, sigma: float, prediction: str) -> tuple[Tensor, Tensor]:
    """x₀ (Tweedie) and ε of a prediction, by hand."""
    if prediction == "epsilon":
        return (x - sigma * e) / alpha, e
    if prediction == "flow":
        return x - sigma * e, x + alpha * e
    return alpha * x - sigma * e, sigma * x + alpha * e


def check_cfgpp(rule: Any, solver: Solver, i: int, j: int, lam: float, seed: int) -> None:
    """CFG++ in its own two lines, in the solver's own parametrisation:
    x̂₀ = Tweedie(x_i, e_∅ + λ·(e_c − e_∅));  x_j = α_j·x̂₀ + σ_j·ε_∅."""
    info = solver.info(i, j)
    x, e_c, e_u = (noise(seed + k, 2, 5) for k in range(3))
    x = x * (info.alpha_i**2 + info.sigma_i**2) ** 0.5
    guided = e_u + lam * (e_c - e_u)
    x0_hat, _ = both(x, guided, info.alpha_i, info.sigma_i, solver.prediction)
    _, eps_u = both(x, e_u, info.alpha_i, info.sigma_i, solver.prediction)
    expected = info.alpha_j * x0_hat + info.sigma_j * eps_u

    w = rule.at(info)
    actual = solver.step(i, j).forward(x, needed(rule, e_c, e_u, info))
    size = (x.abs() + (1 + info.sigma_i) * (e_c.abs() + e_u.abs())) * (1 + info.alpha_j / info.alpha_i)
    assert_within(actual, expected, 16 * EPS * (1 + abs(w)) * size)


@pytest.mark.parametrize("name", list(cfgpp_solvers()))
@pytest.mark.parametrize("lam", [0.0, 0.3, 0.6, 1.0])
def test_cfgpp_is_tweedie_with_the_guided_and_renoising_with_the_unconditional(name: str, lam: float) -> None:
    solver = cfgpp_solvers()[name]
    for i in range(len(solver)):
        check_cfgpp(CFGPlusPlus(lam), solver, i, i + 1, lam, seed=i)
    check_cfgpp(CFGPlusPlus(lam), solver, 0, len(solver), lam, seed=9)


@pytest.mark.parametrize("name", list(cfgpp_solvers()))
def test_the_cfgpp_check_refuses_a_constant_scale_and_renoising_with_the_guided(name: str) -> None:
    """Mutants: w = λ is DDIM renoised with the guided prediction; w with its two products exchanged."""

    def exchanged(step: StepInfo) -> float:
        down, up = step.alpha_j * step.sigma_i, step.alpha_i * step.sigma_j
        return 0.6 * up / (down - up)

    solver = cfgpp_solvers()[name]
    for mutant in (CFG(0.6), CFG(exchanged), CFGPlusPlus(0.5)):
        with pytest.raises(AssertionError):
            check_cfgpp(mutant, solver, 1, 2, 0.6, seed=0)


@pytest.mark.parametrize("name", list(cfgpp_solvers()))
def test_the_scale_of_cfgpp_is_that_of_the_design(name: str) -> None:
    """w = λ·α_jσ_i/(α_jσ_i − α_iσ_j); the denominator cancels, so its rounding is relative to w/λ."""
    solver, lam = cfgpp_solvers()[name], 0.6
    for i in range(len(solver)):
        n = solver.info(i)
        ratio = n.alpha_j * n.sigma_i / (n.alpha_j * n.sigma_i - n.alpha_i * n.sigma_j)
        w = CFGPlusPlus(lam).at(n)
        assert abs(w - lam * ratio) <= 8 * EPS * ratio**2
        assert tuple(CFGPlusPlus(lam).branches(n)) == branches(w)
        assert tuple(CFGPlusPlus(0.0).branches(n)) == UNCOND


def test_at_sigma_j_0_cfgpp_is_cfg_at_lambda() -> None:
    last = at(alpha_j=1.0, sigma_j=0.0)
    assert math.isclose(CFGPlusPlus(0.6).at(last), 0.6, rel_tol=4 * EPS)
    assert tuple(CFGPlusPlus(1.0).branches(last)) == COND


# Rescaled CFG ----------------------------------------------------------------------------------------------


def lin(e_c: Tensor, e_u: Tensor, w: float, phi: float) -> Tensor:
    """Lin et al. 2023, eqs. 14-16, one sample at a time, with Python's exact sample standard deviation."""
    rows = []
    for c, u in zip(e_c, e_u, strict=True):
        cfg = u + w * (c - u)
        ratio = statistics.stdev(c.flatten().tolist()) / statistics.stdev(cfg.flatten().tolist())
        rows.append(phi * (cfg * ratio) + (1 - phi) * cfg)
    return torch.stack(rows)


def check_rescaled(rule: Any, w: float, phi: float, shape: tuple[int, ...], seed: int = 0) -> None:
    """A standard deviation of n numbers is good to n·eps, relative to the largest of them over itself."""
    e_c, e_u = noise(seed, *shape) + 0.3, 2 * noise(seed + 1, *shape)
    expected = lin(e_c, e_u, w, phi)
    n = e_c[0].numel()
    size = (1 + w) * (e_c.abs().amax() + e_u.abs().amax())
    assert_within(needed(rule, e_c, e_u, STEP), expected, 8 * n * EPS * size**2)


@pytest.mark.parametrize("shape", [(3, 7), (2, 4, 3, 3)], ids=str)
@pytest.mark.parametrize("phi", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("w", [0.0, 0.5, 1.0, 5.5])
def test_rescaled_cfg_is_lins_formula(w: float, phi: float, shape: tuple[int, ...]) -> None:
    """φ·e_w·std(e_c)/std(e_w) + (1 − φ)·e_w, per sample; φ is 0.7 unless told."""
    check_rescaled(RescaledCFG(w, phi=phi), w, phi, shape)
    check_rescaled(RescaledCFG(w), w, 0.7, shape)


def test_the_rescaled_check_refuses_a_biased_a_batchwide_and_an_unrescaled_rule() -> None:
    class Mutant:
        def __init__(self, std: Callable[[Tensor], Tensor]) -> None:
            self.std = std

        def branches(self, step: StepInfo) -> tuple[bool, bool]:
            return BOTH

        def __call__(self, e_c: Tensor, e_u: Tensor, step: StepInfo) -> Tensor:
            cfg = e_u + 5.5 * (e_c - e_u)
            return 0.7 * cfg * self.std(e_c) / self.std(cfg) + 0.3 * cfg

    check_rescaled(Mutant(lambda e: e.std(1, keepdim=True)), 5.5, 0.7, (3, 7))
    for std in (lambda e: e.std(), lambda e: e.std(0, keepdim=True), torch.ones_like):
        with pytest.raises(AssertionError):
            check_rescaled(Mutant(std), 5.5, 0.7, (3, 7))
    with pytest.raises(AssertionError):
        check_rescaled(CFG(5.5), 5.5, 0.7, (3, 7))


def test_rescaling_needs_the_conditional_branch_even_at_w_0_and_nothing_else_at_w_1() -> None:
    """std(e_c) is in the formula at every φ > 0; at w = 1 the ratio is 1 and e_u is not in it."""
    assert tuple(RescaledCFG(0.0).branches(STEP)) == BOTH
    assert tuple(RescaledCFG(5.5).branches(STEP)) == BOTH
    assert tuple(RescaledCFG(1.0).branches(STEP)) == COND


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


# Errors ----------------------------------------------------------------------------------------------------

BAD: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "cfg text": (lambda: CFG("5.5"), TypeError, "scale"),  # type: ignore[arg-type]
    "cfg none": (lambda: CFG(None), TypeError, "scale"),  # type: ignore[arg-type]
    "cfg nan": (lambda: CFG(math.nan), ValueError, "scale"),
    "cfg inf": (lambda: CFG(math.inf), ValueError, "scale"),
    "gamma text": (lambda: CFG.from_gamma("4"), TypeError, "gamma"),  # type: ignore[arg-type]
    "gamma nan": (lambda: CFG.from_gamma(math.nan), ValueError, "gamma|scale"),
    "lam text": (lambda: CFGPlusPlus("0.6"), TypeError, "lam"),  # type: ignore[arg-type]
    "lam nan": (lambda: CFGPlusPlus(math.nan), ValueError, "lam"),
    "rescaled text": (lambda: RescaledCFG("5"), TypeError, "scale"),  # type: ignore[arg-type]
    "rescaled nan": (lambda: RescaledCFG(math.nan), ValueError, "scale"),
    "phi above 1": (lambda: RescaledCFG(5.5, phi=1.5), ValueError, "phi"),
    "phi below 0": (lambda: RescaledCFG(5.5, phi=-0.1), ValueError, "phi"),
    "phi nan": (lambda: RescaledCFG(5.5, phi=math.nan), ValueError, "phi"),
    "phi text": (lambda: RescaledCFG(5.5, phi="0.7"), TypeError, "phi"),  # type: ignore[arg-type]
    "interval of text": (lambda: Interval("5.5"), TypeError, "guidance"),  # type: ignore[arg-type]
    "start below 0": (lambda: Interval(CFG(5.5), -1), ValueError, "start"),
    "stop before start": (lambda: Interval(CFG(5.5), 4, 2), ValueError, "stop"),
    "start no integer": (lambda: Interval(CFG(5.5), 1.5), TypeError, "start"),  # type: ignore[arg-type]
    "stop no integer": (lambda: Interval(CFG(5.5), 0, 2.5), TypeError, "stop"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_argument_is_refused_by_its_name(case: str) -> None:
    build, error, word = BAD[case]
    with pytest.raises(error, match=word):
        build()
