"""The four moves that a zigzag path is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeAlias

from zigzag.strengths import Strength

__all__ = ["Denoise", "Invert", "Move", "Renoise", "Shift", "gap_is_read", "leaves_for_good"]


@dataclass(frozen=True, slots=True)
class Denoise:
    """Φ, knot `i → j`, toward the data: `x_j = a·x_i + b·e_s(x_i, t_i)` under the strong guidance.

    With `plain` it is made with the plain role, `e_p` in place of `e_s` (the denoising that follows a zigzag in W2SD).
    """

    i: int
    j: int
    plain: bool = False

    @property
    def start(self) -> int:
        """The knot the move leaves."""
        return self.i

    @property
    def end(self) -> int:
        """The knot the move reaches."""
        return self.j


@dataclass(frozen=True, slots=True)
class Invert:
    """Ψ, knot `j → i`, back toward the noise: `x_i = c·x_j + d·e_w(x_j, t_i)` under the weak guidance.

    The prediction is taken at the state the move starts from, told the time of the knot it returns to (Z-Sampling,
    eq. 4). `refine=K` then repeats `x_i ← c·x_j + d·e_w(x_i, t_i)` K times; the fixed point is the exact inverse of the
    guided step, approached where `|d|·Lip(e_w) < 1`. `coefficients=(k, l)` takes `c`, `d` from the step `k → l`
    instead of `i → j`: the authors' released code uses `(i + 1, j + 1)`, which is not an inverse of anything it did.
    """

    j: int
    i: int
    refine: int = 0
    coefficients: tuple[int, int] | None = None

    @property
    def start(self) -> int:
        """The knot the move leaves."""
        return self.j

    @property
    def end(self) -> int:
        """The knot the move reaches."""
        return self.i


@dataclass(frozen=True, slots=True)
class Shift:
    """The zigzag `i → i + 1 → i` in one translation: `x̃_i = x_i + λ·(b/a)·gap`, `gap = e_s − e_w`, `λ` the strength.

    With `λ = 1` it equals Ψ∘Φ where Ψ reuses the weak prediction at `x_i` (Z²-Sampling, Theorem 1).
    With `fresh` the gap is evaluated here, at `x_i`; else it is the last one cached. `strength` is a number (1 is the
    whole of it, 0 none, below 0 the other way), or a rule of `zigzag.strengths` that gives `λ` per sample, `(B,)`.
    """

    i: int
    fresh: bool
    strength: Strength = 1.0

    @property
    def start(self) -> int:
        """The knot the move leaves."""
        return self.i

    @property
    def end(self) -> int:
        """The knot the move reaches: the same."""
        return self.i


@dataclass(frozen=True, slots=True)
class Renoise:
    """Knot `j → i` by fresh noise `z`: `x_i = (α_i/α_j)·x_j + √(σ_i² − (α_i/α_j)²σ_j²)·z`."""

    j: int
    i: int

    @property
    def start(self) -> int:
        """The knot the move leaves."""
        return self.j

    @property
    def end(self) -> int:
        """The knot the move reaches."""
        return self.i


Move: TypeAlias = Denoise | Invert | Shift | Renoise


def gap_is_read(path: Sequence[Move]) -> list[bool]:
    """For each move: whether the next Shift after it takes its gap from the cache. A Denoise then has to fill it."""
    read = False
    flags = []
    for move in reversed(path):
        flags.append(read)
        if isinstance(move, Shift):
            read = not move.fresh
    return flags[::-1]


def leaves_for_good(path: Sequence[Move]) -> list[bool]:
    """For each move: whether it is the last Denoise from its knot, below which the path stays from then on."""
    lowest = accumulate((move.end for move in reversed(path)), min)
    flags = [isinstance(m, Denoise) and after > m.start for m, after in zip(reversed(path), lowest, strict=True)]
    return flags[::-1]
