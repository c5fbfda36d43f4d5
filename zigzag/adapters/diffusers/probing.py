"""What a scheduler does to the model's input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zigzag.adapters.diffusers.stepping import Caller, begun_at, emptied, name_of

__all__ = ["input_factors", "scaled_within"]


def input_factors(scheduler: Any) -> Tensor | None:
    """`(T,)` float64: what `scale_model_input` multiplies the state by at each time step; None if it never does.

    Raises:
        ValueError: where two equal time steps scale differently (the time then does not tell which), or the grid of
            a scheduler that scales has not been set.
    """
    if not hasattr(scheduler, "scale_model_input"):
        return None
    new, factors = begun_at(emptied(scheduler), 0), []
    step, zero = Caller(new, {}), torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    for k, t in enumerate(new.timesteps):
        if hasattr(new, "_step_index"):
            new._step_index = k
        factors.append(float(type(new).scale_model_input(new, torch.ones((), dtype=torch.float64), t)))
        if hasattr(type(new), "state_in_first_order"):  # of two halves of a step, told apart by what was stepped
            step(zero, zero, k)
    if all(factor == 1 for factor in factors):
        return None
    if getattr(scheduler, "num_inference_steps", None) is None:
        raise ValueError(
            f"scheduler: {name_of(scheduler)} scales the model's input by its grid, which has not been set; call "
            "scheduler.set_timesteps first"
        )
    told: dict[float, float] = {}
    for t, factor in zip(new.timesteps.tolist(), factors, strict=True):
        if told.setdefault(t, factor) != factor:
            raise ValueError(
                f"scheduler: {name_of(scheduler)} scales the model's input at time step {t:g} by both {told[t]:.4g} "
                f"and {factor:.4g}, and a predictor is told the time only; raise sigma_min, or take fewer steps"
            )
    return torch.tensor(factors, dtype=torch.float64)


def scaled_within(scheduler: Any, first: int, sample: Tensor, t: Any) -> Tensor:
    """`scale_model_input` at the second call of the step that begins with call `first`.

    Some schedulers (KDPM2) tell the two halves apart by having stepped, so that a copy does.
    """
    new = begun_at(scheduler, first, live=True)
    Caller(new, {})(torch.zeros_like(sample), torch.zeros_like(sample), first)
    scaled: Tensor = type(new).scale_model_input(new, sample, t)
    return scaled
