"""Schedulers whose steps no affine solver makes: why, and what to take instead."""

from __future__ import annotations

import inspect
from typing import Any, Final, NamedTuple

__all__ = ["Refusal", "refusal_of"]


class Refusal(NamedTuple):
    """Why a scheduler is refused, and the nearest one that works."""

    reason: str
    instead: str


DDIM: Final = "DDIMScheduler.from_config(scheduler.config, clip_sample=False, timestep_spacing='leading')"
EULER: Final = "EulerDiscreteScheduler.from_config(scheduler.config)"
ORDER_1: Final = "DPMSolverMultistepScheduler.from_config(scheduler.config, solver_order=1)"
FLOW: Final = "FlowMatchEulerDiscreteScheduler.from_config(scheduler.config)"

NOISE: Final = "adds fresh noise at every step, which has no inverse"
HISTORY: Final = "combines the predictions of several steps, so that no step is a·x + b·e of its own state"
INNER: Final = "evaluates the model twice a step, and its second update starts from a state it has kept"
UPWARD: Final = "runs from data to noise"

REFUSED: Final = {
    "CMStochasticIterativeScheduler": Refusal(NOISE, EULER),
    "CogVideoXDPMScheduler": Refusal(f"{HISTORY}, and {NOISE}", "CogVideoXDDIMScheduler.from_config(scheduler.config)"),
    "CosineDPMSolverMultistepScheduler": Refusal(f"{HISTORY}, and {NOISE}", "zigzag.DDIM.karras"),
    "DDIMInverseScheduler": Refusal(UPWARD, f"{DDIM} and a path of Invert moves"),
    "DDPMParallelScheduler": Refusal(NOISE, DDIM),
    "DDPMScheduler": Refusal(NOISE, DDIM),
    "DDPMWuerstchenScheduler": Refusal(NOISE, DDIM),
    "DEISMultistepScheduler": Refusal(HISTORY, ORDER_1),
    "DPMSolverMultistepInverseScheduler": Refusal(UPWARD, f"{ORDER_1} and a path of Invert moves"),
    "DPMSolverSDEScheduler": Refusal(NOISE, EULER),
    "EDMDPMSolverMultistepScheduler": Refusal(HISTORY, "zigzag.DDIM.karras"),
    "EDMEulerScheduler": Refusal(
        "preconditions the model's output by sigma_data, which is neither ε, v nor flow",
        "zigzag.DDIM.karras, with a predictor that applies the preconditioning",
    ),
    "EulerAncestralDiscreteScheduler": Refusal(NOISE, EULER),
    "FlowMatchHeunDiscreteScheduler": Refusal(INNER, FLOW),
    "FlowMatchLCMScheduler": Refusal(NOISE, FLOW),
    "HeunDiscreteScheduler": Refusal(INNER, EULER),
    "IPNDMScheduler": Refusal(HISTORY, DDIM),
    "KDPM2AncestralDiscreteScheduler": Refusal(NOISE, EULER),
    "KDPM2DiscreteScheduler": Refusal(INNER, EULER),
    "LCMScheduler": Refusal(NOISE, DDIM),
    "LMSDiscreteScheduler": Refusal(HISTORY, EULER),
    "LTXEulerAncestralRFScheduler": Refusal(NOISE, FLOW),
    "PNDMScheduler": Refusal(HISTORY, DDIM),
    "RePaintScheduler": Refusal(NOISE, f"{DDIM} and zigzag.Resampling"),
    "SASolverScheduler": Refusal(f"{HISTORY}, and {NOISE}", ORDER_1),
    "SCMScheduler": Refusal(NOISE, "FlowMatchEulerDiscreteScheduler with a model that is not distilled"),
    "TCDScheduler": Refusal(NOISE, DDIM),
    "UnCLIPScheduler": Refusal(NOISE, DDIM),
    "UniPCMultistepScheduler": Refusal(f"{HISTORY}, and its corrector undoes most of a shift of the state", ORDER_1),
}


def refusal_of(scheduler: Any) -> Refusal | None:
    """The refusal of a scheduler by its class or by its configuration; None where nothing is known against it."""
    for cls in type(scheduler).__mro__:
        if cls.__name__ in REFUSED:
            refusal = REFUSED[cls.__name__]
            shift = scheduler.config.get("flow_shift", scheduler.config.get("shift", 1.0))
            flows = scheduler.config.get("prediction_type") == "flow_prediction"
            return refusal._replace(instead=f"FlowMatchEulerDiscreteScheduler(shift={shift:g})") if flows else refusal
    return _by_configuration(scheduler)


def _by_configuration(scheduler: Any) -> Refusal | None:
    # A configuration made from another class's keeps that class's keys, which say nothing of this one.
    own = inspect.signature(type(scheduler).__init__).parameters
    config = {key: value for key, value in scheduler.config.items() if key in own}
    changed = f"{type(scheduler).__name__}.from_config(scheduler.config, {{}})"
    if config.get("algorithm_type", "").startswith("sde-"):
        algorithm = config["algorithm_type"].removeprefix("sde-")
        return Refusal(NOISE, changed.format(f"algorithm_type='{algorithm}', solver_order=1"))
    if config.get("solver_order", 1) != 1:
        return Refusal(HISTORY, changed.format("solver_order=1"))
    if config.get("stochastic_sampling"):
        return Refusal(NOISE, changed.format("stochastic_sampling=False"))
    if config.get("invert_sigmas"):
        return Refusal(
            "counts σ up from noise to data (invert_sigmas)",
            changed.format("invert_sigmas=False") + ", with a predictor that negates the model and tells it 1000 − t",
        )
    if config.get("prediction_type") in ("sample", "original_sample"):
        return Refusal(
            "takes predictions of x₀, whose last step keeps nothing of the state (a = σ_j/σ_i = 0) and has no inverse",
            changed.format("prediction_type='epsilon'") + ", and adapt_prediction(eps_fn, solver, 'x0')",
        )
    return None
