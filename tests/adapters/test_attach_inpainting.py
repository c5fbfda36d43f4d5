"""Inpainting: what a pipeline puts behind the state at every call, or blends into it after one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from tiny_paths import calls_of, check_same, inputs_of, path_from, picture, seeded
from torch import Tensor

from zigzag import EndToEnd, Standard, Z2Sampling, ZSampling
from zigzag.moves import Shift

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")
adapters = pytest.importorskip("zigzag.adapters.diffusers")
attach, Role = adapters.attach, adapters.Role

# diffusers hands tensors to numpy in a way that numpy 2 warns of, thousands of times.
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")

Tiny = Callable[..., Any]
METHODS = [ZSampling(steps=3), Z2Sampling(warmup=1)]


def hole(side: int) -> Tensor:
    """The mask: 1 where the picture is to be painted anew."""
    return (torch.randn(1, 1, side, side, generator=seeded(8)) > 0).float()


def check_standard(case: Any) -> None:
    """Under Standard() bit by bit what it is without, and the rows counted."""

    def run() -> Tensor:
        return case.run(generator=seeded())

    plain = run()
    with attach(case.pipe, Standard()) as attached, case.counted() as rows:
        assert torch.equal(run(), plain)
    assert attached.rows == sum(rows) / len(case.latents) > 0


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_inpainting_with_nine_channels(method: Any, batch: int, tiny: Tiny) -> None:
    """The mask and the masked image are put behind the state at every call."""
    given = {"image": picture(1, 3, 16, 16), "mask_image": hole(16), "strength": 1.0, "height": 16, "width": 16}
    case = tiny("sdxl", batch, kind="Inpaint", in_channels=9, generator=0, **given)
    check_standard(case)
    case.call["generator"] = seeded()
    shown = inputs_of(case)[0].chunk(2)[1]
    with attach(case.pipe, method) as attached:
        x = case.run(generator=seeded())
    case.img2img_ids()
    predict, rest = case.predict, shown[:, 4:]
    case.predict = lambda x, t, cond: predict(torch.cat([x, rest], 1), t, cond)
    check_same(x, case.sampled(method, start=shown[:, :4]))
    assert attached.rows == 2 * calls_of(method.path(6))


def blending(path: Sequence[Any], blend: Callable[[Tensor, int], Tensor]) -> Callable[[Any], Tensor | None]:
    """A callback that blends after every call: a shift that needs none has been made by then."""
    after = iter([*path[1:], None])

    def callback(visit: Any) -> Tensor | None:
        return None if isinstance(next(after), Shift) else blend(visit.state, visit.knot)

    return callback


@pytest.mark.parametrize("kind", ["ddim", "euler"])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("strength", [1.0, 0.5])
@pytest.mark.parametrize("method", [ZSampling(steps=2), Z2Sampling(warmup=1), EndToEnd()], ids=repr)
def test_inpainting_with_four_channels_blends_at_the_knot_of_the_state(
    method: Any, strength: float, batch: int, kind: str, tiny: Tiny, schedulers: Tiny
) -> None:
    """After each call the background is the image noised to the knot where the state is, clean at data."""
    given = {"image": picture(1, 3, 16, 16), "mask_image": hole(16), "strength": strength, "height": 16, "width": 16}
    case = tiny("sdxl", batch, kind="Inpaint", generator=0, scheduler=schedulers(kind), **given)
    check_standard(case)
    case.call["generator"] = seeded()
    start, kept = inputs_of(case)[0].chunk(2)[1], keep_latents(case.pipe, "", "noise", "image")
    with attach(case.pipe, method) as run:
        x = case.run(generator=seeded())
    case.img2img_ids()
    first, solver = 6 - int(6 * strength), case.solver()
    mask = torch.nn.functional.interpolate(hole(16), size=(8, 8))

    def blend(state: Tensor, i: int) -> Tensor:
        alpha, sigma = (1.0, 0.0) if i == len(solver) else (float(solver.alphas[i]), float(solver.sigmas[i]))
        return (1 - mask) * (alpha * kept["image"] + sigma * kept["noise"]) + mask * state

    if kind == "euler":
        start = start * (case.pipe.scheduler.sigmas[first] ** 2 + 1) ** 0.5
    path = path_from(first, method, 6 - first)
    check_same(x, case.sampled(path, start=start, callback=blending(path, blend)))
    assert run.knot == len(solver) and run.rows == 2 * calls_of(path)


def keep_latents(pipe: Any, *names: str) -> dict[str, Tensor]:
    """What `prepare_latents` of the pipeline has returned last, by these names."""
    kept: dict[str, Tensor] = {}
    prepare = pipe.prepare_latents

    def keep(*args: Any, **kwargs: Any) -> Any:
        out = prepare(*args, **kwargs)
        kept.update(zip(names, out, strict=False))
        return out

    pipe.prepare_latents = keep
    return kept


@pytest.mark.parametrize(("batch", "distilled"), [(1, False), (2, False), (1, True)])
@pytest.mark.parametrize("method", [ZSampling(steps=2), Z2Sampling(warmup=1)], ids=repr)
def test_inpainting_of_a_flow_blends_packed_tokens(method: Any, batch: int, distilled: bool, tiny: Tiny) -> None:
    """The same for Flux, whose scheduler noises by `scale_noise`, from `strength` on.

    Distilled, its state is blended between the calls of two roles too, to the same.
    """
    case = tiny("flux", batch, **({"true_cfg_scale": 1.0} if distilled else {}))
    weak = Role(guidance=1.5) if distilled else 0.0
    case.pipe.vae.register_to_config(shift_factor=0.1)
    case.pipe = diffusers.FluxInpaintPipeline(**case.pipe.components)
    case.pipe.set_progress_bar_config(disable=True)
    case.call |= {"image": picture(1, 3, 64, 64), "mask_image": hole(64), "strength": 0.7, "num_inference_steps": 10}
    check_standard(case)
    kept, prepare_mask = keep_latents(case.pipe, "start", "noise", "image"), case.pipe.prepare_mask_latents

    def keep_mask(*args: Any, **kwargs: Any) -> Any:
        out = prepare_mask(*args, **kwargs)
        kept["mask"] = out[0]
        return out

    case.pipe.prepare_mask_latents = keep_mask
    with attach(case.pipe, method, weak=weak) as attached, case.counted() as rows:
        x = case.run(generator=seeded())
    sigmas, mask = case.pipe.scheduler.sigmas, kept["mask"]

    def blend(state: Tensor, knot: int) -> Tensor:
        s = float(sigmas[knot])
        return (1 - mask) * ((1 - s) * kept["image"] + s * kept["noise"]) + mask * state

    path = path_from(3, method, 7)
    given = {"start": kept["start"], "callback": blending(path, blend)}
    if distilled:
        given |= {"strong": 1.0, "weak": 1.0, "weak_cond": {**case.cond, "guidance": torch.full((batch,), 1.5)}}
    check_same(x, case.sampled(path, **given))
    assert attached.rows == sum(rows) / batch and (distilled or attached.rows == 2 * calls_of(path))


def test_inpainting_that_ends_early(tiny: Tiny) -> None:
    """`denoising_end` cuts the loop short; its last call, by which the pipeline blends no noise, is the path's last."""
    given = {"image": picture(1, 3, 16, 16), "mask_image": hole(16), "strength": 1.0, "height": 16, "width": 16}
    case, method = tiny("sdxl", kind="Inpaint", generator=0, denoising_end=0.5, **given), ZSampling()
    check_standard(case)
    case.call["generator"] = seeded()
    start, kept = inputs_of(case)[0].chunk(2)[1], keep_latents(case.pipe, "", "noise", "image")
    with attach(case.pipe, method) as attached:
        x = case.run(generator=seeded())
    case.img2img_ids()
    steps, solver = int((case.pipe.scheduler.timesteps >= 500).sum()), case.solver()
    path, visits = method.path(steps), iter(range(1, 100))
    mask = torch.nn.functional.interpolate(hole(16), size=(8, 8))

    def blend(state: Tensor, i: int) -> Tensor:
        last = next(visits) == len(path)
        alpha, sigma = (1.0, 0.0) if last else (float(solver.alphas[i]), float(solver.sigmas[i]))
        return (1 - mask) * (alpha * kept["image"] + sigma * kept["noise"]) + mask * state

    check_same(x, case.sampled(path, start=start, callback=blending(path, blend)))
    assert 1 < steps < 6 and attached.knot == steps


@pytest.mark.parametrize("family", ["sd", "sd3", "inpainting"])
def test_a_callback_that_noises_to_a_time_of_its_own_gets_that_time(family: str, tiny: Tiny) -> None:
    """Only the pipeline's own blend, which asks for the time of the call to come, is led to the knot of the state."""
    if family == "inpainting":
        case = tiny("sdxl", kind="Inpaint", image=picture(1, 3, 16, 16), mask_image=hole(16), strength=1.0, generator=0)
        case.call |= {"height": 16, "width": 16}
    else:
        case = tiny(family)
    case.run(generator=seeded())
    own, ones, got = case.pipe.scheduler.timesteps[4:5].clone(), torch.ones(1, 4, 8, 8), []

    def callback(pipe: Any, i: int, t: Tensor, given: dict[str, Any]) -> dict[str, Any]:
        noised = pipe.scheduler.scale_noise if family == "sd3" else pipe.scheduler.add_noise
        got.append(noised(ones, own, 2 * ones) if family == "sd3" else noised(ones, 2 * ones, own))
        return {}

    case.run(generator=seeded(), callback_on_step_end=callback)
    wanted, calls = got[0], len(got)
    got.clear()
    with attach(case.pipe, ZSampling(steps=2)):
        x = case.run(generator=seeded(), callback_on_step_end=callback)
    assert len(got) == calls + 4 and all(torch.equal(noised, wanted) for noised in got)
    with attach(case.pipe, ZSampling(steps=2)):
        assert torch.equal(case.run(generator=seeded()), x)
