"""Where a method leads a part of a scheduler's grid, in the scheduler's own model calls."""

from __future__ import annotations

from collections.abc import Sequence

from zigzag.adapters.diffusers.cast import Cast, Pass, passes_of
from zigzag.adapters.diffusers.layout import Part
from zigzag.adapters.diffusers.loop import check_steps, moves_of
from zigzag.adapters.diffusers.plans import Plan
from zigzag.adapters.diffusers.ways import Way
from zigzag.adapters.hosts import Whole, is_plain, moved
from zigzag.methods import Method, Standard, Steered, is_steered
from zigzag.moves import Move
from zigzag.paths import plan_path

__all__ = ["asks_on", "check_whole", "is_standard", "path_on", "steered_on", "stood_on"]


def path_on(
    method: Method | Sequence[Move], plan: Plan | None, start: int, count: int
) -> tuple[tuple[Move, ...], Part]:
    """The moves on a part of the grid, of `count` times from `start` on, from its own knot 0; and where it is.

    plan: of the scheduler's steps; None where they are left to the scheduler.
    """
    part = Part(start, count) if plan is None else plan.layout.part(start, count)
    return moves_of(method, part.steps), part


def steered_on(method: Steered, plan: Plan, start: int, count: int) -> tuple[Steered, Part]:
    """A method that is steered, on that part, and where it is."""
    part = plan.layout.part(start, count)
    check_steps(part.steps)
    return Whole(method, part.steps, "a pipeline", part.knot), part


def asks_on(
    method: Method | Steered | Sequence[Move], cast: Cast, plan: Plan | None, start: int, count: int
) -> Sequence[int]:
    """Of every pass on that part: which of its times the model is told.

    Of a method that is steered that is not known before the loop, and until then it is said to go straight down.
    """
    if is_steered(method):
        return range(count)
    passes = _passes_on(method, cast, plan, start, count)
    return range(count) if passes is None or plan is None else [plan.layout.call(p.told) - start for p in passes]


def stood_on(
    method: Method | Steered | Sequence[Move], cast: Cast, plan: Plan, start: int, count: int
) -> list[int | None]:
    """Of every pass on that part: at which of the scheduler's calls its state stands; None where it is data.

    Raises:
        ValueError: for a method that is steered, of which that is not known before the loop.
    """
    if is_steered(method):
        raise ValueError(
            f"the pipeline noises its image for all calls of its loop before the first, and {method!r} is steered by "
            "its walk, so that they are not known then; pass a method with path(T)"
        )
    passes = _passes_on(method, cast, plan, start, count)
    if passes is None:
        return [*range(start, start + count)]
    return [None if p.stood is None else plan.layout.call(p.stood) for p in passes]


def _passes_on(
    method: Method | Sequence[Move], cast: Cast, plan: Plan | None, start: int, count: int
) -> list[Pass] | None:
    """The passes on that part; None where it is left to the scheduler."""
    path, part = path_on(method, plan, start, count)
    if is_plain(path) or plan is None:
        return None
    laid, steps = plan_path([moved(move, part.knot) for move in path], plan.solver)
    return passes_of(laid, steps, len(plan.solver), cast)


def check_whole(plan: Plan, start: int, count: int) -> None:
    """Raises ValueError for less than the whole grid, along which an inversion runs."""
    if (part := plan.layout.part(start, count)) != (0, len(plan.solver)):
        raise ValueError(
            f"an inversion runs along the whole grid of {len(plan.solver)} steps, and the pipeline's loop along "
            f"{part.steps} of them from knot {part.knot} on; leave out strength, denoising_start and denoising_end"
        )


def is_standard(method: Method | Steered | Sequence[Move] | Way, steps: int | None = None) -> bool:
    """Whether the method is standard sampling, on so many steps, or whatever their number (None)."""
    if isinstance(method, Way) or is_steered(method):
        return False
    if steps is None:
        return isinstance(method, Standard) or (isinstance(method, Sequence) and is_plain(method))
    try:
        return is_plain(moves_of(method, steps))
    except ValueError:
        return False
