"""What a pipeline asks of its scheduler about the level where the state is: its input's scale, and noised images."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor

from zigzag.adapters.diffusers.loop import Loop
from zigzag.adapters.diffusers.plans import Plan
from zigzag.adapters.diffusers.probing import scaled_within
from zigzag.adapters.diffusers.timesteps import plain

__all__ = ["noised", "scaled", "stand_at"]


def stand_at(scheduler: Any, call: int) -> None:
    """Tells a scheduler that counts its steps: it scales the model's input, and noises a background, by the count."""
    if hasattr(scheduler, "_step_index"):
        scheduler._step_index = call


def scaled(
    scheduler: Any, plan: Plan, loop: Loop, original: Callable[..., Tensor], args: Any, kwargs: dict[str, Any]
) -> Tensor:
    """`scale_model_input` for the next call of the loop. The scheduler has its own grid."""
    call = plan.layout.call(loop.asked[loop.calls])
    if (first := plan.layout.first_of(call)) != call:
        return scaled_within(scheduler, first, *args, **kwargs)
    return original(*args, **kwargs)


def noised(
    scheduler: Any,
    plan: Plan | None,
    loop: Loop | None,
    original: Callable[..., Tensor],
    args: Any,
    kwargs: dict[str, Any],
) -> Tensor:
    """A blend of a noised image into the latents, asked for at the next call's time: at the knot where they are.

    The scheduler has its own grid. Without a loop that has begun, or at another time than the next call's (a callback's
    own), what is asked for.
    """
    given = inspect.signature(original).bind(*args, **kwargs)
    name = "timesteps" if "timesteps" in given.arguments else "timestep"
    asked = given.arguments[name] = plain(given.arguments[name])
    if loop is None or plan is None or not loop.calls:
        return original(*given.args, **given.kwargs)
    times, place = scheduler.timesteps, loop.place
    at = len(times) if place is None else plan.layout.call(place)
    stand_at(scheduler, at)
    told = times[plan.layout.call(loop.asked[min(loop.calls, len(loop.asked) - 1)])]
    if bool((asked == told.to(asked.device)).all()):
        if place is None:
            clean: Tensor = given.args[0]
            return clean
        given.arguments[name] = times[at].expand(asked.shape)
    return original(*given.args, **given.kwargs)
