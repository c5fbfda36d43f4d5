"""Lemma 1, round trips and the collapse of a step, each within bounds on its rounding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

__all__ = ["StepLike", "check_collapse", "check_duality", "check_round_trips", "near", "of_samples"]

EPS = torch.finfo(torch.float64).eps


class StepLike(Protocol):
    """What has the coefficients of a step and of its inverse."""

    @property
    def a(self) -> Any:
        """Of the state."""
        ...

    @property
    def b(self) -> Any:
        """Of the prediction."""
        ...

    @property
    def c(self) -> Any:
        """Of the state, in the inverse."""
        ...

    @property
    def d(self) -> Any:
        """Of the prediction, in the inverse."""
        ...


def of_samples(c: Any, x: Tensor) -> Tensor:
    """A coefficient as float64, broadcast from the left against `x`."""
    k: Tensor = torch.as_tensor(c, dtype=torch.float64)
    return k.reshape(k.shape + (1,) * (x.ndim - k.ndim))


def near(actual: Tensor, expected: Tensor, bound: Tensor | float, says: str) -> None:
    """Raises AssertionError, with what is said, unless both are finite and `|actual − expected| ≤ bound` everywhere."""
    gap = (actual.double() - expected.double()).abs()
    bound = torch.as_tensor(bound, dtype=torch.float64)
    if not bool(torch.isfinite(gap).all()):
        raise AssertionError(f"{says}: not finite")
    if not bool((gap <= bound).all()):
        off = (gap / bound.clamp_min(1e-300)).max().item()
        raise AssertionError(f"{says}: off by {gap.max().item():.3g}, {off:.3g} times what rounding may do")


def check_duality(step: StepLike, says: str = "the step") -> None:
    """`a·c = 1`, `b·c + d = 0`, `a·d + b = 0`, each to four ulp (three roundings of half an ulp, and slack).

    Raises:
        AssertionError: where one does not hold. Source: Z²-Sampling, Lemma 1.
    """
    a, b, c, d = (torch.as_tensor(v, dtype=torch.float64) for v in (step.a, step.b, step.c, step.d))
    near(a * c, torch.ones_like(a), 4 * EPS, f"{says} is not dual to its inverse, a·c = 1")
    near(b * c + d, torch.zeros_like(d), 4 * EPS * d.abs(), f"{says} is not dual to its inverse, b·c + d = 0")
    near(a * d + b, torch.zeros_like(b), 4 * EPS * b.abs(), f"{says} is not dual to its inverse, a·d + b = 0")


def check_round_trips(
    forward: Callable[[Tensor, Tensor], Tensor],
    inverse: Callable[[Tensor, Tensor], Tensor],
    step: StepLike,
    x: Tensor,
    e: Tensor,
    r: Tensor | None = None,
    says: str = "the step",
) -> None:
    """`|Ψ(Φ(x)) − x| ≤ 5·eps·(|c||y| + |d e|)` and `|Φ(Ψ(y)) − y| ≤ 5·eps·(|a||x| + |b e|)`.

    Derivation, u = eps/2: one pass rounds its coefficients, its products and its sum, 3u of the sum of the
    magnitudes; the second pass carries the first one's error and adds its own; |x| <= |c y| + |d e| closes
    it with 9u in all. Where a product is subnormal (fp16) a rounding may cost the smallest subnormal instead.
    A remainder `r` that both hold is added once and taken out once: two roundings more, of what is as large as it.

    Raises:
        AssertionError: where one does not come back, or dtype or shape change.
    """
    eps, tiny = torch.finfo(x.dtype).eps, torch.finfo(x.dtype).tiny
    a, b, c, d = (of_samples(v, x).abs() for v in (step.a, step.b, step.c, step.d))
    held: Any = 0.0 if r is None else r.double().abs()
    floor = eps * tiny * (1 + e.double().abs())

    y = forward(x, e)
    _alike(y, x, f"{says}, forward")
    bound = 5 * eps * (c * (y.double().abs() + held) + d * e.double().abs()) + floor * (1 + c)
    near(inverse(y, e), x, bound, f"{says} is not undone by its inverse")

    back = inverse(x, e)
    _alike(back, x, f"{says}, inverse")
    bound = 5 * eps * (a * back.double().abs() + b * e.double().abs() + held) + floor * (1 + a)
    near(forward(back, e), x, bound, f"{says} does not undo its inverse")


def check_collapse(
    shift: Callable[[Tensor, Tensor], Tensor],
    step: Any,
    x: Tensor,
    e_s: Tensor,
    e_w: Tensor,
    r: Tensor | None = None,
    says: str = "the step",
) -> None:
    """`Ψ(Φ(x; e_s); e_w) = x + (b/a)·(e_s − e_w)`, and `Φ(x̃; e) = Φ(x; e + gap)` for the shifted `x̃`.

    Raises:
        AssertionError: where one does not hold. Source: Z²-Sampling, Theorems 1 and 2.
    """
    gap, held = e_s - e_w, 0.0 if r is None else r.abs()
    y, shifted = step.forward(x, e_s, r), shift(x, gap)
    size = x.abs() + abs(step.c) * (y.abs() + held) + abs(step.d) * (e_s.abs() + e_w.abs())
    near(shifted, step.inverse(y, e_w, r), 8 * EPS * size, f"{says}: a zigzag over it is not its shift")
    size = abs(step.a) * x.abs() + abs(step.b) * 3 * (e_s.abs() + e_w.abs()) + held
    near(step.forward(shifted, e_w, r), step.forward(x, e_w + gap, r), 8 * EPS * size, f"{says}: a shift adds no gap")


def _alike(y: Tensor, x: Tensor, says: str) -> None:
    if y.dtype != x.dtype or y.shape != x.shape:
        raise AssertionError(f"{says} makes {tuple(y.shape)} {y.dtype} of {tuple(x.shape)} {x.dtype}")
