"""What a guidance is held to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from zigzag.guidance import Guidance, LinearGuidance, State
from zigzag.guidance.base import batch_of, needs_state
from zigzag.solvers import DDIM, FlowEuler, Solver, Spherical, StepInfo
from zigzag.testing.steps import near, of_samples

__all__ = ["check_guidance"]

SLACK = 1e-10


def check_guidance(rule: Guidance, solvers: Sequence[Solver] | None = None) -> None:
    """Holds a rule to what the loop takes for granted of it, at every step of a few grids.

    The branches depend on nothing but the step, and are enough for a call; the prediction has their shape and dtype,
    and is finite; neither branches nor state are written to; what a sample is made of does not depend on its batch; two
    equal branches are the prediction (where a branch is asked for at all); one that has a scale is linear with it; and
    what a walk left in it is gone after `reset()`.

    Args:
        rule: the guidance. solvers: on whose steps; by default of ε, v and flow.

    Raises:
        AssertionError: for what does not hold, with the step.
    """
    if not isinstance(rule, Guidance) or isinstance(rule, type):
        raise AssertionError(f"{rule!r} must have branches() and be callable")
    for solver in solvers or (DDIM.stable_diffusion(4), FlowEuler.uniform(4), Spherical.cosine(4, phi_max=1.4)):
        for i in range(len(solver)):
            _check_at(rule, solver, solver.info(i))


def _check_at(rule: Guidance, solver: Solver, at: StepInfo) -> None:
    says = f"{rule!r} at knot {at.i} of {solver!r}"
    needed = rule.branches(at)
    if type(needed) is not tuple or [type(n) for n in needed] != [bool, bool]:
        raise AssertionError(f"{says}: branches() must return two bools, (cond, uncond), got {needed!r}")
    if rule.branches(at) != needed:
        raise AssertionError(f"{says}: branches() depends on more than the step")
    n = batch_of(rule) or 3
    e_c, e_u, x = torch.randn(3, n, 2, 4, 4, generator=torch.Generator().manual_seed(at.i), dtype=torch.float64)
    given = e_c if needed[0] else None, e_u if needed[1] else None
    before = [e_c.clone(), e_u.clone(), x.clone()]
    e = _ask(rule, solver, at, given, x)
    if not isinstance(e, Tensor) or e.shape != x.shape or e.dtype != x.dtype:
        got = f"{tuple(e.shape)} {e.dtype}" if isinstance(e, Tensor) else type(e).__name__
        raise AssertionError(f"{says} makes {got} of branches {tuple(x.shape)} {x.dtype}")
    if not all(map(torch.equal, (e_c, e_u, x), before)):
        raise AssertionError(f"{says} writes to what it is given")
    size = 1 + e.abs() + e_c.abs() + e_u.abs() + x.abs()
    near(_ask(rule, solver, at, given, x), e, SLACK * size, f"{says}: asked again, after reset(), it answers otherwise")
    if batch_of(rule) is None:
        rows = [(tuple(None if g is None else g[k : k + 1] for g in given), x[k : k + 1]) for k in range(n)]
        each = [_ask(rule, solver, at, *row) for row in rows]
        near(torch.cat(each), e, SLACK * size, f"{says}: a sample depends on its batch")
    if any(needed):
        alike = tuple(None if g is None else e_c for g in given)
        near(_ask(rule, solver, at, alike, x), e_c, SLACK * size, f"{says}: two equal branches are not the prediction")
    if isinstance(rule, LinearGuidance):
        try:
            w = of_samples(rule.at(at), x)
        except TypeError:  # an interval of a rule that has no scale
            return
        near(
            e,
            e_u + w * (e_c - e_u),
            SLACK * size * (1 + w.abs()),
            f"{says}: it is not linear in the gap with its scale at()",
        )


def _ask(rule: Any, solver: Solver, at: StepInfo, branches: tuple[Tensor | None, ...], x: Tensor) -> Any:
    if (reset := getattr(rule, "reset", None)) is not None:
        reset()
    more = (State(x, at.alpha_i, at.sigma_i, solver.prediction),) if needs_state(rule) else ()
    return rule(*branches, at, *more)
