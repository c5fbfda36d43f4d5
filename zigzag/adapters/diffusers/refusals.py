"""Schedulers whose steps no solver makes: why, and what to take instead."""

from __future__ import annotations

import inspect
from typing import Any, Final

from zigzag.adapters.diffusers.knots import Chain
from zigzag.adapters.diffusers.rehearsal import Mismatch
from zigzag.adapters.diffusers.remedies import Refused, Remedy, others
from zigzag.adapters.diffusers.stepping import Fails, NotLinear, config_of, name_of

__all__ = ["of_bending", "of_grid", "of_leading", "of_rehearsal", "of_steps", "of_upward"]

CLAMPS: Final = ("thresholding", "clip_sample", "clip_denoised")


def of_rehearsal(scheduler: Any, error: NotLinear) -> Refused:
    """For a step that has no coefficients."""
    times, N = scheduler.timesteps, config_of(scheduler).get("num_train_timesteps")
    if hasattr(scheduler, "alphas_cumprod") and len(times) and isinstance(N, int) and float(times.max()) >= N:
        why = f"begins at time step {int(times.max())}, which lies outside its training table of {N}"
        return Refused(scheduler, why, (), "fewer steps, or a smaller steps_offset")
    table = getattr(scheduler, "alphas_cumprod", None)
    if table is not None and config_of(scheduler).get("prediction_type") == "epsilon" and float(table[-1]) == 0:
        also = ", which starts below, or a model of v_prediction"
        return Refused(
            scheduler,
            f"begins at time step {int(times[0])}, where alpha is 0 (rescale_betas_zero_snr), and ε says nothing of "
            "the data",
            [_changed(scheduler, also, timestep_spacing="leading")],
            "a model of v_prediction",
        )
    variance = _own(scheduler).get("variance_type")
    if isinstance(variance, str) and variance.startswith("learned"):
        fixed = {"variance_type": "fixed_small", "clip_sample": False, "thresholding": False}
        return Refused(
            scheduler,
            f"takes a learned variance beside the prediction (variance_type={variance!r}), in whose exponent the "
            "noise is not linear",
            [_changed(scheduler, ", for a pipeline that drops the variance", **fixed)],
        )
    reason = f"has no steps a·x + b·e + r that could be read off it: {error}"
    if isinstance(error, Fails):  # what its model gives, or its pipeline, is not what another scheduler takes
        return Refused(scheduler, reason, ())
    remedies = [_changed(scheduler, solver_type="bh2")] if _own(scheduler).get("solver_type") == "bh1" else []
    return Refused(scheduler, reason, [*remedies, *others(scheduler)])


def of_bending(scheduler: Any, mismatch: Mismatch) -> Refused:
    """For a step that is not affine, as far as the configuration tells."""
    causes = [name for name in CLAMPS if _own(scheduler).get(name)]
    why = f"{causes[0]}=True clamps the predicted x0" if causes else "something in it is not linear"
    unclamped = [Remedy(name_of(scheduler), dict.fromkeys(causes, False))] if causes else []
    return Refused(scheduler, _bent(scheduler, mismatch, why), [*unclamped, *others(scheduler)])


def of_steps(scheduler: Any, error: NotLinear) -> Refused:
    """For calls that are no steps of one evaluation or two."""
    if _own(scheduler).get("skip_prk_steps") is False:
        changed = _changed(scheduler, skip_prk_steps=True)
        why = "begins with Runge-Kutta steps: they are of four model calls each, and steps of two are led"
        return Refused(scheduler, why, [changed, *others(scheduler)])
    return Refused(scheduler, f"has steps that cannot be led: {error}", others(scheduler))


def of_leading(scheduler: Any, k: int, chain: Chain) -> Refused:
    """For a step that goes elsewhere than to the next time step."""
    times, config = scheduler.timesteps.tolist(), config_of(scheduler)
    if config.get("prediction_type") == "flow_prediction" and config.get("use_flow_sigmas") is False:
        why = "prediction_type='flow_prediction' with use_flow_sigmas=False is neither a flow nor a diffusion"
        return Refused(scheduler, f"has no chain of knots: {why}", [_changed(scheduler, use_flow_sigmas=True)])
    why = f"goes from time step {times[k]:g} elsewhere than to the next one, {times[k + 1]:g}"
    spacing, N, T = config.get("timestep_spacing"), config.get("num_train_timesteps", 0), len(times)
    if spacing not in ("linspace", "trailing"):
        return Refused(scheduler, why, others(scheduler))
    why += f": its step goes down by {N}//{T} = {N // T} under timestep_spacing={spacing!r} too"
    also = ""
    if spacing == "trailing":
        divisors = [n for n in range(1, N + 1) if N % n == 0]
        below, above = max(n for n in divisors if n <= T), min(n for n in divisors if n >= T)
        also = f", or a number of steps that divides {N}, such as {below} or {above}"
    return Refused(scheduler, why, [_changed(scheduler, also, timestep_spacing="leading"), *others(scheduler)])


def of_upward(scheduler: Any) -> Refused:
    """For a grid from data to noise."""
    reason = "runs from data to noise; an image is inverted by Inversion(...), on a scheduler that runs down"
    return Refused(scheduler, reason, [Remedy("DDIMScheduler", {"clip_sample": False}), *others(scheduler)])


def of_grid(scheduler: Any, chain: Chain, error: ValueError) -> Refused:
    """For knots that do not run strictly from noise to data."""
    if _own(scheduler).get("skip_prk_steps") is False:
        return of_steps(scheduler, NotLinear(str(error)))
    reason = f"has a grid on which there is no solver: {error}"
    return Refused(scheduler, reason, others(scheduler), "another number of steps, or spacing, or method Standard()")


def _bent(scheduler: Any, mismatch: Mismatch, why: str) -> str:
    time = float(scheduler.timesteps[mismatch.k])
    return (
        f"has no affine steps: step {mismatch.k}, at time step {time:g}, is off a·x + b·e + r by {mismatch.error:.1g} "
        f"of its terms; {why}"
    )


def _own(scheduler: Any) -> dict[str, Any]:
    # A configuration made from another class's keeps that class's keys, which say nothing of this one.
    own = inspect.signature(type(scheduler).__init__).parameters
    return {key: value for key, value in config_of(scheduler).items() if key in own}


def _changed(scheduler: Any, also: str = "", **changes: Any) -> Remedy:
    return Remedy(name_of(scheduler), changes, also)
