"""Pipelines, and models in them, that a path leads wrong: refused before the first model call."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

import torch
from torch import Tensor, nn

from zigzag.adapters.diffusers.answering import Answering
from zigzag.adapters.diffusers.by_calls import GUIDERS, refuse_by_calls, takes
from zigzag.adapters.diffusers.roles import Role
from zigzag.adapters.diffusers.stepping import name_of

__all__ = [
    "UNLED", "UNTIMED", "at_data", "check_dose", "check_led", "explain_missing", "refuse_caches", "refuse_copy",
    "refuse_kept", "refuse_other_loops", "refuse_per_token", "refuse_perturbed", "refuse_unfit",
    "same_time", "warn_of_corrector",
]  # fmt: skip

# What the names of diffusers' hooks that cache across time steps have in them.
CACHES: Final = ("cache", "fbc_", "broadcast")

# What a guider of diffusers (`diffusers.guiders`) evaluates, where it joins a conditional and an unconditional branch.
BRANCHES: Final = {"pred_cond", "pred_uncond"}


# What pipelines do that make other loops, by the arguments that show it.
LOOPS: Final = {
    ("motion_field_strength_x",): "draws its first frame over parts of its grid, and all of them from the middle on "
    "with a copy of its scheduler",
    ("cross_attention_guidance_amount",): "samples twice along its grid, and the second time to the attention of the "
    "first, which it looks up by the time",
    ("parallel", "tolerance"): "steps many times of its grid at once, by batch_step_no_noise",
}  # fmt: skip

UNLED: Final = (
    "the pipeline's model was called, and no step of its scheduler followed that attach could lead: it steps a copy of "
    "the scheduler, or another one (an inner pipeline's), or runs over time steps set before the block; attach to the "
    "pipeline whose scheduler it steps, or use method Standard()"
)
UNTIMED: Final = (
    "the pipeline's loop does not run over its scheduler's timesteps, so that attach cannot lead it; only method "
    "Standard() works"
)


def refuse_copy() -> NoReturn:
    """Raises RuntimeError for the step of a copy of the scheduler, or of another one."""
    raise RuntimeError(
        "the pipeline steps a copy of its scheduler, or another one, and not for a further state that its model "
        "predicts together with the first (but for a view, or a frame, or on another grid), so that attach cannot lead "
        "it; only method Standard() works"
    )


def refuse_other_loops(pipe: Any) -> None:
    """Raises RuntimeError for a pipeline that makes no loop of one state along its scheduler's steps.

    Said when the grid is set, for some show that only after a loop that could be led.
    """
    for what in (what for names, what in LOOPS.items() if takes(pipe, *names)):
        raise RuntimeError(f"{type(pipe).__name__} {what}, so that attach cannot lead it; only method Standard() works")


def refuse_per_token(extras: Mapping[str, Any]) -> None:
    """Raises ValueError for what goes to the scheduler's step entry by entry: a time for each token, a noise."""
    for name, value in extras.items():
        if name == "variance_noise" and value is not None:
            raise ValueError(
                "the pipeline passes variance_noise to its scheduler's step, a noise that it makes itself at each of "
                "its rounds, and attach draws the noise of each step, to hold it in a zigzag; use method Standard()"
            )
        if isinstance(value, Tensor) and (value.numel() > 1 or value.ndim > 1):
            raise ValueError(
                f"the pipeline passes {name}, of shape {tuple(value.shape)}, to its scheduler's step: a level for each "
                "token, and attach leads all of a state from one level to the next; use method Standard(), or the "
                "pipeline of the model without conditions (LTXPipeline for LTXConditionPipeline)"
            )


def refuse_unfit(
    pipe: Any, models: Sequence[nn.Module], *, steps: int, calls: int | None, named: bool = True, entered: bool = False
) -> None:
    """Raises ValueError for a pipeline that a path of so many `calls` on so many `steps` would lead wrong.

    Those are: a model with a cache; where two branches are `named`, perturbed-attention guidance, which without an
    unconditional branch evaluates two all the same; and, where there are more calls than steps, pipelines that hold the
    counter of their loop against the number of steps, and so switch something off at the call of that number; also
    where the path has `entered` below knot 0, so that the call's number is not the step's. Where the number of calls is
    not known (None), also those that go by it.
    """
    refuse_caches(models)
    if named:
        refuse_perturbed(pipe)
    refuse_by_calls(pipe, steps=steps, calls=calls, entered=entered)


def refuse_caches(models: Sequence[nn.Module]) -> None:
    """Raises ValueError for a model that reuses what it computed at another time step (`enable_cache`, `apply_…`)."""
    for model in models:
        registries = (getattr(module, "_diffusers_hook", None) for module in model.modules())
        hooks = [name for registry in registries if registry is not None for name in registry.hooks]
        if getattr(model, "is_cache_enabled", False) or any(part in name for name in hooks for part in CACHES):
            raise ValueError(
                f"{type(model).__name__} has a cache enabled, which assumes that each time is visited once; call "
                "disable_cache() first"
            )


def refuse_perturbed(pipe: Any) -> None:
    """Raises ValueError for a pipeline whose second branch may be no unconditional one.

    Said when the grid is set, for then a pipeline with perturbed attention has not replaced its model's parts yet.
    """
    if getattr(pipe, "do_perturbed_attention_guidance", False):
        raise ValueError(
            "the pipeline does perturbed-attention guidance, whose perturbed prediction would be taken for the "
            "unconditional one; set pag_scale=0, or use method Standard()"
        )
    for name in GUIDERS:
        guider = getattr(pipe, name, None)
        others = set(getattr(guider, "_input_predictions", None) or ()) - BRANCHES
        if others:
            raise ValueError(
                f"the pipeline's {name}, {type(guider).__name__}, also takes {', '.join(sorted(others))}, which would "
                "be taken for the unconditional prediction; use a guider of two branches (ClassifierFreeGuidance), or "
                "method Standard()"
            )


def explain_missing(error: IndexError, method: object) -> NoReturn:
    """Raises RuntimeError, of a pipeline that has looked for something of a call which is not known yet."""
    raise RuntimeError(
        f"the pipeline looked for something of a call of its loop that it had not laid out ({error}), and {method!r} "
        "is steered by its walk, so that the calls are known one by one; pass a method with path(T)"
    ) from error


def check_led(loop: Answering, time: Any, told: Any, outputs: Sequence[Any], *, stepping: bool, taken: bool) -> None:
    """Raises RuntimeError unless the pipeline steps at the `told` time, in its turn, after a call of its model.

    taken: whether it has stepped at that time already.
    """
    if stepping and taken:
        raise RuntimeError(
            "the pipeline steps its scheduler more than once at one time (for several views, or frames, or in rounds "
            "of two), and attach leads one state; only method Standard() works"
        )
    if not stepping or loop.ended or not same_time(time, told):
        raise RuntimeError(
            "the pipeline's scheduler steps at other times than its loop is told, so that attach cannot lead it; "
            "only method Standard() works"
        )
    if not outputs:
        raise RuntimeError(
            "no call of the pipeline's model was seen before its scheduler's step, so that attach cannot lead it; "
            "a unet or transformer is to be replaced before the block, not within it"
        )


def refuse_reshaped(state: Tensor, sample: Tensor) -> NoReturn:
    """Raises ValueError for latents of another shape than was handed out, where the former ones are read later."""
    raise ValueError(
        f"the pipeline goes on with latents of another shape, {tuple(sample.shape)}, than it was given, "
        f"{tuple(state.shape)} (ChronoEdit's temporal reasoning drops frames, say), and the steps after read what was "
        "remembered, or drawn, at the former; switch that off, take a scheduler that remembers nothing "
        "(solver_order=1), or use method Standard()"
    )


def refuse_kept(name: str, role: Role, pipe: Any, given: Mapping[str, Any]) -> None:
    """Raises ValueError for a role whose calls a cache that the pipeline keeps would answer, with another role's."""
    layers = getattr(given.get("kv_caches"), "caches", ())
    if given.get("kv_cache_mode") is None and all(layer.mode is None for layer in layers):
        return
    switch = takes(pipe, "use_kv_cache")  # where there is one, the prompt is in the cache too
    if switch or role.adapters is not None or role.module is not None:
        what = "prompt and images" if switch else "images"
        instead = "pass use_kv_cache=False" if switch else "use a pipeline of the model without a cache, or no images"
        raise ValueError(
            f"{name}={role!r}: {type(pipe).__name__} keeps the keys and values of its {what} over the calls of a loop, "
            f"so that those of one role would be used for another; {instead}"
        )


def at_data(given: Mapping[str, Any]) -> bool:
    """Whether a call of the model is told time 0: of an image as it is, to fill a cache with (GLM-Image's sources)."""
    time = given.get("timestep")
    return isinstance(time, Tensor) and time.numel() > 0 and not bool(time.any())


def check_dose(doses: Sequence[Any]) -> None:
    """Raises ValueError where ControlNet's scale is not the same at every call of a loop that does not go down alone.

    A pipeline switches it by the share of its loop, which is not there the share of the way from noise to data.
    """
    if doses[-1] != doses[0]:
        raise ValueError(
            f"the pipeline doses its ControlNet by the share of its loop, {doses[0]} at the first call and {doses[-1]} "
            f"at call {len(doses) - 1}, and this loop does not run from noise to data alone; leave "
            "control_guidance_start and control_guidance_end out"
        )


def warn_of_corrector(scheduler: Any, method: object) -> None:
    """Says that a predictor-corrector only predicts."""
    warnings.warn(
        f"{name_of(scheduler)} runs without its corrector while {method!r} is attached: what a corrector makes of a "
        "state cannot be undone; method Standard() leaves it on",
        stacklevel=2,
    )


def same_time(time: Any, told: Any) -> bool:
    """Whether a pipeline's time, a number or a tensor of any shape, is the one told, for every entry."""
    if time is told or told is None:
        return time is told
    times = torch.as_tensor(time)
    return times.numel() > 0 and bool((times.detach().cpu().double() == float(told)).all())
