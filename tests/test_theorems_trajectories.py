"""The theorems behind the methods, on trajectories."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from support.predictors import LIP, field
from support.theorems import EPS, SOLVERS, B, T, check_same, each_solver
from zigzag import ImplicitZ, Standard, Z2Sampling, ZSampling, sample

X = torch.linspace(-1.2, 1.2, 6, dtype=torch.float64).reshape(B, 3)
COND, UNCOND = torch.tensor([0.5, -0.7]).double(), torch.tensor([0.1, 0.4]).double()


def constant_gap(x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
    """The prediction depends on state and time, the gap e_c - e_u on neither."""
    return LIP * torch.sin(x) + 0.1 * torch.cos(t.to(x.dtype))[:, None] + cond[:, None]


class Reused:
    """A predictor that answers every question about a time and a condition as it answered the first one."""

    def __init__(self) -> None:
        self.known: dict[tuple[float, float], torch.Tensor] = {}

    def __call__(self, x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        return self.known.setdefault((float(t[0]), float(cond[0])), field(x, t, cond))


def end(fn: Callable[..., torch.Tensor], name: str, method: object, **scales: float) -> torch.Tensor:
    return sample(fn, X, SOLVERS[name], method, cond=COND, uncond=UNCOND, batched=False, **scales)


def rounding(name: str, moves: int, s: float, w: float) -> float:
    """32 units a move of the largest state, amplified by prod(|a| + 2 |b| (Lip(e_s) + Lip(e_w)))."""
    steps = [SOLVERS[name].step(i) for i in range(T)]
    spread = LIP * (abs(s) + abs(1 - s) + abs(w) + abs(1 - w))
    growth = math.prod(max(1.0, p.a + abs(p.b) * spread * 2 + 1e-3) for p in steps)
    state = 1.2 + sum(abs(p.b) for p in steps) * (abs(s) + abs(w) + 2)
    return 32 * EPS * moves * growth * state


@each_solver
@pytest.mark.parametrize(("s", "w"), [(5.5, 0.0), (3.0, 1.0), (2.0, 0.5)])
def test_the_explicit_zigzag_with_a_reused_prediction_is_implicit_z(name: str, s: float, w: float) -> None:
    """Phi Psi Phi with the predictions of the anchor is Shift Phi, all the way; without reuse it is not."""
    bound = rounding(name, 3 * T, s, w)
    shifted = end(Reused(), name, ImplicitZ(steps=T - 1), strong=s, weak=w)
    check_same(end(Reused(), name, ZSampling(), strong=s, weak=w), shifted, bound)
    for mutant in [
        end(field, name, ZSampling(), strong=s, weak=w),
        end(Reused(), name, ZSampling(released=True), strong=s, weak=w),
        end(Reused(), name, Standard(), strong=s, weak=w),
        end(Reused(), name, ZSampling(), strong=s + 1, weak=w),
    ]:
        with pytest.raises(AssertionError):
            check_same(mutant, shifted, bound)


@each_solver
@pytest.mark.parametrize("warmup", range(T))
def test_z2_is_implicit_z_where_the_gap_is_constant(name: str, warmup: int) -> None:
    """Z2Sampling(warmup) = ImplicitZ(start=max(1, warmup)): a cached gap is as good as a fresh one."""
    s, w = 3.0, 0.5
    bound = rounding(name, 2 * T, s, w)
    implicit = end(constant_gap, name, ImplicitZ(start=max(1, warmup)), strong=s, weak=w)
    check_same(end(constant_gap, name, Z2Sampling(warmup=warmup), strong=s, weak=w), implicit, bound)
    broken = [
        Standard(),
        Z2Sampling(warmup=max(1, warmup) - 1 if warmup > 1 else 2),
        ImplicitZ(start=max(1, warmup) - 1),
    ]
    for mutant in broken:
        with pytest.raises(AssertionError):
            check_same(end(constant_gap, name, mutant, strong=s, weak=w), implicit, bound)
    if warmup < T - 1:
        with pytest.raises(AssertionError):
            one, two = (
                end(field, name, method, strong=s, weak=w)
                for method in (Z2Sampling(warmup=warmup), ImplicitZ(start=max(1, warmup)))
            )
            check_same(one, two, bound)


@each_solver
@pytest.mark.parametrize("method", [ImplicitZ(), Z2Sampling(warmup=1), Z2Sampling(warmup=3)], ids=lambda m: str(m))
def test_a_shift_by_no_gap_moves_nothing(name: str, method: object) -> None:
    """strong = weak: x + (b/a) 0 = x to the bit, so that ImplicitZ and Z2 are Standard."""
    plain = end(field, name, Standard(), strong=3.0)
    assert torch.equal(end(field, name, method, strong=3.0, weak=3.0), plain)
    assert not torch.allclose(end(field, name, method, strong=3.0, weak=2.9), plain)
