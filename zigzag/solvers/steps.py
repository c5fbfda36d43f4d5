"""What a solver gives as a step, held against what it was asked for; and steps that differ by sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise, zip_longest

import torch
from torch import Tensor

from zigzag.solvers.affine import AffineStep

__all__ = ["by_sample", "check_remembered", "checked"]


def checked(step: object, who: str, memory: object, remembered: Sequence[int]) -> AffineStep:
    """`step`, if it is one that `Solver.coefficients` may give.

    Args:
        step: what came. who: the solver and the knots, for messages. memory: what the solver says that it remembers.
        remembered: the knots that it was told.

    Raises:
        TypeError: for what is no `AffineStep` of numbers, and a memory that is no number of knots.
        ValueError: for one that reads more than it was told is remembered, or adds noise of no finite, positive size.
    """
    if not isinstance(memory, int) or memory < 0:
        raise TypeError(f"{who}: memory must be an integer of at least 0, got {memory!r}")
    if not isinstance(step, AffineStep):
        raise TypeError(f"{who}: coefficients() must return an AffineStep, got {type(step).__name__}")
    numbers = (step.a, step.b, *step.memory, step.noise)
    if not all(isinstance(k, float | int) for k in numbers):
        raise TypeError(f"{who}: coefficients() must return host numbers, got {step!r}")
    if len(step.memory) > len(remembered):
        raise ValueError(
            f"{who}: coefficients() reads {len(step.memory)} remembered predictions, but {len(remembered)} are at hand "
            f"(memory={memory})"
        )
    if math.isfinite(float(step.a)) and not (all(map(math.isfinite, map(float, numbers))) and float(step.noise) >= 0):
        raise ValueError(f"{who}: coefficients() must be finite, and the noise not negative, got {step!r}")
    return step


def check_remembered(i: int, latest: Sequence[int], told: Sequence[int]) -> None:
    """Raises ValueError unless what the step from knot `i` reads, `latest` first, are ever noisier knots."""
    if any(knot >= later for later, knot in pairwise((i, *latest))):
        raise ValueError(f"the step from knot {i} remembers noisier knots, from noise to data, got {list(told)}")


def by_sample(step: Callable[[int, int], AffineStep], i: Tensor, j: Tensor, dtype: torch.dtype) -> AffineStep:
    """One step a sample: the coefficients of `step` from knots `i` to `j`, `(B,)` on their device in `dtype`.

    Raises:
        TypeError, ValueError: unless both are `(B,)` and integers.
    """
    for name, knots in (("i", i), ("j", j)):
        if knots.is_floating_point() or knots.is_complex() or knots.dtype == torch.bool:
            raise TypeError(f"{name} must be integers, got {knots.dtype}")
    if i.ndim != 1 or i.shape != j.shape:
        raise ValueError(f"i and j must be (B,) both, got {tuple(i.shape)} and {tuple(j.shape)}")
    steps = [step(*knots) for knots in zip(i.tolist(), j.tolist(), strict=True)]
    # A sample whose step has a lower order than another's remembers the rest by 0.
    memory = zip_longest(*(s.memory for s in steps), fillvalue=0.0)
    a, b, noise, *remembered = (
        torch.tensor([float(k) for k in each], dtype=torch.float64, device="cpu").to(dtype).to(i.device)
        for each in ([s.a for s in steps], [s.b for s in steps], [s.noise for s in steps], *memory)
    )
    return AffineStep(a, b, tuple(remembered), noise=noise if any(s.noisy for s in steps) else 0.0)
