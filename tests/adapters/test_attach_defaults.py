"""The one line, on every family of pipelines with the scheduler that its checkpoints ship."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from zigzag import ImplicitZ, Resampling, Standard, Trace, Z2Sampling, ZSampling

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")
adapters = pytest.importorskip("zigzag.adapters.diffusers")
attach, solver_from_scheduler = adapters.attach, adapters.solver_from_scheduler

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*without its corrector"),
]

Tiny = Callable[..., Any]
WANTED = 1e-5  # as in test_attach.py

SD: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
PNDM: dict[str, Any] = {**SD, "skip_prk_steps": True, "set_alpha_to_one": False}
V: dict[str, Any] = {"prediction_type": "v_prediction"}
FLOWS: dict[str, Any] = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
ZERO: dict[str, Any] = {**V, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
FLOW = "FlowMatchEulerDiscreteScheduler"
# As the `scheduler_config.json` of a checkpoint of that family has it.
DEFAULTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "stable diffusion 1.5": ("sd", "PNDMScheduler", PNDM),
    "stable diffusion turbo": ("sd", "EulerAncestralDiscreteScheduler", {**SD, "timestep_spacing": "trailing"}),
    "sdxl": ("sdxl", "EulerDiscreteScheduler", {**SD, "timestep_spacing": "leading"}),
    "playground 2.5": ("sdxl", "EDMDPMSolverMultistepScheduler", {"sigma_min": 0.002, "sigma_max": 80.0}),
    "sd3": ("sd3", FLOW, {"shift": 3.0}),
    "hunyuan-dit": ("hunyuan", "DDPMScheduler", {**SD, **V, "beta_end": 0.03, "clip_sample": False}),
    "pixart": ("pixart", "DPMSolverMultistepScheduler", {"beta_start": 0.0001, "beta_end": 0.02}),
    "sana": ("sana", "DPMSolverMultistepScheduler", FLOWS),
    "lumina2": ("lumina2", FLOW, {"shift": 6.0}),
    "z-image": ("z_image", FLOW, {"shift": 6.0}),
    "auraflow": ("auraflow", FLOW, {"shift": 1.73}),
    "flux": ("flux", FLOW, {"shift": 3.0, "use_dynamic_shifting": True}),
    "flux2-klein": ("flux2_klein", FLOW, {"shift": 3.0, "use_dynamic_shifting": True}),
    "chroma": ("chroma", FLOW, {"shift": 3.0}),
    "qwen-image": ("qwen", FLOW, {"use_dynamic_shifting": True, "shift_terminal": 0.02}),
    "ltx-video": ("ltx", FLOW, {"use_dynamic_shifting": True, "shift_terminal": 0.1}),
    "cogview4": ("cogview4", FLOW, {"use_dynamic_shifting": True, "time_shift_type": "linear"}),
    "cogvideox 2b": ("cogvideox", "CogVideoXDDIMScheduler", ZERO),
    "animatediff": ("animatediff", "DDIMScheduler", {**SD, "beta_schedule": "linear", "clip_sample": False}),
    "animatediff on 1.5": ("animatediff", "PNDMScheduler", PNDM),
    "modelscope": ("modelscope", "DDIMScheduler", {**SD, "clip_sample": False, "set_alpha_to_one": False}),
    "wan": ("wan", "UniPCMultistepScheduler", FLOWS),
}


def check_same(x: Tensor, y: Tensor) -> None:
    assert x.dtype == y.dtype and x.shape == y.shape and float((x - y).norm() / y.norm()) <= WANTED


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize("name", DEFAULTS)
def test_the_one_line_works_with_the_checkpoints_own_scheduler(name: str, tiny: Tiny) -> None:
    """And is the core's own loop on that solver, with a predictor written by hand and noise of the same seed."""
    family, scheduler, config = DEFAULTS[name]
    case = tiny(family, 2 if family == "sd" else 1, scheduler=getattr(diffusers, scheduler)(**config))
    for method in (ZSampling(steps=2), Z2Sampling(warmup=2)):
        given: dict[str, Any] = {"generator": seeded(), "latents": case.latents.clone()}
        with attach(case.pipe, method) as run, case.counted() as rows:
            x = case.run(**given)
        assert run.rows == sum(rows) / (2 if family == "sd" else 1) and bool(x.isfinite().all())
        solver = solver_from_scheduler(case.pipe.scheduler)
        if name == "playground 2.5":  # whose predictor by hand has no preconditioned input
            continue
        check_same(x, case.sampled(method, solver=solver, generator=seeded()))


def test_cogvideox_5b_draws_twice_a_step(tiny: Tiny) -> None:
    """CogVideoXDPM: against copies of the real scheduler. At its first knot, of no signal, a step has no inverse."""
    import real_steps

    method = Z2Sampling(warmup=2)
    case = tiny("cogvideox", scheduler=diffusers.CogVideoXDPMScheduler(**ZERO))
    with attach(case.pipe, method):
        x = case.run(generator=seeded(), latents=case.latents.clone())
    with pytest.raises(ValueError, match="from knot 0 to 1 has no inverse"), attach(case.pipe, ZSampling()):
        case.run()
    with attach(case.pipe, ImplicitZ(start=1)):
        assert bool(case.run().isfinite().all())
    scheduler = diffusers.CogVideoXDPMScheduler(**ZERO)
    scheduler.set_timesteps(5)

    def predict(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            e_u, e_c = (case.predict(x, t.expand(len(x)), cond) for cond in (case.uncond, case.cond))
        return e_u, e_c

    strong = case.strong if isinstance(case.strong, float) else 4.0
    walk = real_steps.Walk(scheduler, [[k] for k in range(5)], scale=strong, generator=seeded(), predict=predict)
    check_same(x, case.finish(walk(case.latents, method.path(5))))


def test_stable_diffusions_own_scheduler_takes_every_method(tiny: Tiny) -> None:
    """PNDM, whose first two calls are one step: five steps are six calls."""
    case = tiny("sd", scheduler=diffusers.PNDMScheduler(**PNDM))
    for method in (ZSampling(), Z2Sampling(warmup=2), ImplicitZ(), Resampling()):
        trace, wanted = Trace(), Trace()
        with attach(case.pipe, method, trace=trace, generator=seeded()) as run:
            x = case.run(num_inference_steps=5)
        solver = solver_from_scheduler(case.pipe.scheduler)
        assert len(solver) == 5 and len(case.pipe.scheduler.timesteps) == 6
        check_same(x, case.sampled(method, solver=solver, generator=seeded(), trace=wanted))
        assert trace.rows == run.rows and [r.move for r in trace.records] == [r.move for r in wanted.records]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        with attach(case.pipe, ZSampling()):
            case.run(num_inference_steps=5)


@pytest.mark.parametrize(("strength", "knot"), [(0.6, 3), (0.9, 1)])
@pytest.mark.parametrize("kind", ["pndm", "2m", "heun", "lms"])
def test_a_path_that_begins_in_the_middle_has_a_shorter_memory(
    kind: str, strength: float, knot: int, tiny: Tiny
) -> None:
    """Image to image: what the solver has there without anything remembered. PNDM and LMS begin at first order.

    Its loop may begin with the second call of its first step, which stands where the next knot does.
    """
    import tiny_paths

    schedulers = {
        "pndm": diffusers.PNDMScheduler(**PNDM),
        "2m": diffusers.DPMSolverMultistepScheduler(**SD),
        "heun": diffusers.HeunDiscreteScheduler(**SD),
        "lms": diffusers.LMSDiscreteScheduler(**SD),
    }
    case = from_image(tiny("sd", scheduler=schedulers[kind]), strength)
    prepare, starts = case.pipe.prepare_latents, []

    def keep(*args: Any, **kwargs: Any) -> Any:
        starts.append(prepare(*args, **kwargs))
        return starts[-1]

    case.pipe.prepare_latents = keep
    knot = knot if kind == "pndm" else round(10 * (1 - strength))
    for method in (ZSampling(), Z2Sampling(warmup=1)):
        with attach(case.pipe, method) as run:
            x = case.run(generator=seeded())
        solver = solver_from_scheduler(case.pipe.scheduler)
        path = tiny_paths.path_from(knot, method, 10 - knot)
        if kind == "heun":  # whose hand-written input is not scaled
            assert run.rows == 2 * sum(1 if type(m).__name__ == "Invert" else calls(m) for m in path)
            continue
        check_same(x, case.sampled(path, start=starts[-1], solver=solver))


def from_image(case: Any, strength: float) -> Any:
    import tiny_paths

    case.pipe = diffusers.StableDiffusionImg2ImgPipeline(**case.pipe.components, requires_safety_checker=False)
    case.pipe.set_progress_bar_config(disable=True)
    case.pipe.vae.register_to_config(shift_factor=0.1)
    case.call |= {"image": tiny_paths.picture(1, 3, 16, 16), "strength": strength, "num_inference_steps": 10}
    return case


class OrderOfItsMemory(diffusers.LMSDiscreteScheduler):  # type: ignore[misc]
    """LMS at the order of the predictions that it has, where diffusers' takes that of its place on the grid."""

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, return_dict: bool = True) -> Any:
        order = min(4, 1 + len(self.derivatives))
        return super().step(model_output, timestep, sample, order=order, return_dict=return_dict)


def test_image_to_image_on_lms_is_the_plain_one_but_for_the_order_of_its_first_steps(tiny: Tiny) -> None:
    """By itself LMS weighs a first prediction as the newest of four, and so does not step to its next level."""
    case = from_image(tiny("sd", scheduler=diffusers.LMSDiscreteScheduler(**SD)), 0.6)
    plain = case.run(generator=seeded())
    with attach(case.pipe, ImplicitZ(), weak=4.0):  # the strong scale
        x = case.run(generator=seeded())
    case.pipe.scheduler = OrderOfItsMemory(**SD)
    wanted = case.run(generator=seeded())
    check_same(x, wanted)
    assert float((plain - wanted).norm() / wanted.norm()) > 0.01


def calls(move: Any) -> int:
    """Model calls of a move over Heun's steps on ten of them: two for all but the last."""
    return 0 if type(move).__name__ == "Shift" else 1 if move.j == 10 else 2


@pytest.mark.parametrize(
    "name", ["DDPM", "EulerAncestralDiscrete", "UniPCMultistep", "DPMSolverMultistep", "PNDM", "HeunDiscrete", "LCM"]
)
def test_standard_is_every_schedulers_own(name: str, tiny: Tiny, schedulers: Tiny) -> None:
    """Bit by bit, whatever it holds: memory, noise, a corrector or two halves of a step."""
    case = tiny("sd", scheduler=getattr(diffusers, f"{name}Scheduler").from_config(schedulers("ddim").config))
    generator = {"generator": torch.Generator().manual_seed(0), "latents": case.latents}
    plain = case.run(**generator)
    with attach(case.pipe, Standard()) as run, case.counted() as rows:
        again = case.run(generator=torch.Generator().manual_seed(0), latents=case.latents)
    assert torch.equal(plain, again) and run.rows == sum(rows)
