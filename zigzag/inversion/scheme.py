"""What an inversion scheme is, and what its loops are given: the grid's steps, the model to ask, the noise held."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias, TypeVar

import torch
from torch import Tensor

from zigzag.guided import Answer, Asking, Guided, Query
from zigzag.roles import STRONG
from zigzag.sampling import Generators
from zigzag.solvers import AffineStep, Solver

__all__ = ["Found", "Model", "Pair", "Reversible", "Run", "Scheme", "answered", "descend", "need_one_step"]

T = TypeVar("T")
Pair: TypeAlias = tuple[Tensor, Tensor]
Model: TypeAlias = Callable[[Query], Answer]


@dataclass(frozen=True)
class Run:
    """One way up or down a grid: what the loops of a scheme read and ask.

    Attributes:
        solver: the grid and its steps. guided: the predictions, and the rows that ran.
        noises: `(T, B, …)`, by interval `i → i + 1` the noise held, standard normal; None where no step is noisy.
    """

    solver: Solver
    guided: Guided
    noises: Tensor | None = None

    def step(self, i: int, remembered: Sequence[int] = ()) -> AffineStep:
        """The step `i → i + 1`."""
        return self.solver.step(i, i + 1, remembered)

    def remainder(self, i: int, remembered: Sequence[Tensor] = (), order: Sequence[int] = ()) -> Tensor | None:
        """`r` of the step `i → i + 1`: what is remembered of the knots `order`, the latest last, and its noise."""
        step = self.step(i, order)
        z = None if self.noises is None or not step.noisy else self.noises[i]
        latest = list(remembered)[: -len(step.memory) - 1 : -1] if step.memory else []
        return step.remainder(latest, z)

    def predict(self, x: Tensor, i: int, told: int | None = None) -> Asking[Tensor]:
        """`e` at `x` for the step `i → i + 1`, the model being told the time `told` (that of knot `i`)."""
        (e,) = yield from self.guided.ask(x, self.solver.info(i), STRONG, told)
        return e

    def predictions(self, x: Tensor, i: int) -> Asking[Pair]:
        """The prediction at `x`, and that which the step `i → i + 1` is made with: another where it makes two."""
        e = yield from self.predict(x, i)
        inner = self.solver.inner(i, i + 1)
        if inner is None:
            return e, e
        e_2 = yield from self.predict(inner.first.forward(x, e), i, inner.told)
        return e, torch.lerp(e, e_2, inner.weight)


@dataclass(frozen=True)
class Found:
    """What came out at the noise end.

    Attributes:
        states: `(B, …)` each: the state at knot 0, or the pair that the scheme carries, the state at knot 0 first.
        residuals: `(T, B, …)`, what the way down adds at each interval; of `Recorded` alone.
        residual: `(T, B)`, by interval and sample what is left of the equation solved, relative to the state.
        contraction: `(T, B)`, the estimate of `|d|·Lip`. Both of `FixedPoint` alone.
    """

    states: tuple[Tensor, ...]
    residuals: Tensor | None = None
    residual: Tensor | None = None
    contraction: Tensor | None = None


class Scheme(ABC):
    """A way from data up to noise that has a way down which undoes it.

    The loops are coroutines: they yield a `Query` where they need predictions and are sent the `Answer`, so that
    whoever cannot call the model (a pipeline with its own loop) drives them from there.
    """

    @abstractmethod
    def check(self, solver: Solver) -> None:
        """Raises ValueError where the scheme cannot run on the grid, saying what would do."""

    def growth(self, solver: Solver) -> float | None:
        """The factor by which the way up multiplies rounding, from the grid; None where the scheme reports another."""
        return None

    def finest(self) -> float:
        """The relative accuracy that the scheme itself asks of the state's arithmetic; infinite where none."""
        return float("inf")

    @abstractmethod
    def up(self, run: Run, x: Tensor, generator: Generators) -> Asking[Found]:
        """From data `x` at the last knot to what the way down begins with."""

    @abstractmethod
    def down(self, run: Run, found: Found) -> Asking[Tensor]:
        """From what `up` found, or from a noise alone, to the data."""


class Reversible(Scheme):
    """A scheme that is exact by algebra: a pair of states, and a step of it that is solved in reverse.

    Attributes:
        first: the noisiest knot at which there is a whole pair.
    """

    first: ClassVar[int] = 0

    @abstractmethod
    def forward(self, run: Run, i: int, x: Tensor, y: Tensor) -> Asking[Pair]:
        """The pair at knot `i + 1` of that at knot `i`."""

    @abstractmethod
    def inverse(self, run: Run, i: int, x: Tensor, y: Tensor) -> Asking[Pair]:
        """The pair at knot `i` of that at knot `i + 1`: `forward` solved for it."""

    def enter(self, run: Run, x: Tensor) -> Asking[Pair]:
        """The pair at the last knot that data `x` makes."""
        yield from ()
        return x, x

    def start(self, run: Run, x: Tensor) -> Asking[Pair]:
        """The pair at knot `first` that a noise `x` at knot 0 makes."""
        yield from ()
        return x, x

    def noise_first(self, x: Tensor, y: Tensor) -> Pair:
        """The pair at knot `first`, the state at knot 0 first: it is its own inverse."""
        return x, y

    def up(self, run: Run, x: Tensor, generator: Generators) -> Asking[Found]:
        """`inverse` from the last knot to `first`."""
        x, y = yield from self.enter(run, x)
        for i in reversed(range(self.first, len(run.solver))):
            x, y = yield from self.inverse(run, i, x, y)
        return Found(self.noise_first(x, y))

    def down(self, run: Run, found: Found) -> Asking[Tensor]:
        """`forward` from `first` to the last knot."""
        if len(found.states) == 1:
            x, y = yield from self.start(run, *found.states)
        else:
            x, y = self.noise_first(*found.states)
        for i in range(self.first, len(run.solver)):
            x, y = yield from self.forward(run, i, x, y)
        return x


def descend(run: Run, x: Tensor, residuals: Tensor | None = None) -> Asking[Tensor]:
    """The solver's own way down, from knot 0, with its memory and the noise held: `Φ + residual` at each interval."""
    solver = run.solver
    memory: list[Tensor] = []
    for i in range(len(solver)):
        e_1, e = yield from run.predictions(x, i)
        left = range(i)
        step, r = run.step(i, left), run.remainder(i, memory, left)
        memory = remembering(solver, memory, i, x, e_1)
        x = step.forward(x, e, r)
        if residuals is not None:
            x = x + residuals[i]
    return x


def remembering(solver: Solver, memory: list[Tensor], i: int, x: Tensor, e: Tensor) -> list[Tensor]:
    """What is remembered, the latest last, once knot `i` is left."""
    return [*memory, solver.remember(i, x, e)][-solver.memory :] if solver.memory else []


def answered(asking: Asking[T], model: Model) -> T:
    """What a coroutine returns once the model has answered all that it asks."""
    try:
        query = next(asking)
        while True:
            query = asking.send(model(query))
    except StopIteration as stop:
        value: T = stop.value
        return value


def need_one_step(scheme: Scheme, solver: Solver, noise: bool = False) -> None:
    """Raises ValueError unless each step makes one evaluation, remembers nothing and has an inverse.

    Args:
        noise: whether a step may be noisy.
    """
    name = type(scheme).__name__
    if solver.memory:
        raise ValueError(
            f"{name} runs on one-step solvers, and {solver!r} remembers earlier predictions; take one of order 1 on "
            "the same grid, or FixedPoint or Recorded"
        )
    for i in range(len(solver)):
        if solver.inner(i, i + 1) is not None:
            raise ValueError(
                f"{name} needs steps of one evaluation, and the step {i} -> {i + 1} of {solver!r} makes two; take DDIM "
                "on the same grid, or FixedPoint or Recorded"
            )
        step = solver.invertible_step(i)
        if step.noisy and not noise:
            raise ValueError(f"{name} is deterministic, and {solver!r} adds noise; take Rex, which holds it")
