"""What `attach` refuses, before there is an image, and what it leaves behind when something goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from zigzag import ImplicitZ, Standard, Trace, Z2Sampling, ZSampling
from zigzag.moves import Denoise

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")
attach = pytest.importorskip("zigzag.adapters.diffusers").attach


# diffusers hands tensors to numpy in a way that numpy 2 warns of, thousands of times.
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")

Tiny = Callable[..., Any]


def snapshot(pipe: Any) -> tuple[Any, ...]:
    """What replaces a method on an instance, and the hooks. (A first call adds settings of the pipeline's own.)"""
    model = getattr(pipe, "unet", None) or pipe.transformer
    parts = (pipe, pipe.scheduler, model)
    methods = [name for part in parts for name, value in vars(part).items() if ismethodlike(value)]
    return methods, len(model._forward_hooks), len(model._forward_pre_hooks)


def ismethodlike(value: Any) -> bool:
    return callable(value) and not isinstance(value, type | torch.nn.Module)


def calls_before(error: type[Exception], match: str, case: Any, method: Any, **call: Any) -> int:
    """How many model calls were made before the refusal; whatever it was, the pipeline is as it was."""
    before = snapshot(case.pipe)
    with case.counted() as rows, pytest.raises(error, match=match), attach(case.pipe, method):
        case.run(**call)
    assert snapshot(case.pipe) == before
    assert type(getattr(case.pipe.scheduler, "timesteps", None)) in (Tensor, type(None))
    return len(rows)


@pytest.mark.parametrize(
    ("name", "config", "reason"),
    [
        ("DPMSolverSinglestepScheduler", {"solver_order": 3}, "one step of 3 model calls.*DPMSolverMultistepScheduler"),
        ("PNDMScheduler", {"skip_prk_steps": False}, "Runge-Kutta.*skip_prk_steps=True"),
        ("DDPMScheduler", {"variance_type": "learned_range"}, "learned variance.*fixed_small"),
    ],
)
def test_schedulers_whose_steps_cannot_be_led(
    name: str, config: dict[str, Any], reason: str, tiny: Tiny, schedulers: Tiny
) -> None:
    """Before the first model call, with the reason and what works."""
    for method in (ZSampling(), Z2Sampling(warmup=1)):
        case = tiny("sd", scheduler=getattr(diffusers, name).from_config(schedulers("ddim").config, **config))
        assert calls_before(ValueError, f"(?s){reason}", case, method) == 0


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"clip_sample": True}, "clip_sample=False"),
        ({"thresholding": True}, "thresholding=False"),
        ({"timestep_spacing": "linspace"}, "timestep_spacing='leading'"),
        ({"timestep_spacing": "trailing"}, "divides 1000"),
    ],
)
def test_configurations_that_no_knots_represent(
    config: dict[str, Any], match: str, tiny: Tiny, schedulers: Tiny
) -> None:
    case = tiny("sdxl", scheduler=schedulers("ddim", **config))
    assert calls_before(ValueError, match, case, ZSampling()) == 0


def test_a_step_without_an_inverse_where_the_path_needs_it(tiny: Tiny, schedulers: Tiny) -> None:
    """The last step of x₀ predictions keeps nothing of the state: ZSampling ends before it, ImplicitZ does not."""
    case = tiny("sdxl", scheduler=schedulers("ddim", prediction_type="sample", set_alpha_to_one=True))
    assert calls_before(ValueError, "from knot 5 to 6 has no inverse", case, ImplicitZ()) == 0
    with attach(case.pipe, ZSampling()):
        case.run()


@pytest.mark.parametrize(
    ("family", "call"),
    [
        ("sd", {"guidance_scale": 1.0}),
        ("sd3", {"guidance_scale": 1.0}),
        ("flux", {"true_cfg_scale": 1.0}),
        ("flux", {"negative_prompt_embeds": None, "negative_pooled_prompt_embeds": None}),
        ("flux2_klein", {"guidance_scale": 1.0}),
        ("qwen", {"true_cfg_scale": 1.0}),
        ("wan", {"guidance_scale": 1.0}),
        ("z_image", {"guidance_scale": 0.0}),
        ("lumina2", {"guidance_scale": 1.0}),
    ],
)
def test_guidance_without_an_unconditional_branch(family: str, call: dict[str, Any], tiny: Tiny) -> None:
    """After the first call, which shows it; there is no gap to zigzag over. Standard() counts its one row a step."""
    for method in (ZSampling(), Z2Sampling(warmup=1)):
        assert calls_before(ValueError, "no unconditional branch", tiny(family), method, **call) == 1
    case = tiny(family)
    with attach(case.pipe, Standard()) as run:
        case.run(**call)
    assert run.rows == len(case.pipe.scheduler.timesteps)


def test_guidance_with_more_than_two_branches(tiny: Tiny) -> None:
    """Skip-layer guidance of SD3, at the step where it sets in."""
    case = tiny("sd3")
    call = {"skip_guidance_layers": [0], "skip_layer_guidance_start": 0.0, "skip_layer_guidance_stop": 1.0}
    assert calls_before(ValueError, "3 branches", case, ZSampling(), **call) > 0
    with attach(case.pipe, Standard()) as run, case.counted() as rows:
        case.run(**call)
    assert run.rows == sum(rows)


class Twisted(diffusers.StableDiffusionPipeline):
    """A pipeline whose guidance is no combination of its two branches."""

    @property
    def guidance_scale(self) -> Any:
        """A scale for every entry."""
        return 4 + torch.arange(4.0).reshape(4, 1, 1) * torch.arange(8.0)


class Between(diffusers.StableDiffusionPipeline):
    """A pipeline that guides at a scale between 0 and 1."""

    @property
    def guidance_scale(self) -> float:
        """Less than 1."""
        return 0.6

    @property
    def do_classifier_free_guidance(self) -> bool:
        """All the same."""
        return True


@pytest.mark.parametrize(
    ("kind", "match"), [(Twisted, "not a combination"), (Between, "guidance scale above 1")], ids=["twisted", "between"]
)
def test_guidance_that_cannot_be_told_apart(kind: Any, match: str, tiny: Tiny, monkeypatch: Any) -> None:
    case = tiny("sd")
    case.pipe = kind(**case.pipe.components, requires_safety_checker=False)
    case.pipe.set_progress_bar_config(disable=True)
    monkeypatch.setattr(case.pipe, "check_inputs", lambda *args: None)
    if kind is Twisted:
        monkeypatch.setattr(Twisted, "do_classifier_free_guidance", True)
    assert calls_before(ValueError, match, case, ZSampling()) == 1


def test_steps_that_a_method_does_not_take(tiny: Tiny) -> None:
    case = tiny("sd")
    assert calls_before(ValueError, "warmup", case, Z2Sampling(warmup=6)) == 0
    assert calls_before(ValueError, "steps must be", case, ZSampling(steps=7)) == 0
    assert calls_before(ValueError, "begins at knot 0", case, [Denoise(0, 3)]) == 0
    assert calls_before(ValueError, "does not connect", case, [Denoise(0, 3), Denoise(4, 6)]) == 0


def test_arguments_that_do_not_fit(tiny: Tiny) -> None:
    pipe = tiny("sd").pipe
    before = snapshot(pipe)
    stepless = diffusers.ScoreSdeVePipeline(unet=pipe.unet, scheduler=diffusers.ScoreSdeVeScheduler())
    for error, match, given in (
        (TypeError, "pipe", {"pipe": object()}),
        (TypeError, "pipe", {"pipe": pipe.unet}),
        (TypeError, "with step and .* got ScoreSdeVePipeline with ScoreSdeVeS", {"pipe": stepless}),
        (TypeError, "method", {"method": ZSampling}),
        (TypeError, "method", {"method": "z"}),
        (TypeError, "method", {"method": 3}),
        (TypeError, "weak", {"weak": "none"}),
        (ValueError, "weak", {"weak": float("nan")}),
        (TypeError, "trace", {"trace": []}),
        (TypeError, "generator", {"generator": 0}),
    ):
        call = {"pipe": pipe, "method": ZSampling(), **given}
        with pytest.raises(error, match=match), attach(call.pop("pipe"), call.pop("method"), **call):
            pass
    assert snapshot(pipe) == before


def test_nested_blocks_are_refused_and_repeated_ones_work(tiny: Tiny) -> None:
    case = tiny("sd")
    other = diffusers.StableDiffusionPipeline(**case.pipe.components, requires_safety_checker=False)
    wanted = {}
    for method in (Standard(), ZSampling()):
        with attach(case.pipe, method) as run:
            first = case.run()
            assert torch.equal(case.run(), first)
            for pipe in (case.pipe, other):  # also through another pipeline with the same scheduler
                with pytest.raises(ValueError, match="attach"), attach(pipe, method):
                    pass
            assert torch.equal(case.run(), first)
        assert run.rows == 3 * 2 * len(method.path(6))
        wanted[method] = first
    for method, x in wanted.items():
        with attach(case.pipe, method):
            assert torch.equal(case.run(), x)


def test_a_scheduler_replaced_within_the_block(tiny: Tiny, schedulers: Tiny) -> None:
    case = tiny("sd")
    with pytest.raises(RuntimeError, match="replaced within"), attach(case.pipe, ZSampling()):
        case.pipe.scheduler = schedulers("euler")
        case.run()


def test_a_model_replaced_within_the_block(tiny: Tiny) -> None:
    case = tiny("sd")
    with pytest.raises(RuntimeError, match="no call of the pipeline's model"), attach(case.pipe, ZSampling()):
        case.pipe.unet = diffusers.UNet2DConditionModel.from_config(case.pipe.unet.config)
        case.run()


def test_a_loop_that_does_not_run_over_the_time_steps(tiny: Tiny) -> None:
    """Counting one's own steps is no loop that could be led, and fine under Standard."""
    case = tiny("sd")

    def loop(pipe: Any) -> Tensor:
        pipe.scheduler.set_timesteps(6)
        x = case.latents
        for t in pipe.scheduler.timesteps.tolist():
            e = pipe.unet(x, t, case.call["prompt_embeds"]).sample
            x = pipe.scheduler.step(e, t, x).prev_sample
        return x

    with torch.no_grad():
        plain = loop(case.pipe)
        with attach(case.pipe, Standard()) as run:
            assert torch.equal(loop(case.pipe), plain)
        assert run.rows == 6
        with pytest.raises(RuntimeError, match="does not run over"), attach(case.pipe, ZSampling()):
            loop(case.pipe)


@pytest.mark.parametrize("method", [Standard(), ZSampling()])
def test_an_exception_leaves_the_pipeline_as_it_was(method: Any, tiny: Tiny) -> None:
    case = tiny("sdxl")
    plain, before = case.run(), snapshot(case.pipe)

    def fail(pipe: Any, i: int, t: Any, given: Any) -> dict[str, Any]:
        if i == 3:
            raise KeyboardInterrupt
        return {}

    with pytest.raises(KeyboardInterrupt), attach(case.pipe, method):
        case.run(callback_on_step_end=fail)
    assert snapshot(case.pipe) == before
    assert type(case.pipe.scheduler.timesteps) is Tensor and len(case.pipe.scheduler.timesteps) == 6
    assert torch.equal(case.run(), plain)


def test_an_interrupted_pipeline_stops(tiny: Tiny) -> None:
    """`pipe._interrupt = True` ends the calls, as it does without `attach`."""
    case = tiny("sd")

    def stop(pipe: Any, i: int, t: Any, given: Any) -> dict[str, Any]:
        pipe._interrupt = i >= 2
        return {}

    with attach(case.pipe, ZSampling()) as run:
        case.run(callback_on_step_end=stop)
    assert run.rows == 2 * 3


def test_latents_changed_in_the_middle_of_a_move(tiny: Tiny) -> None:
    """Between the refinements of an inversion there is no state that a callback could replace."""
    case, trace = tiny("sd"), Trace()

    def change(pipe: Any, i: int, t: Any, given: Any) -> dict[str, Any]:
        return {"latents": given["latents"] * 0.9}

    with pytest.raises(ValueError, match="refine=0"), attach(case.pipe, ZSampling(refine=1), trace=trace):
        case.run(callback_on_step_end=change)


def test_random_state_is_not_touched(tiny: Tiny) -> None:
    """Reading the scheduler's steps draws nothing from the global generator."""
    case = tiny("sd")
    torch.manual_seed(3)
    with attach(case.pipe, ZSampling()):
        case.run()
    mine = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(mine, torch.rand(1))
