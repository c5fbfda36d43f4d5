"""What a pipeline asks of its scheduler about the level where the state is: its input's scale, and noised images."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from zigzag.adapters.diffusers.answering import Answering
from zigzag.adapters.diffusers.plans import Plan
from zigzag.adapters.diffusers.probing import scaled_within
from zigzag.adapters.diffusers.timesteps import plain

__all__ = ["noised", "noised_by_call", "scaled", "stand_at"]


def stand_at(scheduler: Any, call: int) -> None:
    """Tells a scheduler that counts its steps: it scales the model's input, and noises a background, by the count."""
    if hasattr(scheduler, "_step_index"):
        scheduler._step_index = call


def scaled(
    scheduler: Any, plan: Plan, loop: Answering, original: Callable[..., Tensor], args: Any, kwargs: dict[str, Any]
) -> Tensor:
    """`scale_model_input` for the next call of the loop. The scheduler has its own grid."""
    call = plan.layout.call(loop.asked[loop.calls])
    if (first := plan.layout.first_of(call)) != call:
        return scaled_within(scheduler, first, *args, **kwargs)
    return original(*args, **kwargs)


def noised(
    scheduler: Any,
    plan: Plan | None,
    loop: Answering | None,
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


def noised_by_call(
    scheduler: Any, calls: Sequence[int | None], original: Callable[..., Tensor], args: Any, kwargs: dict[str, Any]
) -> Tensor:
    """An image noised for all of a loop at once: to the level of the state at each of its model calls.

    calls: which of the scheduler's calls that state stands at; None where it is data.
    """
    given = inspect.signature(original).bind(*args, **kwargs)
    name = "timesteps" if "timesteps" in given.arguments else "timestep"
    at = torch.tensor([0 if call is None else call for call in calls], device=scheduler.timesteps.device)
    given.arguments[name] = scheduler.timesteps[at]
    out = original(*given.args, **given.kwargs)
    clean: Tensor = given.args[0]
    data = torch.tensor([call is None for call in calls], device=out.device)
    return clean.to(out).where(data.reshape(-1, *(1,) * (out.ndim - 1)), out) if None in calls else out
