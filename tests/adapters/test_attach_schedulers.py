"""`attach` on every scheduler of diffusers, against copies of the real scheduler that are stepped with its history."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from zigzag import ImplicitZ, Resampling, Standard, Z2Sampling, ZSampling

diffusers = pytest.importorskip("diffusers")
attach = pytest.importorskip("zigzag.adapters.diffusers").attach

# numpy's, of diffusers; and of UniPC's corrector, which has a test of its own.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*without its corrector"),
]

SD: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
VAR: dict[str, Any] = {**SD, "clip_sample": False}
V: dict[str, Any] = {"prediction_type": "v_prediction"}
FLOWS: dict[str, Any] = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
SDE: dict[str, Any] = {**SD, "algorithm_type": "sde-dpmsolver++"}


def uncorrected(scheduler: Any, k: int) -> None:
    scheduler.last_sample = None


def replanted(scheduler: Any, k: int) -> None:
    scheduler.noise_sampler = None  # a Brownian tree, which does not survive a copy; the same grows of its seed


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

    def make(self) -> Any:
        pytest.importorskip(self.needs)
        return getattr(diffusers, self.name)(**self.config)

    def groups(self, times: Tensor) -> list[list[int]]:
        calls = list(range(len(times)))
        if self.calls == "pairs":
            return [calls[k : k + 2] for k in range(0, len(calls), 2)]
        return [calls[:2], *([k] for k in calls[2:])] if self.calls == "first two" else [[k] for k in calls]


REAL = {
    "ddim": Real("DDIMScheduler", VAR),
    "ddim eta": Real("DDIMScheduler", VAR, extra={"eta": 1.0}),
    "ddim eta v": Real("DDIMScheduler", {**VAR, **V}, extra={"eta": 0.5}),
    "ddpm": Real("DDPMScheduler", VAR),
    "ddpm large": Real("DDPMScheduler", {**VAR, "variance_type": "fixed_large"}),
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
        calls="first two",
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


def runs(case: Real, x: Tensor, method: Any, *, flat: bool = False, **call: Any) -> Tensor:
    import real_steps

    pipe = real_steps.Pipe(case.make(), flat)
    torch.manual_seed(5)  # some pass no generator on
    with attach(pipe, method):
        return pipe(x, case.steps, **{"generator": seeded(), **case.extra, **call})


def walks(case: Real, x: Tensor, method: Any, **options: Any) -> Tensor:
    import real_steps

    scheduler = case.make()
    scheduler.set_timesteps(case.steps)
    groups = case.groups(scheduler.timesteps)
    torch.manual_seed(5)
    walk = real_steps.Walk(scheduler, groups, generator=seeded(), extra=case.extra, prepare=case.prepare, **options)
    return walk(x, method.path(len(groups)))


@pytest.mark.parametrize("name", REAL)
def test_zigzags_are_those_of_the_real_scheduler(name: str) -> None:
    """Every method, at batch 1 and 2: `x + (b/a)·(e_s − e_w)` and the explicit inverse, with history and noise held."""
    for n, (kind, method) in enumerate(METHODS.items()):
        x = noise(1 + n % 2)
        ours, theirs = runs(REAL[name], x, method), walks(REAL[name], x, method)
        assert distance(ours, theirs) <= WANTED, kind


def check_fails(case: Real, method: Any, **options: Any) -> None:
    with pytest.raises(AssertionError):
        assert distance(runs(case, noise(2), method), walks(case, noise(2), method, **options)) <= WANTED


def test_the_check_fails_on_a_corrector_left_on() -> None:
    """Its b/a would take all of the noise out of the state."""
    for name in ("unipc", "sa"):
        check_fails(dataclasses.replace(REAL[name], prepare=lambda scheduler, k: None), ImplicitZ(steps=3))


def test_the_check_fails_where_history_is_not_restored_on_the_way_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import real_steps

    leap = real_steps.Walk.leap

    def mutant(self: Any, i: int, *args: Any) -> Any:
        self.stands[i] = self.stands[max(self.stands)] if max(self.stands) == i + 1 else self.stands[i]
        if hasattr(self.stands[i].scheduler, "_step_index"):
            self.stands[i].scheduler._step_index = i
        return leap(self, i, *args)

    monkeypatch.setattr(real_steps.Walk, "leap", mutant)
    for name in ("dpm 2m", "deis", "lms"):
        check_fails(REAL[name], ZSampling())


def test_the_check_fails_on_noise_drawn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    held = pytest.importorskip("zigzag.held")
    remainder = held.Held.remainder

    def mutant(self: Any, step: Any, x: Tensor) -> Any:
        return remainder(self, dataclasses.replace(step, draws=step.interval is not None), x)

    monkeypatch.setattr(held.Held, "remainder", mutant)
    for name in ("ddpm", "euler ancestral", "sde dpm 2m", "flow stochastic"):
        check_fails(REAL[name], ZSampling())


UNMOVED = {"implicit": (ImplicitZ(), False), "z2": (Z2Sampling(warmup=1), False), "z": (ZSampling(rounds=2), True)}


@pytest.mark.parametrize("name", [name for name in REAL if name not in ("sa", "cosine dpm")])
def test_without_a_gap_the_image_is_the_plain_one(name: str) -> None:
    """Also of stochastic schedulers: the same random numbers, and the generator ends where it would have ended.

    Where an inversion is approximate (its prediction is taken elsewhere) the prediction depends on no state and time.
    """
    case, same = REAL[name], (0.4, 0.4)
    if name.startswith("unipc"):
        case = dataclasses.replace(case, config={**case.config, "disable_corrector": list(range(case.steps))})
    for n, (method, flat) in enumerate(UNMOVED.values()):
        x, one, two = noise(1 + n % 2), seeded(), seeded()
        plain = runs(case, x, Standard(), conds=same, generator=one, flat=flat)
        ours = runs(case, x, method, conds=same, generator=two, flat=flat)
        assert distance(ours, plain) <= WANTED
        assert torch.equal(one.get_state(), two.get_state())
        if not flat:
            with pytest.raises(AssertionError):  # with a gap it is another
                assert distance(runs(case, x, method), runs(case, x, Standard())) <= WANTED


@pytest.mark.parametrize("name", ["ddim eta", "ddpm", "sde dpm 2m", "lcm", "cogvideox dpm", "kdpm2 ancestral"])
def test_a_list_of_generators_is_each_samples_own(name: str) -> None:
    case, x, method = REAL[name], noise(2), ZSampling(steps=2)
    both = runs(case, x, method, generator=[seeded(1), seeded(2)])
    for n, seed in enumerate((1, 2)):
        conds = tuple(c + 0.1 * n for c in (1.0, -0.5))
        one = runs(case, x[n : n + 1], method, generator=[seeded(seed)], conds=conds)
        assert distance(both[n : n + 1], one) <= WANTED


def sigma_levels(scheduler: Any) -> Callable[[int], tuple[float, float]]:
    return lambda i: (1.0, float(scheduler.sigmas[i]))


def cos_levels(scheduler: Any) -> Callable[[int], tuple[float, float]]:
    table = [*scheduler.alphas_cumprod.double()[scheduler.timesteps.long()].tolist(), 1.0]
    return lambda i: (table[i] ** 0.5, (1 - table[i]) ** 0.5)


RENOISED = {
    "ddim": cos_levels,
    "ddim eta": cos_levels,
    "ddpm": cos_levels,
    "euler": sigma_levels,
    "euler ancestral": sigma_levels,
    "dpm 2m": cos_levels,
    "lcm": cos_levels,
}


@pytest.mark.parametrize("name", RENOISED)
def test_resampling_renoises_to_the_knots_and_begins_anew_there(name: str) -> None:
    """From the generator that the pipeline passes; below the knot memory and noise are forgotten."""
    case, method, x = REAL[name], Resampling(steps=2, rounds=2), noise(2)
    scheduler = case.make()
    scheduler.set_timesteps(case.steps)
    assert distance(runs(case, x, method), walks(case, x, method, levels=RENOISED[name](scheduler))) <= WANTED


def test_a_corrector_is_left_out_and_said_once() -> None:
    import real_steps

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
    import real_steps

    pipe, seen = real_steps.Pipe(REAL["lcm"].make()), []

    plain = pipe(noise(1), 4, generator=seeded())
    with attach(pipe, Z2Sampling(warmup=1, steps=2)):
        led = pipe.scheduler.step
        pipe.scheduler.step = lambda *args, **kwargs: seen.append(led(*args, **kwargs)) or seen[-1]
        x = pipe(noise(1), 4, generator=seeded())
        pipe.scheduler.step = led
    assert all(len(answer) == 2 for answer in seen) and not torch.equal(x, plain)
    assert distance(seen[-1][1], x) <= WANTED  # the last step ends at its x₀
