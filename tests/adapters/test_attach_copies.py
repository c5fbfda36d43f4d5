"""Pipelines that copy or rebuild their scheduler, or step another: led, refused, or counted, and never passed over."""

from __future__ import annotations

import copy
import copyreg
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_paths import calls_of, check_same
from torch import Tensor

from zigzag import Standard, Z2Sampling, ZSampling

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")
attach = pytest.importorskip("zigzag.adapters.diffusers").attach

# diffusers hands tensors to numpy in a way that numpy 2 warns of, thousands of times.
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")

Tiny = Callable[..., Any]
METHODS = [Z2Sampling(warmup=1), ZSampling()]


def panorama(case: Any, width: int, **call: Any) -> Callable[[], Tensor]:
    """The same model in the pipeline of overlapping views, 64 latents wide each; its plain image for one view."""
    parts = {**case.pipe.components, "requires_safety_checker": False}
    parts.pop("image_encoder", None)
    case.pipe = diffusers.StableDiffusionPanoramaPipeline(**parts)
    case.pipe.set_progress_bar_config(disable=True)
    case.latents = torch.randn(1, 4, 64, width, generator=torch.Generator().manual_seed(0))
    return lambda: case.run(height=8 * 64, width=8 * width, **call)


def test_a_view_that_puts_the_schedulers_attributes_back_is_led(tiny: Tiny) -> None:
    """The panorama pipeline copies `scheduler.__dict__`, step and all, and updates the scheduler with it."""
    case = tiny("sd")
    run = panorama(case, 64)
    plain = run()
    for method in (Standard(), *METHODS):
        with attach(case.pipe, method) as done, case.counted() as rows:
            x = run()
        assert done.rows == sum(rows) == 2 * calls_of(method.path(6))
        if method == Standard():
            assert torch.equal(x, plain)
        else:
            check_same(x, case.sampled(method))
    assert torch.equal(run(), plain) and "step" not in vars(case.pipe.scheduler)


def test_two_views_of_one_time_are_refused_and_counted(tiny: Tiny) -> None:
    case = tiny("sd")
    run = panorama(case, 72)
    plain = run()
    for method in METHODS:
        with pytest.raises(RuntimeError, match="more than once at one time"), attach(case.pipe, method):
            run()
    with attach(case.pipe, Standard()) as done, case.counted() as rows:
        assert torch.equal(run(), plain)
    assert done.rows == sum(rows) == 2 * 2 * 6


def loop(case: Any, kind: str) -> Tensor:
    """A loop of one's own that steps something other than the pipeline's scheduler."""
    pipe = case.pipe
    rebuilt = kind in ("rebuilt", "inner")
    if kind != "inner":
        pipe.scheduler.set_timesteps(6)
    copied = copy.copy if "shallow" in kind else copy.deepcopy
    mine = type(pipe.scheduler).from_config(pipe.scheduler.config) if rebuilt else copied(pipe.scheduler)
    mine.set_timesteps(6)
    x = case.latents
    e_u, e_c = case.call["negative_prompt_embeds"], case.call["prompt_embeds"]
    with torch.no_grad():
        for i, t in enumerate(mine.timesteps if kind == "inner" else pipe.scheduler.timesteps):
            if "frames" in kind:
                mine = copied(mine)
            u, c = pipe.unet(torch.cat([x, x]), t, torch.cat([e_u, e_c])).sample.chunk(2)
            x = mine.step(u + 4.0 * (c - u), mine.timesteps[i], x).prev_sample
    return x


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        ("copied", "steps a copy"),
        ("frames", "steps a copy"),
        ("rebuilt", "another one"),
        ("inner", "another one"),
        ("shallow", "steps a copy"),
        ("shallow frames", "steps a copy"),
    ],
)
def test_another_scheduler_is_an_error_before_there_is_an_image(kind: str, match: str, tiny: Tiny) -> None:
    case, done = tiny("sd"), []
    plain = loop(case, kind)
    for method in METHODS:
        with case.counted() as rows, pytest.raises(RuntimeError, match=match), attach(case.pipe, method):
            done.append(loop(case, kind))
        assert not done and len(rows) == 1
    with attach(case.pipe, Standard()) as run, case.counted() as rows:
        assert torch.equal(loop(case, kind), plain)
    assert run.rows == sum(rows) == 12


def test_a_loop_by_index_over_a_rebuilt_scheduler(tiny: Tiny) -> None:
    """Nothing tells but that the model is called as often as a whole loop calls it."""
    case = tiny("sd")

    def run() -> None:
        case.pipe.scheduler.set_timesteps(6)
        for i in range(6):
            case.pipe.unet(case.latents, case.pipe.scheduler.timesteps[i], case.call["prompt_embeds"])
        done.append(True)

    done: list[bool] = []
    with torch.no_grad(), pytest.raises(RuntimeError, match="another one"), attach(case.pipe, ZSampling()):
        run()
    assert not done
    with torch.no_grad(), attach(case.pipe, Standard()) as counted:
        run()
    assert counted.rows == 6


def test_calls_that_no_step_followed_are_an_error_on_leaving(tiny: Tiny) -> None:
    case = tiny("sd")
    with torch.no_grad(), pytest.raises(RuntimeError, match="no step of its scheduler followed"):  # noqa: SIM117
        with attach(case.pipe, ZSampling()):
            case.pipe.scheduler.set_timesteps(6)
            case.pipe.unet(case.latents, 1, case.call["prompt_embeds"])


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_callback_may_step_a_copy_of_its_own(copied: Any, tiny: Tiny) -> None:
    """For a preview, say; what is led goes on, and rows are the model's."""
    case, method = tiny("sd"), ZSampling(steps=2)

    def preview(pipe: Any, i: int, t: Tensor, given: dict[str, Tensor]) -> dict[str, Tensor]:
        x = given["latents"]
        copied(pipe.scheduler).step(torch.zeros_like(x), t, x)
        return {}

    with attach(case.pipe, method) as run:
        x = case.run(callback_on_step_end=preview)
    check_same(x, case.sampled(method))
    assert run.rows == 2 * len(method.path(6))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_steps_itself(copied: Any, tiny: Tiny, schedulers: Tiny) -> None:
    """A method that is copied with its object would step the original; after the block the copy is an ordinary one."""
    case, fresh = tiny("sd", scheduler=schedulers("euler")), schedulers("euler")
    scheduler, x = case.pipe.scheduler, case.latents
    e = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    with attach(case.pipe, Standard()):
        scheduler.set_timesteps(4)
        one = copied(scheduler)
        fresh.set_timesteps(4)
        for t in fresh.timesteps[:2]:
            assert torch.equal(one.step(e, t, x).prev_sample, fresh.step(e, t, x).prev_sample)
        assert one.step_index == 2 and scheduler.step_index is None
    assert torch.equal(one.step(e, t, x).prev_sample, fresh.step(e, t, x).prev_sample)
    assert not {"step", "set_timesteps", "add_noise"} & set(vars(one))
    assert copied(scheduler).step.__func__ is type(scheduler).step and type(scheduler) not in copyreg.dispatch_table
