"""The six methods, as paths: which moves, in which order. A method knows nothing of models, scales or solvers."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from zigzag.guidance.base import finite
from zigzag.moves import Denoise, Invert, Move, Renoise, Shift, Tol, at_least
from zigzag.strengths.base import Strength, check_strength
from zigzag.visits import Visit

if TYPE_CHECKING:
    from typing_extensions import TypeIs

__all__ = [
    "EndToEnd",
    "ImplicitZ",
    "Method",
    "Resampling",
    "Standard",
    "Steered",
    "Z2Sampling",
    "ZSampling",
    "is_steered",
]


@runtime_checkable
class Method(Protocol):
    """Anything with a path over a grid of `T` steps."""

    def path(self, T: int) -> Iterable[Move]:
        """The moves, from knot 0 to knot T: any iterable of them, a generator for one."""
        ...


@runtime_checkable
class Steered(Protocol):
    """A method whose path depends on the walk: each move may be chosen by where the one before it has led.

    It has `steer(T)` in the place of `path(T)`. There is one path for the batch; what is to differ by sample is a
    `strength`. Reading a tensor to choose a move makes the host wait for the device, once a move. Whatever needs the
    path beforehand (`capture`, `matched_cfg`, `count_rows`, the gradients of the last K steps) refuses it.
    """

    def steer(self, T: int) -> Generator[Move, Visit, None]:
        """A generator that yields the first move, is sent the `Visit` after each, and yields the next.

        The visit has the state that the walk goes on from (that of a callback, where it gave another), and the gap
        that is cached: every Denoise leaves one. It ends where the path does.
        """
        ...


def is_steered(method: object) -> TypeIs[Steered]:
    """Whether a method has no path but by its walk."""
    return hasattr(method, "steer") and not hasattr(method, "path") and not isinstance(method, type)


@dataclass(frozen=True)
class Standard:
    """Standard sampling: Φ at every step."""

    def path(self, T: int) -> tuple[Move, ...]:
        """Φ at every step."""
        return tuple(Denoise(i, i + 1) for i in range(T))


@dataclass(frozen=True)
class Resampling:
    """Φ (Renoise Φ)^rounds at the first `steps` steps: back up by fresh noise, and down again.

    Args:
        steps: how many steps resample; by default all but the last.
        rounds: how often, at least once.

    Source: Lugmayr et al. 2022 (RePaint), the baseline of Z-Sampling.
    """

    steps: int | None = None
    rounds: int = 1

    def __post_init__(self) -> None:
        at_least(self, "rounds", 1)
        _check_lambda(self)

    def path(self, T: int) -> tuple[Move, ...]:
        """The moves, from knot 0 to knot T."""
        active = _active_steps(self, self.steps, T, default=T - 1)
        moves: list[Move] = []
        for i in range(T):
            moves.append(Denoise(i, i + 1))
            if i < active:
                moves += [Renoise(i + 1, i), Denoise(i, i + 1)] * self.rounds
        return tuple(moves)


@dataclass(frozen=True)
class EndToEnd:
    """The whole way down, the whole way up, and down again: end-to-end injection.

    Args:
        refine: fixed-point iterations of each inversion; or `Tol(1e-4)`, to iterate until it has converged.

    Source: Z-Sampling, Algorithm 2 and Theorem 1.
    """

    refine: int | Tol = 0

    def __post_init__(self) -> None:
        _check_refine(self)

    def path(self, T: int) -> tuple[Move, ...]:
        """The moves, from knot 0 to knot T: a zigzag at the first step only, of span T."""
        return ZSampling(steps=1, span=T, refine=self.refine).path(T)


@dataclass(frozen=True)
class ZSampling:
    """Z-Sampling: (Φ^span Ψ^span)^rounds Φ at the first `steps` steps.

    Args:
        steps: the paper's λ, by default `T − 1`.
        rounds: zigzags a step, the released code's `T_max`.
        span: steps down under the strong guidance, then up under the weak one; clipped at the end of the grid.
        refine: fixed-point iterations of each inversion; or `Tol(1e-4)`, to iterate until it has converged.
        released: invert as the authors' released code does, with the coefficients of step `i + 1` at step `i`, for
            comparisons with published figures. Needs span 1, refine 0 and `steps ≤ T − 1`.
        plain: leave every knot for good by a Φ of the plain role. With a strong and a weak model around a plain one,
            as LoRA strengths 1.5 and −1.5 around 0.8, that is W2SD.
        strength: how much of what a zigzag moved the state by is kept, a number: `x_i + λ·(x̃_i − x_i)`.

    Source: Bai et al. 2025 (Z-Sampling), Algorithm 1; spans are its Table 12. W2SD: Bai et al. 2502.00473. The
    strength is the merge ratio of the code that RF-Sampling (Zhou et al. 2603.06165) came of.
    """

    steps: int | None = None
    rounds: int = 1
    span: int = 1
    refine: int | Tol = 0
    released: bool = False
    plain: bool = False
    strength: float = 1.0

    def __post_init__(self) -> None:
        finite("ZSampling: strength", self.strength)
        at_least(self, "rounds", 1)
        at_least(self, "span", 1)
        _check_refine(self)
        _check_lambda(self)
        if self.released and (self.span != 1 or self.refine != 0):
            raise ValueError(f"released=True needs span=1 and refine=0, got span={self.span}, refine={self.refine}")

    def path(self, T: int) -> tuple[Move, ...]:
        """The moves, from knot 0 to knot T."""
        active = _active_steps(self, self.steps, T, default=T - 1)
        if self.released and active > T - 1:
            raise ValueError(
                f"released=True has no coefficients for the last step: steps must be at most {T - 1}, got {active}"
            )
        moves: list[Move] = []
        for i in range(T):
            if i < active:
                end = min(i + self.span, T)
                down = [Denoise(m, m + 1) for m in range(i, end)]
                up = [self._invert(m, self.strength if m == i else 1.0) for m in reversed(range(i, end))]
                moves += [*down, *up] * self.rounds
            moves.append(Denoise(i, i + 1, self.plain))
        return tuple(moves)

    def _invert(self, i: int, strength: float) -> Invert:
        return Invert(i + 1, i, self.refine, (i + 1, i + 2) if self.released else None, strength)


@dataclass(frozen=True)
class ImplicitZ:
    """Implicit Z-Sampling: Shift(fresh gap at x) Φ at the steps `start ≤ i < steps`.

    Args:
        start: the first step that shifts.
        steps: the paper's λ, the step before which shifting ends (not how many shift); by default T. 0 is none.
        strength: how much of the gap each Shift applies: a number, or a rule of `zigzag.strengths`.

    Source: Z²-Sampling (2026), section 3.1.
    """

    start: int = 0
    steps: int | None = None
    strength: Strength = 1.0

    def __post_init__(self) -> None:
        check_strength(self.strength, "ImplicitZ")
        at_least(self, "start", 0)
        _check_lambda(self)
        _check_interval(self, self.start, self.steps)

    def path(self, T: int) -> tuple[Move, ...]:
        """The moves, from knot 0 to knot T."""
        active = _active_steps(self, self.steps, T, default=T)
        if self.start > T:
            raise ValueError(f"{self!r}: start must be at most T = {T}")
        return _shifting(T, self.start, active, fresh=True, strength=self.strength)


@dataclass(frozen=True)
class Z2Sampling:
    """Z²-Sampling: Shift(gap cached at the previous evaluation) Φ at the steps `warmup ≤ i < steps`.

    Args:
        warmup: plain guided steps before the first shift, while the cache fills. The papers use 5 to 10 of 50, and 1
            of 4. With 0 the first step has no gap yet, and is a plain one all the same.
        steps: the paper's λ, the step before which shifting ends (not how many shift); by default T, every step that
            is left. 0 is none.
        strength: how much of the gap each Shift applies: a number, or a rule of `zigzag.strengths`.

    Source: Z²-Sampling (2026), section 3.2 and Algorithm 3.
    """

    warmup: int = 5
    steps: int | None = None
    strength: Strength = 1.0

    def __post_init__(self) -> None:
        check_strength(self.strength, "Z2Sampling")
        at_least(self, "warmup", 0)
        _check_lambda(self)
        _check_interval(self, max(1, self.warmup), self.steps)

    def path(self, T: int) -> tuple[Move, ...]:
        """The moves, from knot 0 to knot T."""
        active = _active_steps(self, self.steps, T, default=T)
        if self.warmup >= T:
            raise ValueError(
                f"warmup must be smaller than the number of steps, got warmup={self.warmup} and T = {T}; "
                "for few-step models the paper takes warmup=1 of 4 steps"
            )
        return _shifting(T, max(1, self.warmup), active, fresh=False, strength=self.strength)


def _shifting(T: int, start: int, stop: int, fresh: bool, strength: Strength) -> tuple[Move, ...]:
    moves: list[Move] = []
    for i in range(T):
        if start <= i < stop:
            moves.append(Shift(i, fresh, strength))
        moves.append(Denoise(i, i + 1))
    return tuple(moves)


def _active_steps(method: object, steps: int | None, T: int, default: int) -> int:
    if not isinstance(T, int) or T < 1:
        raise ValueError(f"a path needs T >= 1 steps, got T = {T!r}")
    if steps is None:
        return default
    if steps > T:
        raise ValueError(f"{method!r}: steps must be at most T = {T}, got {steps}")
    return steps


def _check_lambda(method: Resampling | ZSampling | ImplicitZ | Z2Sampling) -> None:
    if method.steps is not None:
        at_least(method, "steps", 0)


def _check_refine(method: EndToEnd | ZSampling) -> None:
    if not isinstance(method.refine, int | Tol):
        raise TypeError(f"{type(method).__name__}: refine must be an integer, or Tol(1e-4), got {method.refine!r}")
    if isinstance(method.refine, int):
        at_least(method, "refine", 0)


def _check_interval(method: object, start: int, steps: int | None) -> None:
    if steps is not None and 0 < steps <= start:
        raise ValueError(
            f"{method!r} never shifts: steps is the step before which shifting ends, and it begins at {start}"
        )
