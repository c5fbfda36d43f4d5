"""Pipelines that begin from an image, end early or look at one at every call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from zigzag import EndToEnd, Standard, Z2Sampling, ZSampling

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")
attach = pytest.importorskip("zigzag.adapters.diffusers").attach
AysSchedules = pytest.importorskip("diffusers.schedulers").AysSchedules

# diffusers hands tensors to numpy in a way that numpy 2 warns of, thousands of times.
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")

Tiny = Callable[..., Any]
WANTED = 1e-5
METHODS = [ZSampling(steps=3), Z2Sampling(warmup=1)]


def check_same(x: Tensor, y: Tensor) -> None:
    assert x.dtype == y.dtype and x.shape == y.shape and float((x - y).norm() / y.norm()) <= WANTED


def noise(*shape: int, seed: int = 8) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs_of(case: Any) -> list[Tensor]:
    """What the model was shown at each call of one plain run."""
    seen: list[Tensor] = []
    hook = case.model.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    case.run()
    hook.remove()
    return seen


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("kind", ["ddim", "euler"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("strength", [0.4, 0.7, 1.0])
def test_image_to_image_begins_in_the_middle(
    strength: float, method: Any, kind: str, tiny: Tiny, schedulers: Tiny
) -> None:
    """`strength` cuts the grid, and the path is laid on what is left of it."""
    image = noise(2, 3, 16, 16).clamp(-1, 1)
    case = tiny("sdxl", 2, kind="Img2Img", image=image, strength=strength, generator=0, scheduler=schedulers(kind))

    def run() -> Tensor:
        return case.run(generator=seeded(), num_inference_steps=10)

    case.call["generator"] = seeded()
    case.call["num_inference_steps"] = 10
    shown = inputs_of(case)[0].chunk(2)[1]
    plain = run()
    with attach(case.pipe, Standard()):
        assert torch.equal(run(), plain)
    with attach(case.pipe, method) as attached:
        x = run()
    start = 10 - int(10 * strength)
    scheduler = case.pipe.scheduler
    if kind == "euler":
        shown = shown * (scheduler.sigmas[start] ** 2 + 1) ** 0.5
    case.img2img_ids()
    path = [move_by(move, start) for move in method.path(10 - start)]
    check_same(x, case.sampled(path, start=shown))
    assert attached.rows == 2 * sum(type(move).__name__ != "Shift" for move in path)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("family", "kind"),
    [("sd", "StableDiffusionImg2Img"), ("sd3", "StableDiffusion3Img2Img"), ("flux", "FluxImg2Img")],
)
def test_image_to_image_of_other_families(family: str, kind: str, method: Any, tiny: Tiny) -> None:
    case, side = tiny(family), 64 if family == "flux" else 16
    case.pipe.vae.register_to_config(shift_factor=0.1)
    extra = {"requires_safety_checker": False} if family == "sd" else {}
    case.pipe = getattr(diffusers, f"{kind}Pipeline")(**case.pipe.components, **extra)
    case.pipe.set_progress_bar_config(disable=True)
    case.call |= {"image": noise(1, 3, side, side).clamp(-1, 1), "strength": 0.6, "num_inference_steps": 10}
    prepare, starts = case.pipe.prepare_latents, []

    def keep(*args: Any, **kwargs: Any) -> Any:
        out = prepare(*args, **kwargs)
        starts.append(out[0] if isinstance(out, tuple) else out)
        return out

    case.pipe.prepare_latents = keep
    plain = case.run(generator=seeded())
    with attach(case.pipe, Standard()):
        assert torch.equal(case.run(generator=seeded()), plain)
    with attach(case.pipe, method):
        x = case.run(generator=seeded())
    path = [move_by(move, 4) for move in method.path(6)]
    check_same(x, case.sampled(path, start=starts[-1]))


def move_by(move: Any, by: int) -> Any:
    return type(move)(*(value + by if type(value) is int else value for value in _fields(move)))


def _fields(move: Any) -> list[Any]:
    # refine of an Invert is a number too, but no knot
    names = [name for name in type(move).__dataclass_fields__ if name in ("i", "j", "fresh")]
    return [getattr(move, name) for name in names]


@pytest.mark.parametrize("method", METHODS)
def test_inpainting_with_nine_channels(method: Any, tiny: Tiny) -> None:
    """The mask and the masked image are put behind the state at every call."""
    image, mask = noise(1, 3, 16, 16).clamp(-1, 1), (noise(1, 1, 16, 16) > 0).float()
    case = tiny("sdxl", kind="Inpaint", in_channels=9, image=image, mask_image=mask, strength=1.0, generator=0)
    case.call |= {"generator": seeded(), "height": 16, "width": 16}
    shown = inputs_of(case)[0].chunk(2)[1]
    case.call["generator"] = seeded()
    with attach(case.pipe, method):
        x = case.run()
    case.img2img_ids()
    predict, rest = case.predict, shown[:, 4:]
    case.predict = lambda x, t, cond: predict(torch.cat([x, rest], 1), t, cond)
    check_same(x, case.sampled(method, start=shown[:, :4]))


@pytest.mark.parametrize("kind", ["ddim", "euler"])
@pytest.mark.parametrize("method", [ZSampling(steps=4), EndToEnd()])
def test_inpainting_with_four_channels_blends_at_the_knot_of_the_state(
    method: Any, kind: str, tiny: Tiny, schedulers: Tiny
) -> None:
    """After each call the background is the image noised to the knot where the state is, clean at data."""
    image, mask = noise(1, 3, 16, 16).clamp(-1, 1), (noise(1, 1, 16, 16) > 0).float()
    given = {"image": image, "mask_image": mask, "strength": 1.0, "generator": 0, "scheduler": schedulers(kind)}
    case = tiny("sdxl", kind="Inpaint", **given)
    case.call |= {"height": 16, "width": 16}
    case.call["generator"] = seeded()
    start = inputs_of(case)[0].chunk(2)[1]
    kept: dict[str, Tensor] = {}
    prepare = case.pipe.prepare_latents

    def keep(*args: Any, **kwargs: Any) -> Any:
        out = prepare(*args, **kwargs)
        kept["noise"], kept["image"] = out[1], out[2]
        return out

    case.pipe.prepare_latents = keep
    case.call["generator"] = seeded()
    with attach(case.pipe, method) as run:
        x = case.run()
    case.img2img_ids()
    scheduler, hole = case.pipe.scheduler, torch.nn.functional.interpolate(mask, size=(8, 8))
    solver = case.solver()

    def blend(visit: Any) -> Tensor:
        i = visit.knot
        alpha, sigma = (1.0, 0.0) if i == len(solver) else (float(solver.alphas[i]), float(solver.sigmas[i]))
        return (1 - hole) * (alpha * kept["image"] + sigma * kept["noise"]) + hole * visit.state

    if kind == "euler":
        start = start * (scheduler.sigmas[0] ** 2 + 1) ** 0.5
    check_same(x, case.sampled(method, start=start, callback=blend))
    assert run.knot == len(solver)


def test_inpainting_of_a_flow_blends_packed_tokens(tiny: Tiny) -> None:
    """The same for Flux, whose scheduler noises by `scale_noise`, from `strength` on."""
    image, mask = noise(1, 3, 64, 64).clamp(-1, 1), (noise(1, 1, 64, 64) > 0).float()
    case, method = tiny("flux"), ZSampling(steps=2)
    case.pipe.vae.register_to_config(shift_factor=0.1)
    case.pipe = diffusers.FluxInpaintPipeline(**case.pipe.components)
    case.pipe.set_progress_bar_config(disable=True)
    case.call |= {"image": image, "mask_image": mask, "strength": 0.7, "num_inference_steps": 10}
    kept: dict[str, Tensor] = {}
    prepare, prepare_mask = case.pipe.prepare_latents, case.pipe.prepare_mask_latents

    def keep(*args: Any, **kwargs: Any) -> Any:
        out = prepare(*args, **kwargs)
        kept.update(zip(("start", "noise", "image"), out[:3], strict=True))
        return out

    def keep_mask(*args: Any, **kwargs: Any) -> Any:
        out = prepare_mask(*args, **kwargs)
        kept["hole"] = out[0]
        return out

    case.pipe.prepare_latents, case.pipe.prepare_mask_latents = keep, keep_mask
    with attach(case.pipe, method):
        x = case.run(generator=seeded())
    sigmas = case.pipe.scheduler.sigmas

    def blend(visit: Any) -> Tensor:
        s = float(sigmas[visit.knot])
        return (1 - kept["hole"]) * ((1 - s) * kept["image"] + s * kept["noise"]) + kept["hole"] * visit.state

    path = [move_by(move, 3) for move in method.path(7)]
    check_same(x, case.sampled(path, start=kept["start"], callback=blend))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("batch", [1, 2])
def test_controlnet_sees_every_state(batch: int, method: Any, tiny: Tiny) -> None:
    """Its residuals are those of the state and the time of each call, never of an earlier one."""
    case = tiny("sdxl", batch, kind="ControlNet", image=noise(batch, 3, 16, 16))
    plain = case.run()
    with attach(case.pipe, Standard()):
        assert torch.equal(case.run(), plain)
    with attach(case.pipe, method):
        x = case.run()
    check_same(x, case.sampled(method))


def test_custom_time_steps_and_sigmas(tiny: Tiny, schedulers: Tiny) -> None:
    """Align Your Steps, and a list of one's own: the path has as many steps as were given."""
    for given in (
        {"timesteps": AysSchedules["StableDiffusionTimesteps"]},
        {"sigmas": AysSchedules["StableDiffusionSigmas"]},
        {"timesteps": [900, 500, 200, 100]},
    ):
        case = tiny("sd", scheduler=schedulers("euler"))
        plain = case.run(**given)
        with attach(case.pipe, Standard()):
            assert torch.equal(case.run(**given), plain)
        for method in METHODS:
            with attach(case.pipe, method):
                x = case.run(**given)
            assert len(case.pipe.scheduler.timesteps) == len(next(iter(given.values()))) - ("sigmas" in given)
            check_same(x, case.sampled(method))
    case = tiny("flux")
    case.call["sigmas"] = [1.0, 0.8, 0.5, 0.2]
    with attach(case.pipe, METHODS[0]):
        x = case.run()
    check_same(x, case.sampled(METHODS[0]))


@pytest.mark.parametrize("method", [Standard(), *METHODS])
def test_a_base_and_a_refiner_share_the_grid(method: Any, tiny: Tiny) -> None:
    """`denoising_end` ends the path early, and `denoising_start` begins one there."""
    case = tiny("sdxl")
    plain = case.run(denoising_end=0.5, num_inference_steps=10)
    with attach(case.pipe, method) as run:
        x = case.run(denoising_end=0.5, num_inference_steps=10)
    knots = int((case.pipe.scheduler.timesteps >= 500).sum())
    assert 0 < knots < 10
    if isinstance(method, Standard):
        assert torch.equal(x, plain)
    path = method.path(knots)
    assert run.rows == 2 * sum(type(move).__name__ != "Shift" for move in path)
    check_same(x, case.sampled(path))

    refiner = tiny("sdxl", kind="Img2Img", image=x, denoising_start=0.5)
    plain = refiner.run(num_inference_steps=10, generator=seeded())
    with attach(refiner.pipe, method):
        y = refiner.run(num_inference_steps=10, generator=seeded())
    if isinstance(method, Standard):
        assert torch.equal(y, plain)
    refiner.img2img_ids()
    check_same(y, refiner.sampled([move_by(move, knots) for move in method.path(10 - knots)], start=x))


def test_another_pipeline_with_the_same_scheduler_is_led_as_well(tiny: Tiny) -> None:
    """Its cuts of the grid are slices of what the scheduler shows."""
    case, method = tiny("sdxl"), ZSampling(steps=2)
    image = noise(1, 3, 16, 16).clamp(-1, 1)
    other = tiny("sdxl", kind="Img2Img", image=image, strength=0.5, scheduler=case.pipe.scheduler)
    with attach(other.pipe, method):
        wanted = other.run(generator=seeded(), num_inference_steps=10)
    with attach(case.pipe, method) as run:
        assert torch.equal(other.run(generator=seeded(), num_inference_steps=10), wanted)
    assert run.rows == 2 * len(method.path(5))
