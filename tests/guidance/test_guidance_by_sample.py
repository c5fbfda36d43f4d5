"""Scales that differ by sample: the same as a loop over the samples, each with its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from support.gaussians import KINDS
from support.guidance import BOTH, STEP
from support.held import make
from support.refusals import refused
from support.tensors import assert_within, f64, noise
from zigzag import (
    APG,
    CFG,
    DDIM,
    CFGZeroStar,
    FlowEuler,
    ImplicitZ,
    Interval,
    RescaledCFG,
    Spherical,
    Standard,
    State,
    Z2Sampling,
    ZSampling,
    capture,
    count_rows,
    matched_cfg,
    sample,
)
from zigzag.inversion import EDICT, invert, reconstruct

EPS = torch.finfo(torch.float64).eps
W, V = f64(2.0, 1.0, 0.0), f64(0.5, 0.0, 1.5)
X, C, U = noise(0, 3, 4), noise(1, 3), noise(2, 3)
RULES: dict[str, Any] = {
    "cfg": CFG,
    "rescaled": lambda w: RescaledCFG(w, 0.5),
    "interval": lambda w: Interval(CFG(w), 1, 3),
    "a function": lambda w: CFG(lambda step: w * (1 + step.i) / 4),
    "apg": lambda w: APG(w, eta=0.5, norm=1.0),
    "cfg-zero": lambda w: CFGZeroStar(w, 1),
}


def model(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
    return 0.5 * torch.sin(x + cond[:, None]) + 0.3 * torch.cos(x * cond[:, None])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("method", [Standard(), ZSampling(), Z2Sampling(warmup=1)], ids=repr)
@pytest.mark.parametrize("solver", [FlowEuler.uniform(4), make("2M")], ids=repr)
def test_one_scale_a_sample_is_a_loop_over_the_samples(rule: str, method: Any, solver: Any) -> None:
    of = RULES[rule]
    together = sample(model, X, solver, method, cond=C, uncond=U, strong=of(W), weak=of(V))
    alone = [
        sample(model, X[k : k + 1], solver, method, cond=C[k : k + 1], uncond=U[k : k + 1],
               strong=of(float(W[k])), weak=of(float(V[k])))
        for k in range(3)
    ]  # fmt: skip
    assert_within(together, torch.cat(alone), 1e4 * EPS * (1 + together.abs()))
    with pytest.raises(AssertionError):  # mutant: the scales of other samples
        turned = sample(model, X, solver, method, cond=C, uncond=U, strong=of(W.roll(1)), weak=of(V))
        assert_within(turned, torch.cat(alone), 1e-6)


def test_both_branches_are_evaluated_whatever_the_scales_are() -> None:
    ones = torch.ones(3).double()
    assert CFG(ones).branches(STEP) == BOTH
    assert count_rows(Standard(), 4, CFG(ones)) == 8
    assert count_rows(ZSampling(), FlowEuler.uniform(4), 3.0, CFG(ones)) == count_rows(ZSampling(), 4, 3.0, 2.0)
    assert torch.equal(CFG(ones)(X, X + 1, STEP), X)


def test_the_matched_scale_is_one_a_sample_too() -> None:
    solver = Spherical.cosine(4, phi_max=1.4)
    for method in (ZSampling(), ImplicitZ(), Z2Sampling(warmup=1)):
        together = matched_cfg(method, solver, CFG(W), CFG(V))
        for k in range(3):
            alone = matched_cfg(method, solver, float(W[k]), float(V[k]))
            for i in range(4):
                at: Any = together.at(solver.info(i))
                assert float(at[k]) == pytest.approx(alone.at(solver.info(i)), rel=64 * EPS, abs=64 * EPS)
    constant = lambda x, t, cond: cond[:, None].expand_as(x)  # noqa: E731
    zigzag = sample(constant, X, solver, ZSampling(), cond=C, uncond=U, strong=CFG(W), weak=CFG(V))
    plain = sample(
        constant, X, solver, Standard(), cond=C, uncond=U, strong=matched_cfg(ZSampling(), solver, CFG(W), CFG(V))
    )
    assert_within(zigzag, plain, 1e3 * EPS * (1 + plain.abs()))


def test_gradients_reach_the_scales() -> None:
    w = W.clone().requires_grad_()

    def end(w: Tensor) -> Tensor:
        return sample(model, X, FlowEuler.uniform(3), Standard(), cond=C, uncond=U, strong=CFG(w), grad=True)

    assert torch.autograd.gradcheck(end, (w,))


def test_an_inversion_has_one_scale_a_sample_and_comes_back() -> None:
    solver = DDIM.stable_diffusion(6)
    found = invert(model, X, solver, EDICT(), cond=C, uncond=U, guidance=CFG(W))
    assert_within(reconstruct(model, found, solver, cond=C, uncond=U, guidance=CFG(W)), X, 1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_a_scale_in_another_dtype_is_cast(kind: Any) -> None:
    state = State(X.float(), 0.6, 0.8, kind)
    for rule in (CFG(W), RescaledCFG(W), APG(W), CFGZeroStar(W, 0)):
        more = (state,) if getattr(rule, "needs_state", False) else ()
        assert rule(X.float(), X.float().cos(), STEP, *more).dtype == torch.float32


def test_scales_of_another_number_of_samples_are_refused_before_a_model_call() -> None:
    """X of the refusals has 2 samples."""
    for rule in (CFG(W), Interval(CFG(W), 0, 2), RescaledCFG(W), APG(W), CFGZeroStar(W)):
        refused(r"strong=.* has 3 scales, one a sample, but x has 2", strong=rule)
        refused("weak=", weak=rule)
    with pytest.raises(ValueError, match="3 scales"):
        invert(model, X[:2], FlowEuler.uniform(4), EDICT(), cond=C[:2], uncond=U[:2], guidance=CFG(W))
    with pytest.raises(ValueError, match="scale has 3 entries"):  # of a function it is known at its call
        sample(model, X[:2], FlowEuler.uniform(4), Standard(), cond=C[:2], uncond=U[:2], strong=CFG(lambda step: W))
    refused(r"CFG\(tensor\)", TypeError, strong=W)


def test_a_table_has_no_scale_a_sample() -> None:
    with pytest.raises(TypeError, match="one scale a sample"):
        capture(model, X, FlowEuler.uniform(4), Standard(), cond=C, uncond=U, strong=CFG(W))


@pytest.mark.parametrize(
    ("scale", "error", "match"),
    [
        (torch.tensor([1, 2]), TypeError, "floating-point"),
        (f64(1.0, float("inf")), ValueError, "finite"),
        (torch.ones(2, 1), ValueError, r"\(B,\)"),
        (torch.tensor(2.0), ValueError, r"\(B,\)"),
        (torch.ones(0), ValueError, r"\(B,\)"),
    ],
)
def test_a_bad_tensor_of_scales_is_refused(scale: Tensor, error: Any, match: str) -> None:
    with pytest.raises(error, match=match):
        CFG(scale)
    with pytest.raises(error, match=match):
        CFG(lambda step: scale).at(STEP)
