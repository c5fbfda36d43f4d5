"""Solvers read off diffusers' schedulers, and held against what their `step` really does."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn

import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    DDIMParallelScheduler,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from torch import Tensor

from zigzag.adapters.diffusers.euler_v import EulerV
from zigzag.adapters.diffusers.probing import TOLERANCE, detached, first_mismatch, name_of
from zigzag.adapters.diffusers.refusals import refusal_of
from zigzag.solvers import DDIM, FlowEuler, Solver, Spherical
from zigzag.solvers.grids import check_steps

__all__ = ["prediction_of", "solver_from_scheduler"]

PREDICTIONS: Final = {
    "epsilon": "epsilon",
    "v_prediction": "v",
    "flow_prediction": "flow",
    "sample": "x0",
    "original_sample": "x0",
}


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

    | scheduler | ε | v | flow |
    |---|---|---|---|
    | DDIM, DDIMParallel, CogVideoXDDIM | `DDIM` | `Spherical` | |
    | DPMSolverMultistep, DPMSolverSinglestep, at order 1 | `DDIM` | `Spherical` | `FlowEuler` |
    | EulerDiscrete: its σ-space, where α = 1 | `DDIM` | `EulerV` | |
    | FlowMatchEulerDiscrete | | | `FlowEuler` |

    The knots are read off the scheduler; then every step is compared with `scheduler.step` of a copy, to 1e-6 of its
    terms. The scheduler itself is neither stepped nor changed. The state is the pipelines' latent, which begins as
    noise times `scheduler.init_noise_sigma`. Euler also scales the model's input: build the predictor with the same
    scheduler (`unet_predictor(unet, scheduler=scheduler)`).

    Args:
        scheduler: a diffusers scheduler. Without the next four its grid is the one that `set_timesteps` has set.
        steps, timesteps, sigmas, mu: what `set_timesteps` is to be called with, on a copy. Diffusers' `AysSchedules`
            go in as `timesteps` or `sigmas`; the pipelines of flow models pass `sigmas = linspace(1, 1/T, T)`, and
            `mu` where the configuration says `use_dynamic_shifting`.
        step_kwargs: what else `step` is called with (`eta`, `s_churn`), if it is.

    Raises:
        TypeError: for what is not a scheduler.
        ValueError: for a grid that is not set, or not in this way; for a scheduler that adds noise, combines steps,
            clamps, predicts x₀, or whose steps do not lead to its next time step. Each says why, and what works.
    """
    if not all(hasattr(scheduler, name) for name in ("config", "step", "set_timesteps")):
        raise TypeError(f"scheduler must be a diffusers scheduler, got {scheduler!r}")
    if (refusal := refusal_of(scheduler)) is not None:
        raise ValueError(f"scheduler: {name_of(scheduler)} {refusal.reason}; use {refusal.instead}")
    reader = next((read for classes, read in READERS if isinstance(scheduler, classes)), None)
    if reader is None:
        raise ValueError(
            f"scheduler: {name_of(scheduler)} is not known to step as a·x + b·e; use DDIMScheduler, "
            "EulerDiscreteScheduler, DPMSolverMultistepScheduler(solver_order=1) or FlowMatchEulerDiscreteScheduler"
        )
    new = _on_grid(scheduler, steps, timesteps=timesteps, sigmas=sigmas, mu=mu)
    try:
        solver = reader(new)
    except ValueError as error:
        raise ValueError(f"scheduler: no solver on the grid of {name_of(scheduler)}: {error}") from error
    if (k := first_mismatch(new, solver, step_kwargs or {})) is not None:
        _refuse_step(new, solver, k, step_kwargs or {})
    return solver


def prediction_of(scheduler: Any) -> str | None:
    """What the scheduler's configuration says the model predicts, in this library's names; None if it does not say."""
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


def _read_ddim(scheduler: Any) -> Solver:
    # `step` goes from t to t − N//T, whatever the grid says, and below 0 to final_alpha_cumprod.
    N, T = scheduler.config.num_train_timesteps, scheduler.num_inference_steps
    times, table = scheduler.timesteps, scheduler.alphas_cumprod.double()
    if int(times.max()) >= N:
        raise ValueError(f"its first time step, {int(times.max())}, lies outside the training table of {N}")
    reached = times - N // T
    for k in range(len(times) - 1):
        if reached[k] != times[k + 1]:
            raise ValueError(
                f"{name_of(scheduler)}.step goes down by {N}//{T} = {N // T}, from time step {int(times[k])} to "
                f"{int(reached[k])}, but the next one of timestep_spacing={scheduler.config.timestep_spacing!r} is "
                f"{int(times[k + 1])}; {_chaining(scheduler.config.timestep_spacing, N, T)}"
            )
    last = table[reached[-1]] if reached[-1] >= 0 else scheduler.final_alpha_cumprod.double()
    abar = torch.cat([table[times], last.reshape(1)])
    _check_last(abar, "set_alpha_to_one=True")
    return _variance_preserving(abar.sqrt(), (1 - abar).sqrt(), times, prediction_of(scheduler))


def _chaining(spacing: str, N: int, T: int) -> str:
    leading = "use timestep_spacing='leading'"
    if spacing != "trailing":
        return leading
    divisors = [n for n in range(1, N + 1) if N % n == 0]
    below, above = max(n for n in divisors if n <= T), min(n for n in divisors if n >= T)
    return f"{leading}, or a number of steps that divides {N}, such as {below} or {above}"


def _check_last(knots: Tensor, remedy: str) -> None:
    if knots[-1] == knots[-2]:
        raise ValueError(f"its last step does nothing, as it ends at the noise level it starts from; set {remedy}")


def _read_dpm(scheduler: Any) -> Solver:
    sigma, prediction = scheduler.sigmas.double(), prediction_of(scheduler)
    _check_last(sigma, "final_sigmas_type='zero'")
    flow_sigmas = bool(scheduler.config.get("use_flow_sigmas"))
    if flow_sigmas != (prediction == "flow"):
        raise ValueError(
            f"prediction_type={scheduler.config.prediction_type!r} with use_flow_sigmas={flow_sigmas} is neither a "
            "flow nor a diffusion"
        )
    if flow_sigmas:
        return FlowEuler(sigma, scheduler.timesteps)
    alpha = 1 / (sigma**2 + 1).sqrt()
    return _variance_preserving(alpha, sigma * alpha, scheduler.timesteps, prediction)


def _read_euler(scheduler: Any) -> Solver:
    sigma = scheduler.sigmas.double()
    _check_last(sigma, "final_sigmas_type='zero'")
    if prediction_of(scheduler) == "v":
        return EulerV(sigma, scheduler.timesteps)
    return DDIM(torch.ones_like(sigma), sigma, scheduler.timesteps)


def _read_flow(scheduler: Any) -> Solver:
    return FlowEuler(scheduler.sigmas, scheduler.timesteps)


def _variance_preserving(alpha: Tensor, sigma: Tensor, times: Tensor, prediction: str | None) -> Solver:
    if prediction == "v":
        return Spherical(torch.atan2(sigma, alpha), times)
    if alpha[0] == 0:
        raise ValueError(
            f"at its first time step, {int(times[0])}, alpha is 0 (rescale_betas_zero_snr), and ε says nothing of the "
            "data; use timestep_spacing='leading', which starts below, or a model of v_prediction"
        )
    return DDIM(alpha, sigma, times)


READERS: Final[tuple[tuple[tuple[Any, ...], Callable[[Any], Solver]], ...]] = (
    ((DDIMScheduler, DDIMParallelScheduler, CogVideoXDDIMScheduler), _read_ddim),
    ((DPMSolverMultistepScheduler, DPMSolverSinglestepScheduler), _read_dpm),
    ((EulerDiscreteScheduler,), _read_euler),
    ((FlowMatchEulerDiscreteScheduler,), _read_flow),
)


def _refuse_step(scheduler: Any, solver: Solver, k: int, step_kwargs: Mapping[str, Any]) -> NoReturn:
    """Says why a step is not the solver's, as far as the configuration and the call tell."""
    causes = [f"{name}=True" for name in ("thresholding", "clip_sample") if scheduler.config.get(name)][:1]
    if causes:
        why = f"{causes[0]} clamps the predicted x0, so that it is not affine; set {causes[0].replace('True', 'False')}"
    elif noisy := [f"{name}={value}" for name, value in step_kwargs.items() if value]:
        why = f"it is called with {', '.join(noisy)}, which changes it or adds noise; leave that out"
    else:
        why = "use a scheduler of diffusers as it is"
    raise ValueError(
        f"scheduler: step {k} of {name_of(scheduler)}, at time step {solver.info(k).t:g}, is not the a·x + b·e of "
        f"{solver!r} to {TOLERANCE:g}: {why}"
    )
