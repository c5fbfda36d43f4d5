"""Plain guidance at the scale that a zigzag amounts to: the baseline of every fair comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from zigzag.checks import as_guidance, resolve_path
from zigzag.guidance import CFG, Guidance, LinearGuidance
from zigzag.methods import Method
from zigzag.moves import Denoise, Invert, Move, Renoise, Shift
from zigzag.solvers import Solver, StepInfo

__all__ = ["matched_cfg"]


def matched_cfg(
    method: Method | Sequence[Move], solver: Solver, strong: float | Guidance = 5.5, weak: float | Guidance = 0.0
) -> CFG:
    r"""The scale of plain CFG, step by step, that equals `method` wherever the field is constant.

    On a field whose branches do not depend on the state, a path only adds up multiples of the gap `e_c − e_∅`. This
    walks the path with that one number `G` in place of the state, and reads off at each knot what the zigzag injected
    between coming down to it, with `G_i`, and leaving it for good, with `G̃_i`. Plain guidance makes the same way with

    .. math:: w'_i = s + (a_i/b_i)(\tilde G_i - G_i)

    For span 1 that is `s + rounds·(s − w)`; `ImplicitZ` and `Z2Sampling` have `2s − w`, steps that are not active `s`.
    A Renoise puts fresh noise in the place of what was removed, and so adds no gap: Resampling has `s`.

    Returns:
        A `CFG` whose scale is a function of the step `i → i + 1`, to be used with `Standard`.

    Raises:
        TypeError: if a guidance is not linear in the gap, and so has no scale.
        ValueError: for a path as in `walk`, one whose Denoise moves do not lead from its first knot to its last, and
            one that inverts by other coefficients than the step's (`released=True`): it rescales the state as well,
            and no scale of plain guidance does that.
    """
    s, w = _scale("strong", strong), _scale("weak", weak)
    path = resolve_path(method, solver)
    first, last = path[0].start, path[-1].end
    zero = torch.zeros((), dtype=torch.float64)
    # left[i]: G when the path last left knot i downward.
    # entered[j]: the knot i from which it last came down to j, and G there.
    G, gap = zero, zero
    left: dict[int, Tensor] = {first: zero}
    entered: dict[int, tuple[int, Tensor]] = {}
    for move in path:
        match move:
            case Denoise(i, j):
                at = solver.info(i, j)
                gap, left[i] = zero + s(at) - w(at), G
                G = solver.step(i, j).forward(G, zero + s(at))
                entered[j] = i, G
            case Invert(j, i, _, coefficients):
                if coefficients not in (None, (i, j)):
                    raise ValueError(f"{move!r} has no matched scale: its coefficients do not undo the step {i} -> {j}")
                G = solver.step(i, j).inverse(G, zero + w(solver.info(i, j)))
            case Shift(i, fresh):
                at = solver.info(i)
                gap = zero + s(at) - w(at) if fresh else gap
                G = solver.step(i).shift(G, gap)
            case Renoise(_, i):
                G = left.get(i, zero)

    scales: dict[tuple[int, int], float] = {}
    j = last
    while j != first:
        if j not in entered:
            raise ValueError(f"the Denoise moves of {method!r} do not lead from knot {first} to knot {last}")
        i, _ = entered[j]
        G_i = zero if i == first or i not in entered else entered[i][1]
        step = solver.step(i, j)
        scales[i, j] = s(solver.info(i, j)) + float((left[i] - G_i) * step.a / step.b)
        j = i

    def matched(step: StepInfo) -> float:
        if (step.i, step.j) not in scales:
            raise ValueError(f"no matched scale for the step {step.i} -> {step.j}: the method never makes it")
        return scales[step.i, step.j]

    return CFG(matched)


def _scale(name: str, value: float | Guidance) -> Callable[[StepInfo], float]:
    guidance = as_guidance(name, value)
    if not isinstance(guidance, LinearGuidance):
        raise TypeError(f"{name}={guidance!r} is not linear in the gap: it has no matched scale")
    return guidance.at
