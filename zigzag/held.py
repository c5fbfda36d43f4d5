"""What the steps of a path hold: the memory that belongs to knots and the noise that belongs to intervals.

Which knots a step reads, and so its order and coefficients, follows from the path alone: `steps_of` settles it before
the first model call. `Held` is what a walk carries along.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from zigzag.moves import Denoise, Invert, Move, Renoise, Shift, leaves_for_good
from zigzag.solvers import AffineStep, Inner, Solver

__all__ = ["Draw", "Held", "HeldStep", "Left", "Planned", "steps_of"]

# `draw(x, interval)`: standard normal noise like `x`, of an interval `(i, j)`; or of a Renoise, which has none.
Draw: TypeAlias = Callable[[Tensor, "tuple[int, int] | None"], Tensor]


class HeldStep(NamedTuple):
    """The step of a move, and what it holds.

    Attributes:
        step: its coefficients. inner: its second evaluation, of a Denoise that makes two.
        reads: the knots whose memory it reads, the latest first, one for each of `step.memory`.
        leaves: whether a later move reads what this Denoise leaves at its knot.
        interval: whose noise it adds or takes out; None for a step without.
        draws: whether that noise is drawn now. keeps: whether a later move reads it.
        forgets: the knots and the intervals whose memory and noise no later move reads.
    """

    step: AffineStep
    inner: Inner | None = None
    reads: tuple[int, ...] = ()
    leaves: bool = False
    interval: tuple[int, int] | None = None
    draws: bool = False
    keeps: bool = False
    forgets: tuple[int | tuple[int, int], ...] = ()

    @property
    def order(self) -> int:
        """How many predictions the move combines: those of its step, and one more for a second evaluation.

        An Invert and a Shift over a step of two evaluations take one, with the `a` and `b` of the whole.
        """
        return self.step.order + (self.inner is not None)

    @property
    def holds(self) -> bool:
        """Whether the step adds anything to `a·x + b·e`."""
        return bool(self.reads) or self.interval is not None


def steps_of(path: Sequence[Move], solver: Solver) -> list[HeldStep]:
    """For each move its step, with what it reads of the memory that the path has left, and of the noise it has drawn.

    A Denoise that leaves knot `i` is remembered. A step from `i` reads noisier knots only; what is remembered at `i`
    and below is forgotten when the path comes back up to `i`, and everything after a Renoise. So the Ψ of a zigzag and
    the Φ after it read what the Φ that they undo has read. Where there is nothing to read, a step has a lower order.

    The noise of an interval is drawn at the first move over it and held for the others; a Renoise up to `i` forgets
    that of the intervals below. With `solver.fresh_noise` the Denoise that leaves its knot for good draws anew.

    Raises:
        ValueError: for a step that does not exist, or has no inverse where the path needs it, and for an inversion by
            coefficients of another interval (`released=True`) on a solver with memory or noise.
    """
    planned = Planned(solver)
    for_good = leaves_for_good(path) if solver.fresh_noise else [False] * len(path)
    steps: list[HeldStep] = []
    try:
        for move, fresh in zip(path, for_good, strict=True):
            steps.append(planned.step(move, fresh))
    except ValueError as error:
        k = len(steps)
        raise ValueError(f"move {k} of the path, {path[k]!r}: {error}") from None
    return _kept(path, steps) if solver.memory or any(held.interval for held in steps) else steps


class Planned:
    """The steps of a path as far as it was walked, of which each says what the next may read.

    Args:
        solver: whose steps they are.
    """

    def __init__(self, solver: Solver) -> None:
        self.solver = solver
        self._left: list[int] = []  # the knots remembered, from noise to data
        self._known: set[tuple[int, int]] = set()  # the intervals whose noise is drawn

    def step(self, move: Move, fresh: bool = False) -> HeldStep:
        """The step of the next move; with `fresh` its noise is drawn anew."""
        solver, left = self.solver, self._left
        match move:
            case Denoise(i, j):
                held = _holding(solver.step(i, j, left), left, (i, j), self._known, fresh, solver.inner(i, j))
                if solver.memory:
                    left.append(i)
                return held
            case Invert(j, i, _, coefficients):
                left = self._left = [knot for knot in left if knot < i]
                solver.info(i, j)  # the knots themselves, where the coefficients are others'
                step = solver.invertible_step(*(coefficients or (i, j)), left)
                others = coefficients not in (None, (i, j))
                if others and (solver.memory or step.noisy or solver.step(i, j).noisy):
                    raise ValueError(
                        f"the coefficients of {coefficients} hold nothing of the step {i} -> {j} of {solver!r}; "
                        "released=True needs a solver without memory or noise"
                    )
                return _holding(step, left, (i, j), self._known)
            case Shift(i):
                return HeldStep(solver.invertible_step(i, None, left))
            case Renoise(j, i):
                held = HeldStep(solver.noise_step(j, i))
                self._left, self._known = [], {interval for interval in self._known if interval[0] < i}
                return held


def _holding(
    step: AffineStep,
    left: Sequence[int],
    interval: tuple[int, int],
    known: set[tuple[int, int]],
    fresh: bool = False,
    inner: Inner | None = None,
) -> HeldStep:
    reads = tuple(left[: -len(step.memory) - 1 : -1]) if step.memory else ()
    if not step.noisy:
        return HeldStep(step, inner, reads)
    draws = fresh or interval not in known
    known.add(interval)
    return HeldStep(step, inner, reads, interval=interval, draws=draws)


def _kept(path: Sequence[Move], steps: list[HeldStep]) -> list[HeldStep]:
    """The same steps, from behind: what is read later is kept until then."""
    wanted: set[int | tuple[int, int]] = set()
    kept: list[HeldStep] = []
    for move, held in zip(reversed(path), reversed(steps), strict=True):
        leaves = isinstance(move, Denoise) and move.i in wanted
        keeps = held.interval in wanted
        if leaves:
            wanted.discard(move.start)
        read: set[int | tuple[int, int]] = {*held.reads}
        if held.interval is not None:
            read.add(held.interval)
        kept.append(held._replace(leaves=leaves, keeps=keeps, forgets=tuple(read - wanted)))
        wanted |= set(held.reads)
        if held.interval is not None:
            wanted = wanted - {held.interval} if held.draws else wanted | {held.interval}
    return kept[::-1]


class Held:
    """The memory and the noise that a walk carries.

    Args:
        draw: `draw(x, interval) -> z`, standard normal noise like `x`, asked for once for each interval (anew after a
            Renoise).
    """

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._kept: dict[int | tuple[int, int], Tensor] = {}  # by knot the memory, by interval the noise

    def remainder(self, held: HeldStep, x: Tensor) -> Tensor | None:
        """`r` of a step, at a state like `x`; None where the step holds nothing."""
        if not held.holds:
            return None
        remembered = [self._kept[knot] for knot in held.reads]
        return held.step.remainder(remembered, self.noise(held, x))

    def noise(self, held: HeldStep, x: Tensor) -> Tensor | None:
        """`z` of a step, drawn now or held since; None for a step without. What no later move reads is let go of."""
        z = None
        if held.interval is not None:
            z = self._draw(x, held.interval) if held.draws else self._kept[held.interval]
            if held.keeps:
                self._kept[held.interval] = z
        for gone in held.forgets:
            self._kept.pop(gone, None)
        return z

    def leave(self, knot: int, m: Tensor) -> None:
        """Remembers what a Denoise leaves at its knot."""
        self._kept[knot] = m


class Left:
    """The states that have left the knots to which a path comes back by a part of a zigzag.

    Args:
        path: whose inversions say which those are; None, if it is not known beforehand: then all are kept.
    """

    def __init__(self, path: Sequence[Move] | None) -> None:
        self._all = path is None
        self._returns = Counter(move.end for move in path or () if isinstance(move, Invert) and move.strength != 1)
        self._states: dict[int, Tensor] = {}

    def leave(self, i: int, x: Tensor) -> None:
        """Keeps the state that a Denoise leaves from, where an inversion wants it."""
        if i in self._returns or self._all:
            self._states[i] = x

    def merged(self, move: Invert, x: Tensor) -> Tensor:
        """`x_i + λ·(x − x_i)` at the end of an inversion, with `x_i` the state that left its knot last."""
        if move.strength == 1:
            return x
        x_i = self._states.pop(move.end)
        self._returns[move.end] -= 1
        if not self._returns[move.end]:
            del self._returns[move.end]
        return torch.lerp(x_i, x, float(move.strength))
