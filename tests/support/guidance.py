"""Calling a guidance rule as the loop does."""

from typing import Any

from torch import Tensor

from support.tensors import noise
from zigzag import State
from zigzag.solvers import StepInfo, convert


def at(i: int = 3, j: int = 4, alpha_j: float = 0.8, sigma_j: float = 0.6) -> StepInfo:
    return StepInfo(i=i, j=j, t=0.5, alpha_i=0.6, sigma_i=0.8, alpha_j=alpha_j, sigma_j=sigma_j)


STEP = at()
BOTH, COND, UNCOND = (True, True), (True, False), (False, True)
# Two branches of three samples, at a state and at a level: for rules that read it.
X, E_C, E_U = (noise(k, 3, 4, 2) for k in range(3))
LEVEL = 0.6, 0.8


def branches(w: float) -> tuple[bool, bool]:
    """w = 1 needs the conditional branch, w = 0 the unconditional one, any other both."""
    return COND if w == 1 else UNCOND if w == 0 else BOTH


def needed(rule: Any, e_c: Tensor, e_u: Tensor, step: StepInfo) -> Tensor:
    """Call a rule as the loop does: a branch that it does not need is None."""
    cond, uncond = rule.branches(step)
    return rule(e_c if cond else None, e_u if uncond else None, step)


def shown(kind: Any = "flow", x: Tensor = X) -> State:
    return State(x, *LEVEL, kind)


def guided(rule: Any, kind: Any, *, c: Tensor = E_C, u: Tensor = E_U, step: StepInfo = STEP) -> Tensor:
    """A rule asked for predictions of a kind, of branches that are given as data: all kinds say the same of them."""
    branches = (convert(X, m, *LEVEL, "x0", kind) for m in (c, u))
    return convert(X, rule(*branches, step, shown(kind)), *LEVEL, kind, "x0")
