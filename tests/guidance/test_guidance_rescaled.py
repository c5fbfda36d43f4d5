"""Rescaled CFG is the formula of Lin et al. 2023."""

import statistics
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from support.guidance import BOTH, COND, STEP, needed
from support.tensors import assert_within, noise
from zigzag.guidance import CFG, RescaledCFG
from zigzag.solvers import StepInfo

EPS = torch.finfo(torch.float64).eps


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
