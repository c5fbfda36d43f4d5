"""Schedulers of one's own, and what is said and given back of any."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from zigzag import CFGPlusPlus, ImplicitZ, Resampling, Standard, Z2Sampling, ZSampling

diffusers = pytest.importorskip("diffusers")
adapters = pytest.importorskip("zigzag.adapters.diffusers")
attach, Role = adapters.attach, adapters.Role

import real_steps  # noqa: E402
from real_schedulers import METHODS, REAL, WANTED, Real, distance, noise, runs, seeded, walks  # noqa: E402

# numpy's, of diffusers; and of UniPC's corrector, which has a test of its own.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*without its corrector"),
]


def test_a_corrector_is_left_out_and_said_once() -> None:
    pipe = real_steps.Pipe(REAL["unipc"].make())
    with warnings.catch_warnings(record=True) as caught, attach(pipe, ZSampling()):
        warnings.simplefilter("always")
        pipe(noise(1), 5)
        pipe(noise(1), 5)
    assert [str(w.message)[:57] for w in caught if w.category is UserWarning] == [
        "UniPCMultistepScheduler runs without its corrector while "
    ]
    plain = pipe(noise(1), 5)
    with warnings.catch_warnings(record=True) as caught, attach(pipe, Standard()):
        assert torch.equal(pipe(noise(1), 5), plain)
    assert not [w for w in caught if w.category is UserWarning]


class Custom(diffusers.ConfigMixin, diffusers.SchedulerMixin):  # type: ignore[misc]
    """Affine, with memory and noise, and nothing on it that says so: no σ, no ᾱ."""

    clips = False
    config_name = "scheduler_config.json"

    @diffusers.configuration_utils.register_to_config
    def __init__(self) -> None:
        self.timesteps, self.last = torch.arange(4, 0, -1) * 10, None

    def set_timesteps(self, steps: int, device: Any = None) -> None:
        self.timesteps, self.last, self.num_inference_steps = torch.arange(steps, 0, -1) * 10, None, steps

    def step(
        self, model_output: Tensor, timestep: Any, sample: Tensor, generator: Any = None, return_dict: bool = True
    ) -> Any:
        t, e = float(timestep), model_output.clamp(-2, 2) if self.clips else model_output
        x = (0.9 - t / 1000) * sample - 0.3 * e + (0 if self.last is None else 0.1 * self.last)
        self.last = e
        x = x + t / 100 * diffusers.utils.torch_utils.randn_tensor(x.shape, generator)
        return diffusers.schedulers.scheduling_utils.SchedulerOutput(prev_sample=x) if return_dict else (x,)


def test_a_scheduler_of_ones_own_is_led_and_one_that_clips_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    case, x = Real("Custom", steps=4), noise(2)
    monkeypatch.setattr(Real, "make", lambda self: Custom())
    for method in METHODS.values():
        ours, theirs = runs(case, x, method), walks(case, x, method)
        assert distance(ours, theirs) <= WANTED
    with pytest.raises(ValueError, match=r"noise levels of Custom cannot be read.*Renoise"):
        runs(case, x, Resampling())
    monkeypatch.setattr(Custom, "clips", True)
    with pytest.raises(ValueError, match="Custom has no affine steps"):
        runs(case, x, ZSampling())
    runs(case, x, Standard())


class Counting:
    """A flow's second order in x₀, that counts its calls, as PNDM does, and remembers its last state, as UniPC does."""

    sigmas: Tensor
    timesteps: Tensor

    def set_timesteps(self, steps: int, device: Any = None) -> None:
        self.sigmas = torch.linspace(1, 0, steps + 1)
        self.timesteps, self.num_inference_steps = 1000 * self.sigmas[:-1], steps
        self.counter, self.last_sample, self.last_output = 0, None, None

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, return_dict: bool = True) -> tuple[Tensor]:
        i = int((self.timesteps - timestep).abs().argmin())
        x0 = old = sample - self.sigmas[i] * model_output
        if self.last_sample is not None:
            old = self.last_sample - self.sigmas[i - 1] * self.last_output
        self.counter, self.last_sample, self.last_output = self.counter + 1, sample, model_output
        left = self.sigmas[i + 1] / self.sigmas[i]
        return (left * sample + (1 - left) * (1.5 * x0 - 0.5 * old),)


@pytest.mark.filterwarnings("error:.*without its corrector")
def test_names_that_are_also_another_schedulers_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A `counter` makes no PNDM, and a `last_sample` no corrector: what the next step reads of it stays."""
    case, x = Real("Counting"), noise(2)
    monkeypatch.setattr(Real, "make", lambda self: Counting())
    assert distance(runs(case, x, ImplicitZ(), conds=(0.4, 0.4)), runs(case, x, Standard(), conds=(0.4, 0.4))) <= WANTED
    for method in METHODS.values():
        assert distance(runs(case, x, method), walks(case, x, method)) <= WANTED


def test_steps_between_neighbours_only() -> None:
    scheduler = REAL["pndm"].make()
    solver = pytest.importorskip("zigzag.adapters.diffusers").solver_from_scheduler(scheduler, 6)
    assert repr(solver) == "Rehearsed(PNDMScheduler, T=6, prediction='epsilon')" and solver.memory == 3
    with pytest.raises(ValueError, match="no step from knot 0 to 2: a scheduler steps from one time to the next"):
        solver.step(0, 2)


def test_sigmas_beyond_one_are_a_flow_matchers_too() -> None:
    """0.002 to 80, as of Cosmos: `x + (σ_j − σ_i)·v`."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    solver = pytest.importorskip("zigzag.adapters.diffusers").solver_from_scheduler(
        scheduler, sigmas=[80.0, 8.0, 0.002]
    )
    assert [float(solver.step(i).a) for i in range(3)] == [1.0] * 3
    torch.testing.assert_close(
        torch.tensor([float(solver.step(i).b) for i in range(3)]), torch.tensor([-72, -7.998, -0.002])
    )


def test_x0_is_given_back_where_the_scheduler_gives_it() -> None:
    """LCM's pipelines take their image from it."""
    pipe, seen = real_steps.Pipe(REAL["lcm"].make()), []

    plain = pipe(noise(1), 4, generator=seeded())
    with attach(pipe, Z2Sampling(warmup=1, steps=2)):
        led = pipe.scheduler.step
        pipe.scheduler.step = lambda *args, **kwargs: seen.append(led(*args, **kwargs)) or seen[-1]
        x = pipe(noise(1), 4, generator=seeded())
        pipe.scheduler.step = led
    assert all(len(answer) == 2 for answer in seen) and not torch.equal(x, plain)
    assert distance(seen[-1][1], x) <= WANTED  # the last step ends at its x₀


def test_a_guidance_that_reads_levels_needs_some() -> None:
    """Whatever role it is the rule of."""
    pipe, rule = real_steps.Pipe(Custom()), CFGPlusPlus(0.5)
    for roles in ({"weak": rule}, {"weak": Role(edit={}, cfg=rule)}, {"plain": rule}):
        with (
            pytest.raises(ValueError, match=rf"{next(iter(roles))}=CFGPlusPlus.*reads noise levels.*Custom"),
            attach(pipe, ZSampling(plain="plain" in roles), **roles),
        ):
            pipe(noise(1), 4)
