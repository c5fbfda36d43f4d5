"""Gradients through a sample, and the gradient mode around it."""

from __future__ import annotations

import pytest
import torch

from support.predictors import field
from support.sampling import COND, FLOAT, UNCOND, X, each_method, each_solver, seed
from zigzag import EndToEnd, Standard, Z2Sampling, sample, walk


@each_method
@each_solver
def test_gradients_of_a_whole_trajectory_are_right(method: object, solver: object) -> None:
    """d x_0 / d (x_T, parameter) against finite differences, in float64."""

    def trajectory(x: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        def fn(x: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
            return field(x, t, c) * p

        return sample(fn, x, solver, method, cond=COND, uncond=UNCOND, strong=2.0, generator=seed(), grad=True)

    x, p = X[:, :1].clone().requires_grad_(), torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    y = sample(
        lambda x, t, c: field(x, t, c) * p,
        X,
        solver,
        method,
        cond=COND,
        uncond=UNCOND,
        generator=seed(),
        grad=True,
    )
    (g,) = torch.autograd.grad(y.square().sum(), p)
    assert bool(torch.isfinite(g)) and float(g) != 0
    assert torch.autograd.gradcheck(lambda x, p: trajectory(x, p)[:, :1], (x, p), rtol=1e-3)


def test_half_precision_gradients_through_a_short_z2_trajectory_are_finite() -> None:
    for dtype in (torch.bfloat16, torch.float32):
        x, p = X.to(dtype).requires_grad_(), torch.tensor(0.7, dtype=dtype, requires_grad=True)
        y = sample(
            lambda x, t, c, p=p: field(x, t, c.to(x.dtype)) * p,
            x, FLOAT, Z2Sampling(warmup=1), cond=COND, uncond=UNCOND, grad=True,
        )  # fmt: skip
        grads = torch.autograd.grad(y.float().square().sum(), (x, p))
        assert all(bool(torch.isfinite(g).all()) and bool(g.any()) for g in grads)


def check_mode_inside(grad: bool, want: bool) -> None:
    def fn(x: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        assert torch.is_grad_enabled() is want
        return field(x, t, c)

    y = sample(fn, X.clone().requires_grad_(), FLOAT, Z2Sampling(warmup=1), cond=COND, uncond=UNCOND, grad=grad)
    assert y.requires_grad is want and torch.is_grad_enabled()


def test_a_sample_runs_without_gradients_unless_it_is_asked_to() -> None:
    for grad in (False, True):
        check_mode_inside(grad, grad)
        with pytest.raises(AssertionError):
            check_mode_inside(grad, not grad)


@pytest.mark.parametrize("grad", [False, True])
def test_grad_mode_never_crosses_a_yield(grad: bool) -> None:
    """The consumer's mode is its own at every yield, also when it changes it meanwhile or stops early."""
    for outer in (True, False):
        with torch.set_grad_enabled(outer):
            steps = walk(field, X, FLOAT, EndToEnd(), cond=COND, uncond=UNCOND, grad=grad)
            for k, _ in enumerate(steps):
                assert torch.is_grad_enabled() is (outer if k % 2 == 0 else not outer)
                torch.set_grad_enabled(outer if k % 2 else not outer)
            torch.set_grad_enabled(outer)
            steps = walk(field, X, FLOAT, EndToEnd(), cond=COND, uncond=UNCOND, grad=grad)
            next(steps)
            steps.close()
            assert torch.is_grad_enabled() is outer


@pytest.mark.parametrize("grad", [False, True])
def test_a_predictor_that_raises_leaves_the_grad_mode_as_it_was(grad: bool) -> None:
    def fn(x: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        sample(fn, X, FLOAT, Standard(), cond=COND, uncond=UNCOND, grad=grad)
    assert torch.is_grad_enabled()
