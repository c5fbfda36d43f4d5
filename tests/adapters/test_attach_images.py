"""Pipelines that begin from an image, end early or look at one at every call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_paths import calls_of, check_same, inputs_of, path_from, picture, seeded
from torch import Tensor

from zigzag import EndToEnd, ImplicitZ, Resampling, Standard, Trace, Z2Sampling, ZSampling

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")
attach = pytest.importorskip("zigzag.adapters.diffusers").attach
AysSchedules = pytest.importorskip("diffusers.schedulers").AysSchedules

# diffusers hands tensors to numpy in a way that numpy 2 warns of, thousands of times.
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")

Tiny = Callable[..., Any]
METHODS = [ZSampling(steps=3), Z2Sampling(warmup=1)]
# Those whose path exists on a single step too, as a look at `timesteps[:1]` is.
SHORT = [ZSampling(steps=1), Z2Sampling(warmup=0), ImplicitZ(), EndToEnd(), Resampling(steps=1)]


@pytest.mark.parametrize("kind", ["ddim", "euler"])
@pytest.mark.parametrize("method", [*METHODS, *SHORT], ids=repr)
@pytest.mark.parametrize(("batch", "strength"), [(2, 0.4), (1, 0.7), (2, 1.0)])
def test_image_to_image_begins_in_the_middle(
    strength: float, batch: int, method: Any, kind: str, tiny: Tiny, schedulers: Tiny
) -> None:
    """`strength` cuts the grid, and the path is laid on what is left of it."""
    check_image_to_image(strength, batch, method, tiny, schedulers(kind))


@pytest.mark.parametrize("method", [ZSampling(), *SHORT], ids=repr)
@pytest.mark.parametrize("batch", [1, 2])
def test_image_to_image_of_a_single_step(batch: int, method: Any, tiny: Tiny, schedulers: Tiny) -> None:
    """The whole of what is left is then `timesteps[:1]`, the time that the image is noised to."""
    check_image_to_image(0.1, batch, method, tiny, schedulers("ddim"))


def check_image_to_image(strength: float, batch: int, method: Any, tiny: Tiny, scheduler: Any) -> None:
    given = {"strength": strength, "generator": 0, "scheduler": scheduler, "num_inference_steps": 10}
    case = tiny("sdxl", batch, kind="Img2Img", image=picture(batch, 3, 16, 16), **given)

    def run() -> Tensor:
        return case.run(generator=seeded())

    case.call["generator"] = seeded()
    shown = inputs_of(case)[0].chunk(2)[1]
    plain, start = run(), 10 - int(10 * strength)
    with attach(case.pipe, Standard()) as attached:
        assert torch.equal(run(), plain)
    assert attached.rows == 2 * (10 - start)
    with attach(case.pipe, method, generator=seeded(1)) as attached:
        x = run()
    if hasattr(scheduler, "sigmas"):
        shown = shown * (scheduler.sigmas[start] ** 2 + 1) ** 0.5
    case.img2img_ids()
    path = path_from(start, method, 10 - start)
    check_same(x, case.sampled(path, start=shown, generator=seeded(1)))
    assert attached.rows == 2 * calls_of(path)


def test_a_strength_that_leaves_no_step(tiny: Tiny) -> None:
    """Whatever the pipeline makes of it by itself it makes under Standard; there is no zigzag on no steps."""
    case = tiny("sdxl", kind="Img2Img", image=picture(1, 3, 16, 16), strength=0.05, generator=0, num_inference_steps=10)
    plain = case.run(generator=seeded())
    with attach(case.pipe, Standard(), trace=(trace := Trace())) as attached:
        x = case.run(generator=seeded())
    assert torch.equal(x, plain) and x.shape == plain.shape
    assert attached.rows == trace.rows == 0 and not trace.records
    with pytest.raises(ValueError, match="strength is too low"), attach(case.pipe, ZSampling()):
        case.run(generator=seeded())


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("method", [*METHODS, *SHORT], ids=repr)
@pytest.mark.parametrize(
    ("family", "kind"),
    [("sd", "StableDiffusionImg2Img"), ("sd3", "StableDiffusion3Img2Img"), ("flux", "FluxImg2Img")],
)
def test_image_to_image_of_other_families(family: str, kind: str, method: Any, batch: int, tiny: Tiny) -> None:
    case, side = tiny(family, batch), 64 if family == "flux" else 16
    case.pipe.vae.register_to_config(shift_factor=0.1)
    extra = {"requires_safety_checker": False} if family == "sd" else {}
    case.pipe = getattr(diffusers, f"{kind}Pipeline")(**case.pipe.components, **extra)
    case.pipe.set_progress_bar_config(disable=True)
    case.call |= {"image": picture(batch, 3, side, side), "strength": 0.6, "num_inference_steps": 10}
    prepare, starts = case.pipe.prepare_latents, []

    def keep(*args: Any, **kwargs: Any) -> Any:
        out = prepare(*args, **kwargs)
        starts.append(out[0] if isinstance(out, tuple) else out)
        return out

    case.pipe.prepare_latents = keep
    plain = case.run(generator=seeded())
    with attach(case.pipe, Standard()) as attached:
        assert torch.equal(case.run(generator=seeded()), plain)
    assert attached.rows == 2 * 6
    with attach(case.pipe, method, generator=seeded(1)) as attached:
        x = case.run(generator=seeded())
    path = path_from(4, method, 6)
    check_same(x, case.sampled(path, start=starts[0], generator=seeded(1)))
    assert torch.equal(starts[-1], starts[0]) and attached.rows == 2 * calls_of(path)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("batch", [1, 2])
def test_controlnet_sees_every_state(batch: int, method: Any, tiny: Tiny) -> None:
    """Its residuals are those of the state and the time of each call, never of an earlier one."""
    case = tiny("sdxl", batch, kind="ControlNet", image=picture(batch, 3, 16, 16))
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


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("method", [Standard(), *METHODS])
def test_a_base_and_a_refiner_share_the_grid(method: Any, batch: int, tiny: Tiny) -> None:
    """`denoising_end` ends the path early, and `denoising_start` begins one there."""
    case = tiny("sdxl", batch)
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

    refiner = tiny("sdxl", batch, kind="Img2Img", image=x, denoising_start=0.5)
    plain = refiner.run(num_inference_steps=10, generator=seeded())
    with attach(refiner.pipe, method):
        y = refiner.run(num_inference_steps=10, generator=seeded())
    if isinstance(method, Standard):
        assert torch.equal(y, plain)
    refiner.img2img_ids()
    check_same(y, refiner.sampled(path_from(knots, method, 10 - knots), start=x))


def test_another_pipeline_with_the_same_scheduler_is_led_as_well(tiny: Tiny) -> None:
    """Its cuts of the grid are slices of what the scheduler shows."""
    case, method = tiny("sdxl"), ZSampling(steps=2)
    image = picture(1, 3, 16, 16)
    other = tiny("sdxl", kind="Img2Img", image=image, strength=0.5, scheduler=case.pipe.scheduler)
    with attach(other.pipe, method):
        wanted = other.run(generator=seeded(), num_inference_steps=10)
    with attach(case.pipe, method) as run:
        assert torch.equal(other.run(generator=seeded(), num_inference_steps=10), wanted)
    assert run.rows == 2 * len(method.path(5))
