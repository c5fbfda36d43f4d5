"""Conversions among ε, x₀, v, flow, its reverse and score: all say the same x₀ and ε of one state x = α·x₀ + σ·ε."""

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from support.gaussians import KINDS
from support.predictions import SAID, truth
from support.tensors import assert_within, noise, seeds
from zigzag import DDIM, FlowEuler, Solver, Spherical, adapt_prediction, convert
from zigzag.testing.steps import of_samples

EPS = torch.finfo(torch.float64).eps
Convert = Callable[[Tensor, Tensor, Any, Any, Any, Any], Tensor]


def check_conversions(conversion: Convert, alpha: Any, sigma: Any, seed: int) -> None:
    """convert(x, source) = target for all pairs, built from the same x₀ and ε.

    One conversion divides at most twice by α, σ, α + σ or α² + σ², and once more by σ for a score: with
    κ = (1 + α + σ)/min(α, σ, 1), a rounding grows to at most κ³ of the data, and there are fewer than ten of them.
    """
    x0, eps = noise(seed, 3, 4), noise(seed + 1, 3, 4)
    a, s = of_samples(alpha, x0), of_samples(sigma, x0)
    x = a * x0 + s * eps
    kappa = (1 + a + s) / torch.minimum(a, s).clamp_max(1.0)
    for source, target in product(SAID, SAID):
        bound = 10 * EPS * kappa ** (3 if target == "score" else 2) * (x0.abs() + eps.abs()) * (1 + a + s)
        given_, wanted = (truth(kind, x0, eps, alpha, sigma) for kind in (source, target))
        out = conversion(x, given_, alpha, sigma, source, target)
        assert_within(out, wanted, bound)
        assert_within(conversion(x, out, alpha, sigma, target, source), given_, 2 * bound * kappa**2)


levels = st.floats(0.05, 1.0)


@given(levels, levels, seeds)
def test_conversions_agree_with_x_as_alpha_x0_plus_sigma_eps(alpha: float, sigma: float, seed: int) -> None:
    """For any α and σ, α² + σ² = 1 or not, and back again."""
    check_conversions(convert, alpha, sigma, seed)


@pytest.mark.parametrize("sigma", [0.002, 1.0, 80.0])
def test_conversions_agree_at_alpha_1_over_the_edm_range(sigma: float) -> None:
    check_conversions(convert, 1.0, sigma, 0)


@pytest.mark.parametrize("phi", [0.1, 0.8, 1.5])
def test_conversions_agree_on_the_circle_and_on_the_flow_line(phi: float) -> None:
    check_conversions(convert, math.cos(phi), math.sin(phi), 0)
    check_conversions(convert, 1 - phi / 2, phi / 2, 0)


def test_conversions_take_one_level_per_sample_or_a_tensor_of_no_dimension() -> None:
    alpha, sigma = torch.tensor([0.3, 0.6, 0.9]).double(), torch.tensor([0.95, 0.8, 0.1]).double()
    check_conversions(convert, alpha, sigma, 0)
    check_conversions(convert, alpha[0], sigma[0], 0)
    square = noise(0, 3, 3), noise(1, 3, 3)
    for source, target in product(SAID, SAID):
        rows = zip(*square, alpha.tolist(), sigma.tolist(), strict=True)
        looped = [convert(*row, source, target) for row in rows]
        out = convert(*square, alpha, sigma, source, target)
        assert_within(out, torch.stack(looped), 8 * EPS * (1 + out.abs()) * 400)


def test_the_conversion_check_refuses_wrong_signs_and_swapped_levels() -> None:
    """Mutants: v = σ·x₀ − α·ε; u = x₀ − ε; α and σ exchanged."""

    def negated(kind: str) -> Convert:
        def mutant(x: Tensor, e: Tensor, alpha: Any, sigma: Any, source: Any, target: Any) -> Tensor:
            e = -e if source == kind else e
            out = convert(x, e, alpha, sigma, source, target)
            return -out if target == kind else out

        return mutant

    def swapped(x: Tensor, e: Tensor, alpha: Any, sigma: Any, source: Any, target: Any) -> Tensor:
        return convert(x, e, sigma, alpha, source, target)

    check_conversions(convert, 0.6, 0.8, 0)
    for mutant in (*map(negated, ("v", "flow", "flow_to_data", "score")), swapped):
        with pytest.raises(AssertionError):
            check_conversions(mutant, 0.6, 0.8, 0)


# Ends of the grid ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", KINDS)
def test_converting_to_the_same_prediction_changes_nothing_anywhere(source: Any) -> None:
    x, e = noise(0, 2, 3), noise(1, 2, 3)
    for alpha, sigma in ((0.0, 1.0), (1.0, 0.0), (0.6, 0.8)):
        assert torch.equal(convert(x, e, alpha, sigma, source, source), e)


@pytest.mark.parametrize(("alpha", "sigma"), [(0.0, 1.0), (1.0, 0.0)], ids=["alpha 0", "sigma 0"])
@pytest.mark.parametrize("tensors", [False, True], ids=["numbers", "per sample"])
def test_v_and_flow_convert_to_everything_at_both_ends(alpha: float, sigma: float, tensors: bool) -> None:
    """α = 0: x = ε, v = −x₀, u = ε − x₀. σ = 0: x = x₀, v = ε. Nothing is divided by zero."""
    x0, eps = noise(0, 2, 3), noise(1, 2, 3)
    x = alpha * x0 + sigma * eps
    levels: Any = (torch.tensor([v, v]).double() for v in (alpha, sigma)) if tensors else (alpha, sigma)
    a, s = levels
    for source, target in product(("v", "flow"), KINDS):
        out = convert(x, truth(source, x0, eps, alpha, sigma), a, s, source, target)
        assert_within(out, truth(target, x0, eps, alpha, sigma), 8 * EPS * (x0.abs() + eps.abs()))
    out = convert(x, truth("x0", x0, eps, alpha, sigma), a, s, "x0", "epsilon")
    assert bool(torch.isfinite(out).all()) == (sigma > 0)
    out = convert(x, truth("epsilon", x0, eps, alpha, sigma), a, s, "epsilon", "x0")
    assert bool(torch.isfinite(out).all()) == (alpha > 0)


def test_the_singularities_are_documented() -> None:
    text = (convert.__doc__ or "").lower()
    assert "singular" in text


@pytest.mark.parametrize("bad", ["eps", "noise", "", None, 3], ids=repr)
def test_an_unknown_prediction_is_refused_by_the_name_of_its_argument(bad: Any) -> None:
    x = noise(0, 2, 3)
    with pytest.raises((ValueError, TypeError), match="source"):
        convert(x, x, 0.6, 0.8, bad, "v")
    with pytest.raises((ValueError, TypeError), match="target"):
        convert(x, x, 0.6, 0.8, "v", bad)
    with pytest.raises((ValueError, TypeError), match="source"):
        adapt_prediction(lambda x, t, cond: x, FlowEuler.uniform(4), bad)


@pytest.mark.parametrize("dtype", (torch.float32, torch.float16, torch.bfloat16), ids=str)
def test_a_conversion_keeps_the_states_dtype(dtype: torch.dtype) -> None:
    x, e = noise(0, 2, 3).to(dtype), noise(1, 2, 3).to(dtype)
    level = torch.tensor([0.6, 0.7], dtype=torch.float64)
    for source, target in product(SAID, SAID):
        assert convert(x, e, level, level, source, target).dtype == dtype
        assert convert(x, e, 0.6, 0.8, source, target).dtype == dtype


def test_gradients_flow_to_state_prediction_and_levels() -> None:
    x, e = noise(0, 3, 2).requires_grad_(), noise(1, 3, 2).requires_grad_()
    a = torch.tensor([0.3, 0.6, 0.9], dtype=torch.float64, requires_grad=True)
    s = torch.tensor([0.95, 0.8, 0.3], dtype=torch.float64, requires_grad=True)
    for source, target in product(SAID, SAID):

        def function(*args: Tensor, source: Any = source, target: Any = target) -> Tensor:
            return convert(*args, source, target)

        assert torch.autograd.gradcheck(function, (x, e, a, s))


# The same step in another parametrisation ------------------------------------------------------------------

PHI = torch.tensor([1.4, 1.1, 0.7, 0.3, 0.0], dtype=torch.float64)
S = torch.tensor([0.95, 0.7, 0.4, 0.15, 0.0], dtype=torch.float64)
PAIRS: dict[str, tuple[Solver, Solver]] = {
    "spherical and ddim": (Spherical(PHI), DDIM(PHI.cos(), PHI.sin(), PHI[:-1])),
    "flow and ddim": (FlowEuler(S), DDIM(1 - S, S, S[:-1])),
}


def check_same_step(one: Solver, other: Solver, i: int, j: int) -> None:
    """Φ of one solver on its prediction = Φ of the other on the converted prediction, α_i >= 0.05."""
    x, e = noise(i, 2, 5), noise(j, 2, 5)
    alpha, sigma = one.alphas[i].item(), one.sigmas[i].item()
    converted = convert(x, e, alpha, sigma, one.prediction, other.prediction)
    expected, step = one.step(i, j).forward(x, e), other.step(i, j)
    size = (1 + abs(step.a)) * (x.abs() + converted.abs()) + e.abs()
    assert_within(step.forward(x, converted), expected, 16 * EPS * size)


@pytest.mark.parametrize("pair", PAIRS)
def test_spherical_on_v_and_flow_on_u_are_ddim_on_epsilon_of_the_same_model(pair: str) -> None:
    one, other = PAIRS[pair]
    for i in range(len(one)):
        for j in range(i + 1, len(one) + 1):
            check_same_step(one, other, i, j)
            check_same_step(other, one, i, j)
    with pytest.raises(AssertionError):  # mutant: the right step of another geometry
        check_same_step(Spherical(PHI), FlowEuler(PHI / 2), 0, 1)


@pytest.mark.parametrize("pair", PAIRS)
def test_their_shifts_differ_by_the_factor_that_d_carries(pair: str) -> None:
    """Trap 3: v/ε = α_j/(α_i·cos δ), u/ε = α_j/α_i, for one gap of one model at one state."""
    one, other = PAIRS[pair]
    x, gap = noise(0, 2, 5), noise(1, 2, 5)
    for i in range(len(one) - 1):
        alpha_i, alpha_j = one.alphas[i].item(), one.alphas[i + 1].item()
        levels = alpha_i, one.sigmas[i].item()
        none, full = (convert(x, e, *levels, "epsilon", one.prediction) for e in (0 * gap, gap))
        moved = one.step(i).shift(x, full - none) - x
        moved_other = other.step(i).shift(x, gap) - x
        ratio = alpha_j / (alpha_i * one.step(i).a)
        assert ratio > 1.05
        size = (x.abs() + gap.abs()) * (1 + ratio) / alpha_i**2
        assert_within(moved, ratio * moved_other, 32 * EPS * size)
