"""CFG-Zero*: the unconditional velocity scaled to the conditional one, and no velocity at the first steps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from zigzag.guidance.base import Scale, State, reading
from zigzag.guidance.cfg import CFG, guided
from zigzag.solvers import StepInfo
from zigzag.solvers.affine import combine, flat, per_sample

__all__ = ["CFGZeroStar"]


class CFGZeroStar:
    r"""Classifier-free guidance of the velocity `u = ε − x₀`, with the unconditional one at its best scale `s*`.

    .. math:: u = s^*u_\varnothing + w\,(u_c - s^*u_\varnothing), \qquad
              s^* = \frac{\langle u_c, u_\varnothing\rangle}{\lVert u_\varnothing\rVert^2},

    per sample, and `u = 0` at the first `zero_init` steps, which need no row at all. What the solver predicts is said
    as a velocity at the state and back, so that the rule is the same on all solvers: on a flow it is of the predictions
    as they are, and a step of no velocity leaves the state where it is (in other parametrisations, `x/(α + σ)`). Not
    linear in the gap: it has no matched scale, and is not captured.

    Args:
        scale: `w`, as in `CFG`; 1 is conditional, of one row.
        zero_init: how many steps have no velocity, from the first knot on. A zigzag has nothing to inject there.

    Raises:
        TypeError, ValueError: for a scale as in `CFG`, a `zero_init` that is no integer of at least 0.

    Source: Fan et al. 2025 (CFG-Zero*, arXiv 2503.18886), Algorithm 1.
    """

    needs_state = True

    def __init__(self, scale: Scale | Callable[[StepInfo], Scale], zero_init: int = 1) -> None:
        self.cfg, self.zero_init = CFG(scale), zero_init
        self.batch = self.cfg.batch
        if not isinstance(zero_init, int) or zero_init < 0:
            raise ValueError(f"zero_init must be an integer of at least 0, got {zero_init!r}")

    def __repr__(self) -> str:
        return f"CFGZeroStar({self.cfg!r}, zero_init={self.zero_init})"

    def branches(self, step: StepInfo) -> tuple[bool, bool]:
        """`(cond, uncond)`: none at the first steps; then the conditional one, and the other unless `w` is 1."""
        if step.i < self.zero_init:
            return False, False
        return True, self.cfg.branches(step) != (True, False)

    def __call__(self, e_c: Tensor | None, e_u: Tensor | None, step: StepInfo, state: State | None = None) -> Tensor:
        """The guided prediction, in the shape of the branches."""
        state = reading(self, state)
        p, q = state.form("flow")
        if step.i < self.zero_init:
            return (-p / q) * state.x if p else torch.zeros_like(state.x)
        if e_c is None:
            raise ValueError("CFGZeroStar needs the conditional branch, got None")
        if e_u is None:
            return e_c
        u_c, u_u = (e if (p, q) == (0, 1) else combine(p, state.x, q, e) for e in (e_c, e_u))
        s = (flat(u_c) * flat(u_u)).sum(1) / (flat(u_u) ** 2).sum(1)
        scaled = per_sample(s.nan_to_num(0.0), u_u) * u_u  # a velocity of 0 has no scale
        u = guided(u_c, scaled, self.cfg.at(step))
        return u if (p, q) == (0, 1) else combine(-p / q, state.x, 1 / q, u)
