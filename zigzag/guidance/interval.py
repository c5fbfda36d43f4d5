"""Guidance on an interval of steps."""

from __future__ import annotations

from torch import Tensor

from zigzag.guidance.base import Guidance, LinearGuidance, Scale, State, batch_of, needs_state
from zigzag.guidance.cfg import guided, needed
from zigzag.solvers import StepInfo

__all__ = ["Interval"]


class Interval:
    """Another rule on the steps `start ≤ i < stop`, and `w = 1` (conditional alone, one row) outside.

    Args:
        guidance: the rule inside.
        start, stop: knots; `stop=None` is the end of the grid.

    Raises:
        ValueError: unless `0 ≤ start < stop`.

    Source: Kynkäänniemi et al. 2024 (limited interval guidance), there in σ.
    """

    def __init__(self, guidance: Guidance, start: int = 0, stop: int | None = None) -> None:
        if not isinstance(guidance, Guidance):
            raise TypeError(f"guidance must have branches() and be callable, got {guidance!r}; a number is CFG(number)")
        for name, knot in (("start", start), ("stop", 0 if stop is None else stop)):
            if not isinstance(knot, int):
                raise TypeError(f"{name} must be an integer, got {knot!r}")
        if start < 0 or (stop is not None and stop <= start):
            raise ValueError(f"need 0 <= start < stop, got start={start}, stop={stop}")
        self.guidance, self.start, self.stop = guidance, start, stop
        self.needs_state, self.batch = needs_state(guidance), batch_of(guidance)
        if (reset := getattr(guidance, "reset", None)) is not None:
            self.reset = reset

    def __repr__(self) -> str:
        return f"Interval({self.guidance!r}, {self.start}, {self.stop})"

    def inside(self, step: StepInfo) -> bool:
        """Whether the step begins in the interval."""
        return self.start <= step.i and (self.stop is None or step.i < self.stop)

    def at(self, step: StepInfo) -> Scale:
        """The scale at this step.

        Raises:
            TypeError: if the rule inside has no scale (it is not linear in the gap).
        """
        if not self.inside(step):
            return 1.0
        if not isinstance(self.guidance, LinearGuidance):
            raise TypeError(f"{self.guidance!r} is not linear in the gap: it has no scale")
        return self.guidance.at(step)

    def branches(self, step: StepInfo) -> tuple[bool, bool]:
        """`(cond, uncond)`: those of the rule inside, `(True, False)` outside."""
        return self.guidance.branches(step) if self.inside(step) else needed(1.0)

    def __call__(self, e_c: Tensor | None, e_u: Tensor | None, step: StepInfo, *state: State) -> Tensor:
        """The guided prediction, in the shape of the branches."""
        return self.guidance(e_c, e_u, step, *state) if self.inside(step) else guided(e_c, e_u, 1.0)
