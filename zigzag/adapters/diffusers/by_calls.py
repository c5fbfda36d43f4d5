"""Pipelines that go by the number of their loop's calls, which is not that of the steps: refused beforehand."""

from __future__ import annotations

import inspect
import math
from typing import Any, Final

__all__ = ["GUIDERS", "refuse_by_calls", "refuse_tabled", "takes"]

GUIDERS: Final = ("guider", "guider_2", "ocr_guider")  # as pipelines name them

# What pipelines do by the share of their loop's calls, by the argument that shows it.
DOSED: Final = {
    "control_guidance_start": "doses its ControlNet",
    "cfg_trunc_ratio": "ends its guidance",
    "gligen_scheduled_sampling_beta": "grounds its objects",
}

# What pipelines look up by the number of the call in tables of a row a step, by the arguments that show it.
TABLED: Final = {
    ("image_latents", "inpaint_strength"): "blends its state with one latent image for each time step and looks it up",
    ("edit_momentum_scale",): "keeps its estimates in tables of num_inference_steps + 1 rows and looks them up",
    ("guidance_schedule",): "lays out a guidance scale for each of its steps and looks it up",
}


def refuse_by_calls(pipe: Any, *, steps: int, calls: int | None, entered: bool) -> None:
    """Raises ValueError for a pipeline that so many `calls` on so many `steps` lead wrong, as it counts them.

    calls: None is not known. entered: whether the path begins below knot 0, so that a call's number is not its step's.
    """
    if calls is None or calls > steps or entered:
        _refuse_counting(pipe, so := _makes(calls, steps))
        _refuse_stepwise(pipe, so)
        _refuse_projecting(pipe, math.inf if calls is None or entered else calls - 1, so)
    if calls is None:
        _refuse_sharing(pipe)


def refuse_tabled(pipe: Any, *, steps: int, calls: int) -> None:
    """Raises ValueError for a pipeline that has something for each of so many `steps`, which are drawn out to `calls`.

    Said when its times are cut, for it may hold that against their number before its loop.
    """
    if calls > steps:
        _refuse_tables(pipe, _makes(calls, steps))


def _makes(calls: int | None, steps: int) -> str:
    number = "as many calls as its walk asks for" if calls is None else f"{calls} calls"
    return f"and the method makes {number} on {steps} steps"


def _refuse_counting(pipe: Any, so: str) -> None:
    if any(cls.__name__ == "ModularPipeline" for cls in type(pipe).__mro__):
        raise ValueError(
            f"a modular pipeline tells its guider the call's number and the number of steps, {so}: in the calls "
            "beyond that number guidance would be off; use a method of one call a step (Z2Sampling, Standard), or the "
            "pipeline of the model that is not modular"
        )
    _refuse_tables(pipe, so)
    if getattr(pipe, "adapter", None) is not None and takes(pipe, "adapter_conditioning_factor"):
        raise ValueError(
            f"{type(pipe).__name__} drops its adapter at the call whose number is adapter_conditioning_factor times "
            f"the number of steps, {so}: the last of them would run without it; use a method of one call a step "
            "(Z2Sampling, Standard), or ControlNet"
        )
    if "MomentumBuffer" in inspect.unwrap(type(pipe).__call__).__code__.co_names:
        raise ValueError(
            f"{type(pipe).__name__} guides by a momentum over the calls of its loop, {so}: those before would be of "
            "other steps, and several of one; use a method of one call a step (Z2Sampling, Standard)"
        )


def _refuse_tables(pipe: Any, so: str) -> None:
    for what in (what for names, what in TABLED.items() if takes(pipe, *names)):
        raise ValueError(
            f"{type(pipe).__name__} {what} by the call's number, {so}; use a method of one call a step "
            "(Z2Sampling, Standard)"
        )


def _refuse_stepwise(pipe: Any, so: str) -> None:
    for name in GUIDERS:
        guider = getattr(pipe, name, None)
        start, stop = (float(getattr(guider, side, at)) for side, at in (("_start", 0.0), ("_stop", 1.0)))
        if (start, stop) != (0.0, 1.0) or getattr(guider, "zero_init_steps", None):
            raise ValueError(
                f"the pipeline tells its {name}, {type(guider).__name__}, the number of the call, by which it guides "
                f"from {start:g} to {stop:g} of the steps only, {so}: it would guide at other steps; set start=0, "
                "stop=1 (and zero_init_steps=0), or use a method of one call a step (Z2Sampling, Standard)"
            )


def _refuse_projecting(pipe: Any, last: float, so: str) -> None:
    """Of guiders that project, which they may do from a call on, and on what they have seen at the calls before.

    last: the number of the last call.
    """
    for name in GUIDERS:
        guider = getattr(pipe, name, None)
        start = getattr(guider, "adaptive_projected_guidance_start_step", -1)
        momentum = getattr(guider, "adaptive_projected_guidance_momentum", None)
        if start < last and (start >= 0 or momentum is not None):
            since = f" from call {start + 1} on" if start >= 0 else ""
            over = f", at a momentum of {momentum} over the calls before" if momentum is not None else ""
            raise ValueError(
                f"the pipeline's {name}, {type(guider).__name__}, projects its guidance{since}{over}, {so}: those "
                "would be of other steps, and several of one; use a method of one call a step (Z2Sampling, Standard), "
                "or ClassifierFreeGuidance"
            )


def _refuse_sharing(pipe: Any) -> None:
    """Of pipelines that have to know the number of the calls beforehand."""
    does = [what for name, what in DOSED.items() if takes(pipe, name)]
    does += [f"switches its {name}" for name in GUIDERS if getattr(pipe, name, None) is not None]
    so = "and of a method that is steered by its walk they are not known beforehand"
    for what in does:
        raise ValueError(
            f"{type(pipe).__name__} {what} by the share of its loop's calls, {so}; pass a method with path(T)"
        )
    if (until := getattr(pipe, "_cfg_truncation", None)) is not None and until <= 1:
        raise ValueError(
            f"{type(pipe).__name__} lays out where its cfg_truncation is for its loop's calls, {so}; pass "
            "cfg_truncation=None (1 truncates nothing), or a method with path(T)"
        )


def takes(pipe: Any, *names: str) -> bool:
    """Whether a pipeline is called with arguments of all these names."""
    return set(names) <= set(inspect.signature(type(pipe).__call__).parameters)
