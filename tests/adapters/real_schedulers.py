"""The schedulers of diffusers, and a path on each: by `attach`, and by copies of the real one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import diffusers
import pytest
import real_steps
import torch
from torch import Tensor

from zigzag import ImplicitZ, Z2Sampling, ZSampling
from zigzag.adapters.diffusers import attach

SD: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
VAR: dict[str, Any] = {**SD, "clip_sample": False}
V: dict[str, Any] = {"prediction_type": "v_prediction"}
FLOWS: dict[str, Any] = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
SDE: dict[str, Any] = {**SD, "algorithm_type": "sde-dpmsolver++"}


def uncorrected(scheduler: Any, k: int) -> None:
    scheduler.last_sample = None


def replanted(scheduler: Any, k: int) -> None:
    scheduler.noise_sampler = None  # a Brownian tree, which does not survive a copy; the same grows of its seed


def recounted(scheduler: Any, k: int) -> None:
    if scheduler.counter == 1 and k != 1:  # PNDM's mark of the second half of a loop's first step, which is call 1
        scheduler.counter = 2


@dataclass
class Real:
    """A scheduler, its steps and how its calls make them: one by one, in pairs, or the first two together."""

    name: str
    config: dict[str, Any] = field(default_factory=dict)
    steps: int = 5
    calls: str = "single"
    extra: dict[str, Any] = field(default_factory=dict)
    prepare: Callable[[Any, int], None] = lambda scheduler, k: None
    needs: str = "diffusers"
    grid: dict[str, Any] = field(default_factory=dict)

    def make(self) -> Any:
        pytest.importorskip(self.needs)
        return getattr(diffusers, self.name)(**self.config)

    def groups(self, times: Tensor) -> list[list[int]]:
        calls = list(range(len(times)))
        if self.calls == "pairs":
            return [calls[k : k + 2] for k in range(0, len(calls), 2)]
        if self.calls == "all but the last":
            calls = calls[:-1]
        return [calls[:2], *([k] for k in calls[2:])] if self.calls == "first two" else [[k] for k in calls]


REAL = {
    "ddim": Real("DDIMScheduler", VAR),
    "ddim eta": Real("DDIMScheduler", VAR, extra={"eta": 1.0}),
    "ddim eta v": Real("DDIMScheduler", {**VAR, **V}, extra={"eta": 0.5}),
    "ddim eta x0": Real("DDIMScheduler", {**VAR, "prediction_type": "sample"}, extra={"eta": 0.5}),
    "ddpm": Real("DDPMScheduler", VAR),
    "ddpm large": Real("DDPMScheduler", {**VAR, "variance_type": "fixed_large"}),
    "ddpm v": Real("DDPMScheduler", {**VAR, **V}),
    "ddpm large v": Real("DDPMScheduler", {**VAR, **V, "variance_type": "fixed_large"}),
    "euler": Real("EulerDiscreteScheduler", SD),
    "euler churned": Real("EulerDiscreteScheduler", SD, extra={"s_churn": 0.5}),
    "euler ancestral": Real("EulerAncestralDiscreteScheduler", SD),
    "euler ancestral v": Real("EulerAncestralDiscreteScheduler", {**SD, **V}),
    "dpm 1": Real("DPMSolverMultistepScheduler", {**SD, "solver_order": 1}),
    "dpm 2m": Real("DPMSolverMultistepScheduler", SD),
    "dpm 3m": Real("DPMSolverMultistepScheduler", {**SD, "solver_order": 3}, steps=6),
    "dpm 2m flow": Real("DPMSolverMultistepScheduler", FLOWS),
    "sde dpm 2m": Real("DPMSolverMultistepScheduler", SDE),
    "sde dpm 3m": Real("DPMSolverMultistepScheduler", {**SDE, "solver_order": 3}, steps=6),
    "singlestep 1": Real("DPMSolverSinglestepScheduler", {**SD, "solver_order": 1}),
    "singlestep 2": Real("DPMSolverSinglestepScheduler", SD, steps=9, calls="pairs"),
    "deis": Real("DEISMultistepScheduler", SD),
    "unipc": Real("UniPCMultistepScheduler", SD, prepare=uncorrected),
    "unipc flow": Real("UniPCMultistepScheduler", FLOWS, prepare=uncorrected),
    "unipc noise": Real(
        "UniPCMultistepScheduler",
        {**SD, "predict_x0": False, "final_sigmas_type": "sigma_min", "solver_type": "bh1"},
        prepare=uncorrected,
    ),
    "sa": Real("SASolverScheduler", SD, prepare=uncorrected),
    "pndm": Real(
        "PNDMScheduler", {**SD, "skip_prk_steps": True, "set_alpha_to_one": False, "steps_offset": 1}, steps=6,
        calls="first two", prepare=recounted,
    ),
    "ipndm": Real("IPNDMScheduler", steps=6),
    "lms": Real("LMSDiscreteScheduler", SD, steps=6),
    "lcm": Real("LCMScheduler", {**VAR, "set_alpha_to_one": False}, steps=4),
    "tcd": Real("TCDScheduler", {**VAR, "set_alpha_to_one": False}, steps=4),
    "tcd eta": Real("TCDScheduler", {**VAR, "set_alpha_to_one": False}, steps=4, extra={"eta": 0.0}),
    "edm euler": Real("EDMEulerScheduler"),
    "edm dpm": Real("EDMDPMSolverMultistepScheduler"),
    "flow": Real("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
    "flow stochastic": Real("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}),
    "flow heun": Real("FlowMatchHeunDiscreteScheduler", {"shift": 3.0}, calls="pairs"),
    "heun": Real("HeunDiscreteScheduler", SD, calls="pairs"),
    "heun v": Real("HeunDiscreteScheduler", {**SD, **V}, calls="pairs"),
    "kdpm2": Real("KDPM2DiscreteScheduler", SD, calls="pairs"),
    "kdpm2 ancestral": Real("KDPM2AncestralDiscreteScheduler", SD, calls="pairs"),
    "cogvideox dpm": Real("CogVideoXDPMScheduler", {**V, "timestep_spacing": "trailing"}),
    "ltx ancestral": Real("LTXEulerAncestralRFScheduler"),
    "ltx ancestral half": Real("LTXEulerAncestralRFScheduler", {"eta": 0.5}),
    "ltx ancestral loud": Real("LTXEulerAncestralRFScheduler", {"s_noise": 1.1}),
    "scm": Real("SCMScheduler", steps=4, calls="all but the last", grid={"intermediate_timesteps": None}),
    "cosine dpm": Real("CosineDPMSolverMultistepScheduler", prepare=replanted, needs="torchsde"),
}  # fmt: skip

METHODS = {
    "z": ZSampling(),
    "wide": ZSampling(steps=2, span=2, rounds=2, refine=1),
    "implicit": ImplicitZ(steps=3),
    "z2": Z2Sampling(warmup=1, steps=3),
}

# Two float32 computations of one thing: 200 roundings.
WANTED = 200 * torch.finfo(torch.float32).eps


def distance(x: Tensor, y: Tensor) -> float:
    return float((x - y).norm() / y.norm())


def noise(batch: int) -> Tensor:
    return torch.randn(batch, 4, 6, 6, generator=torch.Generator().manual_seed(batch))


def seeded(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def runs(case: Real, x: Tensor, method: Any, *, flat: bool = False, renoise: Any = None, **call: Any) -> Tensor:
    pipe = real_steps.Pipe(case.make(), flat)
    torch.manual_seed(5)  # some pass no generator on
    with attach(pipe, method, generator=renoise):
        return pipe(
            x,
            case.steps,
            **{
                "generator": seeded(),
                "grid": case.grid,
                "ended": case.calls == "all but the last",
                **case.extra,
                **call,
            },
        )


def walks(case: Real, x: Tensor, method: Any, **options: Any) -> Tensor:
    scheduler = case.make()
    scheduler.set_timesteps(case.steps, **case.grid)
    groups = case.groups(scheduler.timesteps)
    torch.manual_seed(5)
    walk = real_steps.Walk(scheduler, groups, generator=seeded(), extra=case.extra, prepare=case.prepare, **options)
    return walk(x, method.path(len(groups)))
