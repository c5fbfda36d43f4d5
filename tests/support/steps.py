"""A step as the checks see it, one whose inverse may be wrong, and the checks of Lemma 1 and of the round trips."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from support.tensors import assert_finite_within, left

EPS = torch.finfo(torch.float64).eps


class StepLike(Protocol):
    @property
    def a(self) -> Any: ...
    @property
    def b(self) -> Any: ...
    @property
    def c(self) -> Any: ...
    @property
    def d(self) -> Any: ...


@dataclass(frozen=True)
class Mutant:
    """A step whose inverse need not be the inverse of its forward."""

    a: Any
    b: Any
    c: Any
    d: Any

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        return self.a * x + self.b * e

    def inverse(self, x: Tensor, e: Tensor) -> Tensor:
        return self.c * x + self.d * e

    def shift(self, x: Tensor, gap: Tensor) -> Tensor:
        return x - self.d * gap


def check_duality(step: StepLike) -> None:
    """a·c = 1, b·c + d = 0, a·d + b = 0, each to four ulp (three roundings of half an ulp, and slack)."""
    a, b, c, d = (torch.as_tensor(v, dtype=torch.float64) for v in (step.a, step.b, step.c, step.d))
    assert_finite_within(a * c, torch.ones_like(a), 4 * EPS)
    assert_finite_within(b * c + d, torch.zeros_like(d), 4 * EPS * d.abs())
    assert_finite_within(a * d + b, torch.zeros_like(b), 4 * EPS * b.abs())


def check_round_trips(
    forward: Callable[[Tensor, Tensor], Tensor],
    inverse: Callable[[Tensor, Tensor], Tensor],
    step: StepLike,
    x: Tensor,
    e: Tensor,
    r: Tensor | None = None,
) -> None:
    """|Ψ(Φ(x)) − x| <= 5·eps·(|c||y| + |d e|) and |Φ(Ψ(y)) − y| <= 5·eps·(|a||x| + |b e|).

    Derivation, u = eps/2: one pass rounds its coefficients, its products and its sum, 3u of the sum of the
    magnitudes; the second pass carries the first one's error and adds its own; |x| <= |c y| + |d e| closes
    it with 9u in all. Where a product is subnormal (fp16) a rounding may cost the smallest subnormal instead.
    A remainder `r` that both hold is added once and taken out once: two roundings more, of what is as large as it.
    """
    eps, tiny = torch.finfo(x.dtype).eps, torch.finfo(x.dtype).tiny
    a, b, c, d = (left(v, x).abs() for v in (step.a, step.b, step.c, step.d))
    held = 0.0 if r is None else r.double().abs()
    floor = eps * tiny * (1 + e.double().abs())

    y = forward(x, e)
    assert y.dtype == x.dtype and y.shape == x.shape
    bound = 5 * eps * (c * (y.double().abs() + held) + d * e.double().abs()) + floor * (1 + c)
    assert_finite_within(inverse(y, e), x, bound)

    back = inverse(x, e)
    assert back.dtype == x.dtype and back.shape == x.shape
    bound = 5 * eps * (a * back.double().abs() + b * e.double().abs() + held) + floor * (1 + a)
    assert_finite_within(forward(back, e), x, bound)


def check_collapse(
    shift: Callable[[Tensor, Tensor], Tensor], step: Any, x: Tensor, e_s: Tensor, e_w: Tensor, r: Tensor | None = None
) -> None:
    """Ψ(Φ(x; e_s); e_w) = x + (b/a)·(e_s − e_w), and Φ(x̃; e) = Φ(x; e + gap) for the shifted x̃, whatever both hold."""
    gap, held = e_s - e_w, 0.0 if r is None else r.abs()
    y, shifted = step.forward(x, e_s, r), shift(x, gap)
    size = x.abs() + abs(step.c) * (y.abs() + held) + abs(step.d) * (e_s.abs() + e_w.abs())
    assert_finite_within(shifted, step.inverse(y, e_w, r), 8 * EPS * size)
    size = abs(step.a) * x.abs() + abs(step.b) * 3 * (e_s.abs() + e_w.abs()) + held
    assert_finite_within(step.forward(shifted, e_w, r), step.forward(x, e_w + gap, r), 8 * EPS * size)
