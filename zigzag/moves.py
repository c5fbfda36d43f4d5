"""The four moves that a zigzag path is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeAlias

from zigzag.guidance.base import finite
from zigzag.strengths.base import Strength

__all__ = [
    "Denoise",
    "Invert",
    "Move",
    "Renoise",
    "Shift",
    "Tol",
    "at_least",
    "evaluations",
    "gap_is_read",
    "leaves_for_good",
]


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
class Tol:
    r"""Refines an inversion until it has converged, in place of a count: of `x = g(x) = c·x_j + d·e_w(x, t_i)`.

    .. math:: \frac{\lVert g(x) - x\rVert}{\lVert g(x)\rVert} \le \mathrm{tol}

    by Anderson's iteration, for each sample its own; what comes out is `g(x)`. A sample that has converged is left
    alone, and a walk says at its end which have not.

    Args:
        tol: the residual at which a sample is done.
        most: evaluations at most. anderson: how many differences of iterates are remembered; 0 is the plain iteration.
        damping: `β` in (0, 1]: how far each iterate follows its residual.

    Raises:
        TypeError, ValueError: for arguments out of range.

    Source: Anderson 1965; Pan et al. 2023 (AIDI).
    """

    tol: float = 1e-4
    most: int = 50
    anderson: int = 3
    damping: float = 1.0

    def __post_init__(self) -> None:
        if not finite("tol", self.tol) > 0:
            raise ValueError(f"tol must be positive, got {self.tol!r}")
        at_least(self, "most", 1)
        at_least(self, "anderson", 0)
        if not 0 < finite("damping", self.damping) <= 1:
            raise ValueError(f"damping must lie in (0, 1], got {self.damping!r}")

    def __str__(self) -> str:
        """As command lines spell it, where they can: they have no other `most`, `anderson` and `damping`."""
        return str(self.tol) if self == Tol(self.tol) else repr(self)


@dataclass(frozen=True, slots=True)
class Invert:
    """Ψ, knot `j → i`, back toward the noise: `x_i = c·x_j + d·e_w(x_j, t_i)` under the weak guidance.

    The prediction is taken at the state the move starts from, told the time of the knot it returns to (Z-Sampling,
    eq. 4). `refine=K` then repeats `x_i ← c·x_j + d·e_w(x_i, t_i)` K times; the fixed point is the exact inverse of the
    guided step, approached where `|d|·Lip(e_w) < 1`. `refine=Tol(1e-4)` repeats it, accelerated, as often as it takes
    to come that near, and converges beyond. `coefficients=(k, l)` takes `c`, `d` from the step `k → l`
    instead of `i → j`: the authors' released code uses `(i + 1, j + 1)`, which is not an inverse of anything it did.
    With a `strength` λ other than 1 the state that the walk goes on from is `x_i + λ·(x̃_i − x_i)`, with `x_i` the one
    that left the knot last: so much of the zigzag is kept.
    """

    j: int
    i: int
    refine: int | Tol = 0
    coefficients: tuple[int, int] | None = None
    strength: float = 1.0

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


def at_least(settings: object, name: str, least: int) -> None:
    """Raises TypeError, ValueError unless an attribute of these settings is an integer, and at least so large."""
    value = getattr(settings, name)
    if not isinstance(value, int):
        raise TypeError(f"{type(settings).__name__}: {name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{type(settings).__name__}: {name} must be at least {least}, got {value}")


def evaluations(move: Invert, by: str) -> int:
    """How often an inversion evaluates the model.

    Args:
        by: who has to know it beforehand, for the message.

    Raises:
        ValueError: for one that is refined to a tolerance.
    """
    if isinstance(move.refine, Tol):
        raise ValueError(
            f"{by} makes a number of evaluations that is fixed beforehand, and {move!r} as many as it takes: pass an "
            "integer, refine=3, say"
        )
    return 1 + move.refine


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
