"""The loops that `gpu.py` takes its figures of: of a diffusers pipeline, `sample` and `capture`, of one network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from common import Loop, in_turns
from plain import Plain
from torch import Tensor

import zigzag
from zigzag import sample

if TYPE_CHECKING:
    from models import Network

SCALE = 5.5


class Case(NamedTuple):
    """What is sampled: a network, a batch, and a number of steps; how often each loop runs.

    dry: on a CPU, whose compiler is not to be waited for.
    """

    network: Network | Plain
    batch: int
    steps: int
    runs: int = 7
    dry: bool = False

    def timed(self, loops: Sequence[Loop]) -> list[list[float]]:
        """Seconds of every run of every loop, in turns."""
        return in_turns(loops, self.runs, warm=0 if self.dry else 2, synchronize=wait)

    def say(self, text: str) -> str:
        """Prints a line, and gives it."""
        text = f"{self.network.name} {self.network.size}², batch {self.batch}: {text}"
        print(text, flush=True)
        return text


def diffusers_loop(case: Case) -> Callable[[], Tensor]:
    """The loop of a diffusers pipeline, line by line."""
    import diffusers

    network: Any = case.network
    x, cond, uncond = network.inputs(case.batch)
    both, common, module = _doubled(uncond, cond), network.common(), network.module
    if network.kind == "flux":
        flow: Any = diffusers.FlowMatchEulerDiscreteScheduler
        scheduler = flow()
    else:
        make: Any = diffusers.DDIMScheduler
        scheduler = make(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
            set_alpha_to_one=False, steps_offset=1,
        )  # fmt: skip

    def predict(latents: Tensor, t: Tensor) -> Any:
        if network.kind == "flux":
            told = t.expand(len(latents)).to(latents.dtype) / 1000
            return module(hidden_states=latents, timestep=told, **both, **common, return_dict=False)[0]
        latents = scheduler.scale_model_input(latents, t)
        if network.kind == "hunyuan":
            t_expand = torch.tensor([t] * len(latents), device=x.device).to(dtype=latents.dtype)
            return module(latents, t_expand, **both, **common, return_dict=False)[0].chunk(2, dim=1)[0]
        return module(latents, t, **both, return_dict=False)[0]

    @torch.no_grad()
    def loop() -> Tensor:
        if network.kind == "flux":
            scheduler.set_timesteps(sigmas=[1 - k / case.steps for k in range(case.steps)], device=x.device)
        else:
            scheduler.set_timesteps(case.steps, device=x.device)
        latents: Tensor = x
        for t in scheduler.timesteps:
            noise_u, noise_c = predict(torch.cat([latents] * 2), t).chunk(2)
            noise = noise_u + SCALE * (noise_c - noise_u)
            latents = scheduler.step(noise, t, latents, return_dict=False)[0]
        return latents

    return loop


def eager_loop(case: Case, method: Any, module: Any = None, *, cloned: bool = False) -> Callable[[], Tensor]:
    """`zigzag.sample`, of the network or of another form of it; `cloned`: one that writes to its own outputs again."""
    eps_fn, (x, cond, uncond) = case.network.predictor(module), case.network.inputs(case.batch)
    solver = case.network.solver(case.steps)

    def predict(x: Tensor, t: Tensor, cond: Any) -> Tensor:
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        return eps_fn(x, t, cond).clone()

    fn = predict if cloned else eps_fn
    return lambda: sample(fn, x, solver, method, cond=cond, uncond=uncond, strong=SCALE, weak=0.0, batched=True)


def captured_loop(case: Case, method: Any, module: Any = None) -> Callable[[], Tensor]:
    """`zigzag.capture`, of the network or of another form of it."""
    eps_fn, (x, cond, uncond) = case.network.predictor(module), case.network.inputs(case.batch)
    solver = case.network.solver(case.steps)
    run = zigzag.capture(eps_fn, x, solver, method, cond=cond, uncond=uncond, strong=SCALE, weak=0.0, batched=True)
    return lambda: run(x)


def _doubled(uncond: dict[str, Any], cond: dict[str, Any]) -> dict[str, Any]:
    return {
        name: torch.cat([uncond[name], value]) if isinstance(value, Tensor) else _doubled(uncond[name], value)
        for name, value in cond.items()
    }


def wait() -> None:
    """Until the device is done."""
    torch.cuda.synchronize()
