"""The affine step that every solver takes, with what it holds besides the state and the prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from zigzag.solvers.grids import Coefficient

__all__ = [
    "AffineStep",
    "Inner",
    "StepInfo",
    "StepTable",
    "combine",
    "flat",
    "norms",
    "per_sample",
    "state_dtype",
    "wide",
]


def per_sample(k: Coefficient, x: Tensor) -> Coefficient:
    """A coefficient as it meets the state: `(B,)` broadcast from the left, in the state's dtype."""
    if not isinstance(k, Tensor):
        return k
    return k.to(x.dtype).reshape(k.shape + (1,) * (x.ndim - k.ndim))


def flat(x: Tensor) -> Tensor:
    """A state as one vector a sample: `(B, N)`."""
    return x.reshape(len(x), -1)


def norms(x: Tensor) -> Tensor:
    """The Euclidean norm of each sample of a state: `(B,)`."""
    norms: Tensor = torch.linalg.vector_norm(flat(x), dim=1)
    return norms


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that a state passed in `dtype` is carried in: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def wide(device: torch.device | None) -> torch.dtype:
    """float64, or float32 on a device without it (Apple's)."""
    try:
        return torch.empty((), dtype=torch.float64, device=device).dtype
    except (TypeError, RuntimeError):
        return torch.float32


def combine(p: Coefficient, x: Tensor, q: Coefficient, y: Tensor) -> Tensor:
    """`p·x + q·y`: for numbers in one pass over memory less than the formula as it stands."""
    if isinstance(p, Tensor) or isinstance(q, Tensor):
        return per_sample(p, x) * x + per_sample(q, x) * y
    return torch.add(x if p == 1 else p * x, y, alpha=q)


@dataclass(frozen=True, slots=True)
class AffineStep:
    r"""One solver step from knot `i` to knot `j`, and its exact algebraic inverse.

    .. math:: x_j = a\,x_i + b\,e + r, \qquad x_i = c\,(x_j - r) + d\,e, \qquad c = 1/a,\; d = -b/a

    `r` is what a multistep or stochastic solver adds that is known before `e` is asked for: earlier predictions `m_k`
    and the noise `z` of the interval. First-order deterministic steps hold nothing, `r = 0`.

    .. math:: r = \sum_k \mathrm{memory}_k\,m_k + \mathrm{noise}\cdot z

    Both directions share one pair of coefficients and one `r`, so that the dualities of Z²-Sampling's Lemma 1,
    `a·c = 1`, `b·c + d = 0`, `a·d + b = 0`, hold by construction, and Invert∘Denoise is `x + (b/a)·gap` whatever `r`.

    Args:
        a, b: numbers, or tensors of shape `()` or `(B,)` (one step per sample), which are broadcast from the left
            and cast to the state's dtype before use.
        memory: the coefficients on what is remembered of noisier knots, the latest first.
        noise: the coefficient on the standard normal noise of the interval.

    Singular where `a = 0`: then there is no inverse, and `c`, `d` are infinite (for numbers: `ZeroDivisionError`).
    Nothing is checked here; `Solver` and `walk` check.
    """

    a: Coefficient
    b: Coefficient
    memory: tuple[Coefficient, ...] = ()
    noise: Coefficient = 0.0

    @property
    def c(self) -> Coefficient:
        """`1 / a`."""
        return 1 / self.a

    @property
    def d(self) -> Coefficient:
        """`-b / a`."""
        return -self.b / self.a

    @property
    def order(self) -> int:
        """How many predictions the step combines: 1, and one more for each that it remembers."""
        return 1 + len(self.memory)

    @property
    def noisy(self) -> bool:
        """Whether the step adds noise."""
        return isinstance(self.noise, Tensor) or self.noise != 0

    def remainder(self, remembered: Sequence[Tensor] = (), z: Tensor | None = None) -> Tensor | None:
        """`r`, of what is remembered (the latest first) and the noise `z`; None where the step holds nothing."""
        r: Tensor | None = None
        for k, m in [*zip(self.memory, remembered, strict=True), *([(self.noise, z)] if z is not None else [])]:
            r = per_sample(k, m) * m if r is None else combine(1.0, r, k, m)
        return r

    def forward(self, x: Tensor, e: Tensor, r: Tensor | None = None) -> Tensor:
        """Φ: `a·x + b·e + r`. `x`, `e`, `r` and the result are `(B, …)`; `r = None` is 0."""
        y = combine(self.a, x, self.b, e)
        return y if r is None else y + r

    def inverse(self, x: Tensor, e: Tensor, r: Tensor | None = None) -> Tensor:
        """Ψ: `c·(x − r) + d·e`, the exact inverse of `forward` for the same `e` and `r`."""
        return combine(self.c, x if r is None else x - r, self.d, e)

    def shift(self, x: Tensor, gap: Tensor) -> Tensor:
        """`x − d·gap = x + (b/a)·gap`: Ψ under `e` after Φ under `e + gap` (Z²-Sampling, Theorem 1), whatever `r`.

        `gap` is a difference of two predictions *of this solver*. The same model state gives another shift in
        another parametrisation, because `d` differs.
        """
        return combine(1.0, x, -self.d, gap)


class StepInfo(NamedTuple):
    """What a guidance rule may know of a step `i → j`: host numbers, `t` being the time told to the model at `i`."""

    i: int
    j: int
    t: float
    alpha_i: float
    sigma_i: float
    alpha_j: float
    sigma_j: float


class StepTable(NamedTuple):
    """The coefficients of the steps `i → i + 1` and the times of the knots, each `(T,)`, on one device."""

    a: Tensor
    b: Tensor
    c: Tensor
    d: Tensor
    times: Tensor


class Inner(NamedTuple):
    """The second evaluation of a step that makes two, at a state within the step `i → j`.

    A guidance rule is asked for the step `i → j` there too: it has a scale for a step, not for an evaluation within
    (CFG++ has none at the level where Heun's step ends), and which branches a step needs is known beforehand.

    Attributes:
        first: leads from `x_i`, with the first prediction `e₁`, to the state that the model is asked at again.
        told: which of the solver's `all_times` it is told there.
        weight: the step is made with `e = (1 − weight)·e₁ + weight·e₂`.
    """

    first: AffineStep
    told: int
    weight: float
