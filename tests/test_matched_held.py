"""Plain guidance at the matched scale is the zigzag on a constant field, through memory, noise and two evaluations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from support.held import ON_EPSILON, PRESETS, SOLVERS, STOCHASTIC, make
from support.sampling import COND, EPS, UNCOND, X, seed
from zigzag import (
    CFG,
    DDIM,
    EndToEnd,
    ImplicitZ,
    Interval,
    Resampling,
    Standard,
    Z2Sampling,
    ZSampling,
    matched_cfg,
    sample,
)
from zigzag.moves import Denoise, Invert
from zigzag.solvers import AdamsBashforth, DPMSolver, Solver

T = 6
STRONG, WEAK = 3.0, 0.5
METHODS = [
    Standard(), EndToEnd(), ZSampling(), ZSampling(steps=3, rounds=2), ZSampling(span=3, steps=4), ImplicitZ(),
    ImplicitZ(start=2, steps=4), Z2Sampling(warmup=2),
]  # fmt: skip
each_name = pytest.mark.parametrize("name", SOLVERS)


def constant(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
    """e(x, t, c) = c: knows neither the state nor the time."""
    return cond[:, None].expand_as(x)


def end(solver: Solver, method: Any, strong: Any = STRONG, weak: Any = WEAK, number: int = 0) -> Tensor:
    args = {"cond": COND, "uncond": UNCOND, "generator": seed(number)}
    return sample(constant, X, solver, method, strong=strong, weak=weak, **args)


def check_same_end(
    solver: Solver, method: Any, plain: CFG, strong: Any = STRONG, weak: Any = WEAK, number: int = 0
) -> None:
    """The end of the zigzag is that of Standard under `plain`, with the same generator.

    Rounding: 64 units a move of the largest state and prediction, divided by the a's on the way up.
    """
    zigzag, straight = end(solver, method, strong, weak, number), end(solver, Standard(), plain, number=number)
    lost, scale = 1.0, 1.0
    for i in range(len(solver)):
        step = solver.step(i, None, range(i))
        lost *= max(1.0, 1 / abs(step.a))
        scale = max(scale, abs(plain.at(solver.info(i))) * max(1.0, abs(step.b), *map(abs, step.memory)))
    moves = len(method.path(T)) if hasattr(method, "path") else len(method)
    size = float(zigzag.abs().max()) + 10 * scale
    assert float((zigzag - straight).abs().max()) <= 64 * EPS * moves * lost * size


@pytest.mark.parametrize(
    ("grid", "methods"), [("trailing", METHODS), ("flow", METHODS[2::2]), ("cosine", METHODS[1::2])]
)
@each_name
def test_a_constant_field_cannot_tell_a_zigzag_from_plain_guidance(name: str, grid: str, methods: list[Any]) -> None:
    """Any method but Resampling, under any generator: what is remembered carries the gap on as matched_cfg says."""
    solver = make(name, "karras" if name in ON_EPSILON and grid == "flow" else grid, T)
    for number, method in enumerate(methods):
        check_same_end(solver, method, matched_cfg(method, solver, STRONG, WEAK), number=number)


@each_name
@settings(max_examples=5)
@given(
    steps=st.integers(1, T), rounds=st.integers(1, 2), span=st.integers(1, 3), strong=st.floats(-2, 8),
    weak=st.floats(-2, 3),
)  # fmt: skip
def test_every_zigzag_has_its_matched_scale(
    name: str, steps: int, rounds: int, span: int, strong: float, weak: float
) -> None:
    solver, method = make(name, "trailing", T), ZSampling(steps=steps, rounds=rounds, span=span)
    check_same_end(solver, method, matched_cfg(method, solver, strong, weak), strong, weak)


@each_name
def test_the_check_tells_other_scales(name: str) -> None:
    """Mutants: the strong scale, one off by a millionth, that of the other weak scale, and of one round more."""
    solver, method = make(name, "trailing", T), ZSampling()
    plain = matched_cfg(method, solver, STRONG, WEAK)
    mutants = [
        CFG(STRONG),
        CFG(lambda step: plain.at(step) + 1e-6),
        matched_cfg(method, solver, STRONG, WEAK + 0.01),
        matched_cfg(ZSampling(rounds=2), solver, STRONG, WEAK),
    ]
    for mutant in mutants:
        with pytest.raises(AssertionError):
            check_same_end(solver, method, mutant)


@pytest.mark.parametrize("name", ["2M", "3M", "AB-4", "DEIS-3", "LMS-4", "SDE-2M", "SDE-3M"])
@pytest.mark.parametrize("method", [ZSampling(), EndToEnd(), ImplicitZ(), Z2Sampling(warmup=2)], ids=str)
def test_the_scale_through_memory_is_not_that_of_the_first_order(name: str, method: Any) -> None:
    """Mutants: the scales of DDIM, and those that a walk of G without memory would read off (s + (s − w))."""
    solver = make(name, "trailing", T)
    for other in (PRESETS["trailing"](T), make("DPM-1", "trailing", T)):
        with pytest.raises(AssertionError):
            check_same_end(solver, method, matched_cfg(method, other, STRONG, WEAK))


@pytest.mark.parametrize("name", STOCHASTIC)
def test_noise_adds_no_gap(name: str) -> None:
    """The scale is the same with noise of the interval or fresh; Resampling's is s, on solvers without memory."""
    base = make(name, "trailing", T)
    plain = matched_cfg(ZSampling(), base, STRONG, WEAK)
    base.fresh_noise = True
    fresh = matched_cfg(ZSampling(), base, STRONG, WEAK)
    assert [plain.at(base.info(i)) for i in range(T)] == [fresh.at(base.info(i)) for i in range(T)]
    if not base.memory:
        renoised = matched_cfg(Resampling(), base, STRONG, WEAK)
        assert [renoised.at(base.info(i)) for i in range(T)] == [STRONG] * T


def test_two_steps_of_2m_by_hand() -> None:
    """Z on 2M, two knots of λ apart by one each: what the first step's larger scale left is read by the second.

    Step 0 is of order 1, w'_0 = 2s − w. Step 1, plain: m_0 holds p_0·G_0 + q_0·w'_0 in either way, so w'_1 is s where
    it does not zigzag: what Standard remembers is then what the zigzag remembers, but for the state that m_0 was taken
    at, which the zigzag had shifted: m̃_0 = p_0·G̃_0 + q_0·s against q_0·(2s − w), G̃_0 = (b_0/a_0)·(s − w).
    """
    base = PRESETS["trailing"](3)
    solver = DPMSolver.on(base, lower_order_final=False)
    s, w = STRONG, WEAK
    plain = matched_cfg(ZSampling(steps=1), solver, s, w)
    first, step = solver.step(0), solver.step(1, None, (0,))
    p, q = 1 / float(base.alphas[0]), -float(base.sigmas[0] / base.alphas[0])
    shifted = first.b / first.a * (s - w)
    remembered, instead = p * shifted + q * s, q * (2 * s - w)
    want = s + step.memory[0] * (remembered - instead) / step.b
    assert plain.at(solver.info(0)) == pytest.approx(2 * s - w, rel=64 * EPS)
    assert plain.at(solver.info(1)) == pytest.approx(want, rel=1024 * EPS)
    assert abs(want - s) > 0.1


def test_guidance_that_changes_by_step_is_matched_step_by_step() -> None:
    for name in ("2M", "AB-3", "SDE-2M"):
        solver = make(name, "trailing", T)
        strong = Interval(CFG(lambda step: 2.0 + step.i), 1, 5)
        check_same_end(solver, ZSampling(), matched_cfg(ZSampling(), solver, strong, WEAK), strong)


def test_a_path_from_the_middle_has_its_scales() -> None:
    """Begun at knot 2 with no memory, up past where it began, and down again."""
    path = (Denoise(2, 3), Denoise(3, 4), Invert(4, 3), Invert(3, 2), *(Denoise(k, k + 1) for k in range(2, T)))
    for solver in (DPMSolver.on(DDIM.stable_diffusion(T)), AdamsBashforth.on(DDIM.stable_diffusion(T), order=3)):
        plain = matched_cfg(path, solver, STRONG, WEAK)
        zigzag, straight = end(solver, path), end(solver, path[4:], plain)
        torch.testing.assert_close(zigzag, straight, rtol=1024 * EPS, atol=1024 * EPS * 100)
        with pytest.raises(ValueError, match="no matched scale for the step 0 -> 1"):
            plain.at(solver.info(0))
