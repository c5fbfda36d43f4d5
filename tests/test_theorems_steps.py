"""The theorems behind the methods, on one step."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from support.steps import Mutant
from support.theorems import EPS, SOLVERS, B, T, each_solver, size
from zigzag import AffineStep

knots = st.integers(0, T - 1).flatmap(lambda i: st.tuples(st.just(i), st.integers(i + 1, T)))


def tensors(seed: int, n: int = 3) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    scale = 10.0 ** torch.randint(-2, 3, (n,), generator=rng).double()
    return [scale[k] * torch.randn(B, 5, generator=rng, dtype=torch.float64) for k in range(n)]


def mutants(name: str) -> dict[str, Mutant]:
    solver = SOLVERS[name]
    step, after = solver.step(1), solver.step(2)
    made = {
        "the neighbouring interval": Mutant(step.a, step.b, after.c, after.d),
        "a shift the other way": Mutant(step.a, step.b, step.c, -step.d),
        "an inverse that forgets e": Mutant(step.a, step.b, step.c, 0.0),
    }
    if name == "spherical":
        made["swapped indices"] = Mutant(step.a, step.b, step.a, -step.b)
    return made


def check_identity(step: AffineStep | Mutant, x: torch.Tensor, e: torch.Tensor) -> None:
    """Psi(Phi(x, e), e) = x: with equal guidance and a reused prediction a zigzag goes nowhere."""
    y = step.forward(x, e)
    bound = 4 * EPS * (size(y) * abs(step.c) + size(e) * abs(step.d) + size(x) + abs(step.b / step.a) * size(e))
    assert size(step.inverse(y, e) - x) <= bound


def check_collapse(step: AffineStep | Mutant, x: torch.Tensor, e_s: torch.Tensor, e_w: torch.Tensor) -> None:
    """Z2 paper, Theorem 1: Psi(Phi(x, e_s), e_w) = x + (b/a)(e_s - e_w), e_w predicted at the anchor."""
    zigzag = step.inverse(step.forward(x, e_s), e_w)
    bound = 8 * EPS * (size(x) + abs(step.b / step.a) * size(e_s, e_w))
    assert size(zigzag - step.shift(x, e_s - e_w)) <= bound


def check_theorem_2(step: AffineStep | Mutant, x: torch.Tensor, e: torch.Tensor, gap: torch.Tensor) -> None:
    """Z2 paper, Theorem 2: Phi(x + (b/a) gap, e) = Phi(x, e + gap)."""
    bound = 8 * EPS * (abs(step.a) * size(x) + abs(step.b) * size(e, gap))
    assert size(step.forward(step.shift(x, gap), e) - step.forward(x, e + gap)) <= bound


@each_solver
@given(ij=knots, seed=st.integers(0, 10**6))
def test_equal_guidance_and_a_reused_prediction_is_the_identity(name: str, ij: tuple[int, int], seed: int) -> None:
    x, e, _ = tensors(seed)
    check_identity(SOLVERS[name].step(*ij), x, e)


@each_solver
@given(ij=knots, seed=st.integers(0, 10**6))
def test_a_zigzag_that_reuses_the_weak_prediction_is_a_shift(name: str, ij: tuple[int, int], seed: int) -> None:
    check_collapse(SOLVERS[name].step(*ij), *tensors(seed))


@each_solver
@given(ij=knots, seed=st.integers(0, 10**6))
def test_denoising_after_a_shift_adds_the_gap_to_the_prediction(name: str, ij: tuple[int, int], seed: int) -> None:
    check_theorem_2(SOLVERS[name].step(*ij), *tensors(seed))


@each_solver
def test_the_checks_on_a_step_fail_on_mutants(name: str) -> None:
    step, (x, e_s, e_w) = SOLVERS[name].step(1), tensors(0)
    good = Mutant(step.a, step.b, step.c, step.d)
    check_identity(good, x, e_s)
    check_collapse(good, x, e_s, e_w)
    check_theorem_2(good, x, e_s, e_w)
    for mutant in mutants(name).values():
        with pytest.raises(AssertionError):
            check_identity(mutant, x, e_s)
        with pytest.raises(AssertionError):
            check_theorem_2(mutant, x, e_s, e_w)
        with pytest.raises(AssertionError):
            check_collapse(Mutant(step.a, step.b, step.c, mutant.d), x, e_s, e_w)
        if mutant.c != step.c:
            with pytest.raises(AssertionError):
                check_collapse(Mutant(step.a, step.b, mutant.c, step.d), x, e_s, e_w)
