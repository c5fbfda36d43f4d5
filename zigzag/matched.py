"""Plain guidance at the scale that a zigzag amounts to: the baseline of every fair comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Real

import torch
from torch import Tensor

from zigzag.checks import as_guidance
from zigzag.guidance import CFG, Guidance, LinearGuidance
from zigzag.guidance.base import Scale
from zigzag.held import Held, steps_of
from zigzag.methods import Method
from zigzag.moves import Denoise, Invert, Move, Renoise, Shift
from zigzag.paths import plan_path
from zigzag.solvers import Solver, StepInfo

__all__ = ["matched_cfg"]


def matched_cfg(
    method: Method | Sequence[Move], solver: Solver, strong: float | Guidance = 5.5, weak: float | Guidance = 0.0
) -> CFG:
    r"""The scale of plain CFG, step by step, that equals `method` wherever the field is constant.

    On a field whose branches do not depend on the state, a path only adds up multiples of the gap `e_c − e_∅`. This
    walks the path with that one number `G` in place of the state, through memory and all, and reads off `G_j` where it
    last came down to each knot. Plain guidance, with `r_i` of its own memory, makes the same way with

    .. math:: w'_i = (G_j - a_i\,G_i - r_i)/b_i

    On a solver without memory that is `s + (a_i/b_i)(G̃_i − G_i)`, with `G̃_i` where the path leaves knot `i` for good:
    for span 1 that is `s + rounds·(s − w)`; `ImplicitZ` and `Z2Sampling` have `2s − w`, steps that are not active `s`.
    A Renoise puts fresh noise in the place of what was removed, and so adds no gap: Resampling has `s`.

    Returns:
        A `CFG` whose scale is a function of the step `i → i + 1`, to be used with `Standard`; of scales that differ by
        sample, one a sample, in float64 on the host.

    Raises:
        TypeError: if a guidance is not linear in the gap, and so has no scale; for a strength that depends on the
            state, and a plain Denoise.
        ValueError: for a path as in `walk`, one whose Denoise moves do not lead from its first knot to its last, and
            one that inverts by other coefficients than the step's (`released=True`): it rescales the state as well,
            and no scale of plain guidance does that.
    """
    s, w = _scale("strong", strong), _scale("weak", weak)
    path, steps = plan_path(method, solver)
    first, last = path[0].start, path[-1].end
    zero = torch.zeros((), dtype=torch.float64, device="cpu")
    kept = Held(_nothing)
    # left[i]: G when the path last left knot i downward.
    # entered[j]: the knot i from which it last came down to j, and G there.
    G, gap = zero, zero
    left: dict[int, Tensor] = {first: zero}
    entered: dict[int, tuple[int, Tensor]] = {}
    for move, held in zip(path, steps, strict=True):
        step = held.step
        match move:
            case Denoise(i, j, plain):
                if plain:
                    raise TypeError(f"{move!r} has no matched scale: a plain role is not one of two scales")
                e = zero + s(solver.info(i, j))  # of both evaluations, where the step makes two
                gap, left[i] = e - w(solver.info(i, j)), G
                r = kept.remainder(held, G)
                if held.leaves:
                    kept.leave(i, solver.remember(i, G, e))
                G = step.forward(G, e, r)
                entered[j] = i, G
            case Invert(j, i, _, coefficients, strength):
                if coefficients not in (None, (i, j)):
                    raise ValueError(f"{move!r} has no matched scale: its coefficients do not undo the step {i} -> {j}")
                G = step.inverse(G, zero + w(solver.info(i, j)), kept.remainder(held, G))
                G = torch.lerp(left.get(i, zero), G, float(strength))
            case Shift(i, fresh, strength):
                if not isinstance(strength, Real):
                    raise TypeError(f"{move!r} has no matched scale: its strength depends on the state")
                at = solver.info(i)
                gap = zero + s(at) - w(at) if fresh else gap
                G = step.shift(G, float(strength) * gap)
            case Renoise(_, i):
                G = left.get(i, zero)

    down: list[tuple[int, int]] = []
    j = last
    while j != first:
        if j not in entered:
            raise ValueError(f"the Denoise moves of {method!r} do not lead from knot {first} to knot {last}")
        down.append((entered[j][0], j))
        j = entered[j][0]
    # Plain guidance goes the same way, with what it leaves in its own memory.
    scales: dict[tuple[int, int], Scale] = {}
    straight, kept, G = [Denoise(*knots) for knots in reversed(down)], Held(_nothing), zero
    for move, held in zip(straight, steps_of(straight, solver), strict=True):
        to, r = entered[move.j][1], kept.remainder(held, G)
        e = zero + s(solver.info(move.i, move.j))
        scale = e + (to - held.step.forward(G, e, r)) / held.step.b  # exactly e, where nothing was injected
        if held.leaves:
            kept.leave(move.i, solver.remember(move.i, G, scale))
        scales[move.i, move.j], G = scale if scale.ndim else float(scale), to

    def matched(step: StepInfo) -> Scale:
        if (step.i, step.j) not in scales:
            raise ValueError(f"no matched scale for the step {step.i} -> {step.j}: the method never makes it")
        return scales[step.i, step.j]

    return CFG(matched)


def _nothing(G: Tensor, interval: tuple[int, int] | None) -> Tensor:
    """What noise adds of the gap."""
    return torch.zeros_like(G)


def _scale(name: str, value: float | Guidance) -> Callable[[StepInfo], Tensor]:
    guidance = as_guidance(name, value)
    if not isinstance(guidance, LinearGuidance):
        raise TypeError(f"{name}={guidance!r} is not linear in the gap: it has no matched scale")
    return lambda step: torch.as_tensor(guidance.at(step), dtype=torch.float64, device="cpu").detach()
