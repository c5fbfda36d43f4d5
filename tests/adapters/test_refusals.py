"""Schedulers that no solver steps as: refused before anything runs, with the reason and with what works."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from zigzag.solvers import Solver

diffusers = pytest.importorskip("diffusers")
AysSchedules = pytest.importorskip("diffusers.schedulers").AysSchedules
adapters = pytest.importorskip("zigzag.adapters.diffusers")
solver_from_scheduler = adapters.solver_from_scheduler
refusals = pytest.importorskip("zigzag.adapters.diffusers.refusals")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # diffusers' own, of numpy

BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def ddim(**config: Any) -> Any:
    return diffusers.DDIMScheduler(**{**BETAS, "clip_sample": False, **config})


def euler(**config: Any) -> Any:
    return diffusers.EulerDiscreteScheduler(**BETAS, **config)


def dpm(**config: Any) -> Any:
    return diffusers.DPMSolverMultistepScheduler(**{**BETAS, "solver_order": 1, **config})


def flow(**config: Any) -> Any:
    return diffusers.FlowMatchEulerDiscreteScheduler(**config)


TRAILING: dict[str, Any] = {"timestep_spacing": "trailing"}
LINSPACE: dict[str, Any] = {"timestep_spacing": "linspace"}
REFUSED: dict[str, tuple[Callable[[], Solver], str]] = {
    "no scheduler": (lambda: solver_from_scheduler(3), "scheduler must be a diffusers scheduler, got 3"),
    "no grid": (lambda: solver_from_scheduler(ddim()), "steps is missing, and DDIMScheduler has no grid"),
    "no flow grid": (lambda: solver_from_scheduler(flow()), "steps is missing"),
    "no steps": (lambda: solver_from_scheduler(ddim(), 0), "steps must be .* got 0"),
    "too many steps": (lambda: solver_from_scheduler(ddim(), 1001), "steps: .* refuses.*cannot be larger"),
    "two grids": (lambda: solver_from_scheduler(euler(), 4, timesteps=[9, 1]), "timesteps, steps: .* refuses"),
    "no mu": (lambda: solver_from_scheduler(flow(use_dynamic_shifting=True), 4), "refuses: `mu` must be passed"),
    "ays in ddim": (
        lambda: solver_from_scheduler(ddim(), timesteps=AysSchedules["StableDiffusionTimesteps"]),
        "timesteps: DDIMScheduler.set_timesteps takes none; EulerDiscreteScheduler",
    ),
    "ddim trailing": (
        lambda: solver_from_scheduler(ddim(**TRAILING), 30),
        r"goes down by 1000//30 = 33, from time step 966 to 933, but the next one .* is 932; .* such as 25 or 40",
    ),
    "ddim linspace": (lambda: solver_from_scheduler(ddim(**LINSPACE), 10), "888; use timestep_spacing='leading'"),
    "ddim off the table": (lambda: solver_from_scheduler(ddim(steps_offset=1), 1000), "1000, lies outside .* of 1000"),
    "ddim to nowhere": (lambda: solver_from_scheduler(ddim(set_alpha_to_one=False), 4), "last step does nothing"),
    "ddim from nothing": (
        lambda: solver_from_scheduler(ddim(**TRAILING, rescale_betas_zero_snr=True), 4),
        "999, alpha is 0 .*; use timestep_spacing='leading'.* or a model of v_prediction",
    ),
    "euler to nowhere": (
        lambda: solver_from_scheduler(euler(final_sigmas_type="sigma_min"), 4),
        "last step does nothing.*final_sigmas_type='zero'",
    ),
    "clip": (lambda: solver_from_scheduler(ddim(clip_sample=True), 4), "clip_sample=True clamps .* clip_sample=False"),
    "threshold": (lambda: solver_from_scheduler(ddim(thresholding=True), 4), "thresholding=True clamps"),
    "dpm threshold": (lambda: solver_from_scheduler(dpm(thresholding=True), 4), "step 0 .* thresholding=True clamps"),
    "eta": (lambda: solver_from_scheduler(ddim(), 4, step_kwargs={"eta": 0.5}), "called with eta=0.5"),
    "churn": (lambda: solver_from_scheduler(euler(), 4, step_kwargs={"s_churn": 1.0}), "called with s_churn=1.0"),
    "dpm order 2": (lambda: solver_from_scheduler(dpm(solver_order=2), 4), "predictions of several steps"),
    "dpm sde": (lambda: solver_from_scheduler(dpm(algorithm_type="sde-dpmsolver++"), 4), "adds fresh noise"),
    "dpm half a flow": (
        lambda: solver_from_scheduler(dpm(prediction_type="flow_prediction"), 4),
        "use_flow_sigmas=False is neither a flow nor a diffusion",
    ),
    "flow with noise": (lambda: solver_from_scheduler(flow(stochastic_sampling=True), 4), "adds fresh noise"),
    "flow upside down": (lambda: solver_from_scheduler(flow(invert_sigmas=True), 4), "counts σ up"),
    "flow to nowhere": (lambda: solver_from_scheduler(flow(), sigmas=[1.0, 0.5, 0.0]), "must descend strictly"),
    "of tokens": (lambda: solver_from_scheduler(diffusers.AmusedScheduler(mask_token_id=0), 4), "not known to step"),
}
REFUSED |= {
    f"{name} of x0": (
        lambda make=make: solver_from_scheduler(make(prediction_type="sample"), 4),
        r"x₀.*a = σ_j/σ_i = 0",
    )
    for name, make in (("ddim", ddim), ("euler", euler), ("dpm", dpm))
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_with_its_reason(case: str) -> None:
    call, message = REFUSED[case]
    with pytest.raises(TypeError if case == "no scheduler" else ValueError, match=message):
        call()


def refused_schedulers() -> list[Any]:
    """One of each refused class that can be built without packages this environment lacks, and configurations."""
    made = [dpm(solver_order=2), dpm(algorithm_type="sde-dpmsolver++"), flow(stochastic_sampling=True)]
    made += [make(prediction_type="sample") for make in (ddim, euler, dpm)]
    flows: dict[str, Any] = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
    made.append(diffusers.UniPCMultistepScheduler(**flows))
    for name in refusals.REFUSED:
        try:
            cls = getattr(diffusers, name)
            takes_betas = "beta_start" in inspect.signature(cls.__init__).parameters
            made.append(cls(**{key: BETAS[key] for key in BETAS if takes_betas}))
        except (ImportError, TypeError, NotImplementedError):
            continue
    return made


@pytest.mark.parametrize("scheduler", refused_schedulers(), ids=lambda scheduler: type(scheduler).__name__)
def test_the_scheduler_that_is_named_instead_works(scheduler: Any) -> None:
    with pytest.raises(ValueError, match=type(scheduler).__name__) as refused:
        solver_from_scheduler(scheduler, 10)
    named = str(refused.value).split("; use ")[-1]
    if not named.split(".from_config")[0].split("(")[0].endswith("Scheduler") or " with " in named:
        assert "zigzag.DDIM.karras" in named or "not distilled" in named
        return
    expression = named.split(" and ")[0].split(", and ")[0].rstrip(",")
    instead = eval(expression, vars(diffusers) | {"scheduler": scheduler} | all_schedulers())
    assert len(solver_from_scheduler(instead, 10)) == 10


def all_schedulers() -> dict[str, Any]:
    names = ("DDIM", "CogVideoXDDIM", "EulerDiscrete", "DPMSolverMultistep", "FlowMatchEulerDiscrete")
    return {f"{name}Scheduler": getattr(diffusers, f"{name}Scheduler") for name in names}


def test_most_refused_classes_were_tried() -> None:
    assert len(refused_schedulers()) >= len(refusals.REFUSED)


@pytest.mark.parametrize(("factor", "accepted"), [(1 + 1e-8, True), (1 + 1e-5, False), (1.05, False)])
def test_the_steps_are_held_against_what_step_really_does_to_1e_6(factor: float, accepted: bool) -> None:
    class Bent(diffusers.DDIMScheduler):  # type: ignore[misc]
        def step(self, model_output: Tensor, timestep: int, sample: Tensor, **kwargs: Any) -> Any:
            return super().step(factor * model_output, timestep, sample, **kwargs)

    scheduler = Bent(**BETAS, clip_sample=False)
    if accepted:
        assert len(solver_from_scheduler(scheduler, 6)) == 6
        return
    with pytest.raises(ValueError, match=r"step 0 of Bent, at time step 830, is not the a·x . b·e"):
        solver_from_scheduler(scheduler, 6)


@pytest.mark.parametrize("kind", ["remembers", "noisy", "bends late"])
def test_a_step_that_remembers_draws_noise_or_bends_at_large_values_is_found_out(kind: str) -> None:
    class Other(diffusers.EulerDiscreteScheduler):  # type: ignore[misc]
        last: Any = 0.0

        def step(self, model_output: Tensor, timestep: Any, sample: Tensor, **kwargs: Any) -> Any:
            out = super().step(model_output, timestep, sample, **kwargs)
            if kind == "remembers":
                out.prev_sample, self.last = out.prev_sample + 1e-4 * self.last, model_output
            elif kind == "noisy":
                out.prev_sample = out.prev_sample + 1e-3 * torch.randn(sample.shape)
            else:
                out.prev_sample = out.prev_sample.clamp(-60, 60)
            return out

    state = torch.random.get_rng_state()
    with pytest.raises(ValueError, match=r"step [01] of Other"):
        solver_from_scheduler(Other(**BETAS), 6)
    assert torch.equal(torch.random.get_rng_state(), state)
