"""Solvers read off diffusers' schedulers, and held against what their `step` really does."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from diffusers import FlowMatchEulerDiscreteScheduler

from zigzag.adapters.diffusers.knots import PREDICTIONS
from zigzag.adapters.diffusers.plans import plan_of
from zigzag.adapters.diffusers.stepping import detached, name_of
from zigzag.solvers import Solver
from zigzag.solvers.grids import check_steps

__all__ = ["prediction_of", "solver_from_scheduler"]


def solver_from_scheduler(
    scheduler: Any,
    steps: int | None = None,
    *,
    timesteps: Sequence[float] | None = None,
    sigmas: Sequence[float] | None = None,
    mu: float | None = None,
    step_kwargs: Mapping[str, Any] | None = None,
) -> Solver:
    """The solver that steps as a diffusers scheduler does, on the scheduler's own grid and in its own prediction.

    Its coefficients are read off what `step` of a copy does, whatever the class: of `x_j = a·x + b·e`, of the
    predictions that a multistep solver remembers, and of noise. Where a solver of this library makes the same steps, to
    1e-6 of each coefficient, it is returned: `DDIM` (also with `eta`), `Spherical`, `FlowEuler`, `EulerV`, `DDPM`,
    `Ancestral`, `FlowAncestral`, `DPMSolver`, `AdamsBashforth`, `LCM`, `TCD`, `Heun`, `DPM2`; else the steps as they
    were read (`Rehearsed`; so of PNDM, IPNDM, SA-Solver, EDM Euler, SCM and churned Euler), which go from knot to next
    knot only. The affinity is checked on numbers of 0.1 to 100.

    The scheduler itself is neither stepped nor changed. A last step that does nothing is left out, and so is a
    corrector (UniPC, SA-Solver): no step can be undone after it. The state is the pipelines' latent, which begins as
    noise times `scheduler.init_noise_sigma`. Euler and its kin also scale the model's input: build the predictor with
    the same scheduler (`unet_predictor(unet, scheduler=scheduler)`).

    Args:
        scheduler: a diffusers scheduler. Without the next four its grid is the one that `set_timesteps` has set.
        steps, timesteps, sigmas, mu: what `set_timesteps` is to be called with, on a copy. Diffusers' `AysSchedules`
            go in as `timesteps` or `sigmas`; the pipelines of flow models pass `sigmas = linspace(1, 1/T, T)`, and
            `mu` where the configuration says `use_dynamic_shifting`.
        step_kwargs: what else `step` is called with (`eta`, `s_churn`), if it is.

    Raises:
        TypeError: for what is not a scheduler.
        ValueError: for a grid that is not set, or not in this way; for a scheduler that clamps, or whose steps are of
            more than two evaluations or do not lead to its next time step. Each says why, and what works.
    """
    if not all(hasattr(scheduler, name) for name in ("config", "step", "set_timesteps")):
        raise TypeError(f"scheduler must be a diffusers scheduler, got {scheduler!r}")
    return plan_of(_on_grid(scheduler, steps, timesteps=timesteps, sigmas=sigmas, mu=mu), step_kwargs).solver


def prediction_of(scheduler: Any) -> str | None:
    """What the scheduler's configuration says the model predicts, in this library's names; None if it does not say.

    Of EDM's it says what comes of the model's output, and of an inverted flow not that it runs the other way.
    """
    if hasattr(scheduler, "precondition_outputs") or scheduler.config.get("invert_sigmas"):
        return None
    if "prediction_type" in scheduler.config:
        return PREDICTIONS.get(scheduler.config["prediction_type"])
    return "flow" if isinstance(scheduler, FlowMatchEulerDiscreteScheduler) else None


def _on_grid(scheduler: Any, steps: int | None, **grid: Any) -> Any:
    """A copy of the scheduler whose grid is set: as it is, or by what was asked for."""
    grid["num_inference_steps"] = steps
    new, asked = detached(scheduler), {name: value for name, value in grid.items() if value is not None}
    if not asked:
        if getattr(new, "num_inference_steps", None) is None:
            raise ValueError(
                f"steps is missing, and {name_of(new)} has no grid yet: pass steps=, timesteps= or sigmas=, or call "
                "scheduler.set_timesteps first"
            )
        return new
    taken = inspect.signature(type(new).set_timesteps).parameters
    for name in asked:
        if name not in taken:
            raise ValueError(
                f"{name}: {name_of(new)}.set_timesteps takes none; EulerDiscreteScheduler takes timesteps and sigmas, "
                "DPMSolverMultistepScheduler timesteps, FlowMatchEulerDiscreteScheduler all"
            )
    if steps is not None:
        check_steps(steps)
    try:
        type(new).set_timesteps(new, **asked)
    except (AssertionError, ValueError) as error:
        said = ", ".join(asked).replace("num_inference_steps", "steps")
        raise ValueError(f"{said}: {name_of(new)}.set_timesteps refuses: {error}") from error
    return new
