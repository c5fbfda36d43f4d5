"""Pipelines that a path of more calls than steps would lead wrong, and guidance without an unconditional branch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_paths import calls_of, check_same, picture
from torch import Tensor

from support.steered import Led
from zigzag import EndToEnd, ImplicitZ, Resampling, Standard, Z2Sampling, ZSampling
from zigzag.moves import Denoise

diffusers = pytest.importorskip("diffusers")
guiders = pytest.importorskip("diffusers.guiders")
pytest.importorskip("transformers")
attach = pytest.importorskip("zigzag.adapters.diffusers").attach

# diffusers hands tensors to numpy in a way that numpy 2 warns of, thousands of times.
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")

Tiny = Callable[..., Any]
MORE_CALLS = [ZSampling(steps=1), ZSampling(), ImplicitZ(), EndToEnd(), Resampling(steps=1)]
Z2S = [Z2Sampling(warmup=0), Z2Sampling(warmup=2)]


def check_refused(match: str, pipe: Any, model: Any, run: Callable[[], Any], method: Any) -> None:
    """Before the first model call; and the pipeline goes on as before."""
    calls: list[Any] = []
    hook = model.register_forward_hook(lambda module, args, output: calls.append(output))
    try:
        with pytest.raises(ValueError, match=match), attach(pipe, method):
            run()
        assert not calls
    finally:
        hook.remove()


def modular(case: Any, guider: Any) -> tuple[Any, Callable[[], Tensor]]:
    """The same SDXL pipeline of blocks, and a run of it."""
    blocks = diffusers.StableDiffusionXLAutoBlocks()
    blocks.sub_blocks.pop("text_encoder", None)
    pipe = blocks.init_pipeline()
    pipe.update_components(unet=case.pipe.unet, vae=case.pipe.vae, scheduler=case.pipe.scheduler, guider=guider)
    pipe.set_progress_bar_config(disable=True)
    given = {name: value for name, value in case.call.items() if "embeds" in name}
    given |= {"height": 16, "width": 16, "num_inference_steps": 6, "output_type": "latent", "output": "images"}
    return pipe, lambda: pipe(**given, latents=case.latents.clone())


@pytest.mark.parametrize("method", MORE_CALLS, ids=repr)
def test_a_modular_pipeline_and_more_calls_than_steps(method: Any, tiny: Tiny) -> None:
    """Its guider is told call i of T steps, and would be off from call T on."""
    case = tiny("sdxl")
    pipe, run = modular(case, guiders.ClassifierFreeGuidance(4.0))
    check_refused("(?s)modular.*calls on 6 steps.*Z2Sampling", pipe, case.pipe.unet, run, method)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_modular_pipeline_and_as_many_calls_as_steps(batch: int, tiny: Tiny) -> None:
    """Standard sampling, Z², and paths that skip knots."""
    case = tiny("sdxl", batch)
    pipe, run = modular(case, guiders.ClassifierFreeGuidance(4.0))
    plain = run()
    with attach(pipe, Standard()) as attached:
        assert torch.equal(run(), plain)
    assert attached.rows == 2 * 6
    case.run()
    for method in (*Z2S, [Denoise(0, 2), Denoise(2, 6)]):
        path = method if isinstance(method, list) else method.path(6)
        with attach(pipe, method) as attached:
            x = run()
        check_same(x, case.sampled(path))
        assert attached.rows == 2 * calls_of(path)


@pytest.mark.parametrize("guider", ["PerturbedAttentionGuidance", "SkipLayerGuidance", "SmoothedEnergyGuidance"])
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_guiders_of_more_than_two_branches(scale: float, guider: str, tiny: Tiny) -> None:
    """At a scale of 1 they evaluate two all the same, of which the second is no unconditional one."""
    case = tiny("sdxl")
    name = "seg_guidance_layers" if "Energy" in guider else "perturbed_guidance_layers"
    name = "skip_layer_guidance_layers" if "Skip" in guider else name
    pipe, run = modular(case, getattr(guiders, guider)(scale, **{name: [0]}))
    check_refused(f"{guider}, also takes pred_cond_s", pipe, case.pipe.unet, run, Z2Sampling(warmup=1))


def with_adapter(case: Any, cls: str) -> None:
    """An image adapter that adds noise of its own to the features, where the pipeline lets it."""
    adapter = diffusers.T2IAdapter(in_channels=3, channels=[8, 16], num_res_blocks=1, downscale_factor=2)
    features = [picture(1, 8, 4, 4), picture(1, 16, 4, 4)]
    adapter.forward = lambda image: [feature.clone() for feature in features]
    parts = {k: v for k, v in case.pipe.components.items() if k not in ("image_encoder", "feature_extractor")}
    if cls == "StableDiffusionAdapterPipeline":
        parts |= {"feature_extractor": None, "requires_safety_checker": False}
    case.pipe = getattr(diffusers, cls)(**parts, adapter=adapter)
    case.pipe.set_progress_bar_config(disable=True)
    case.call["image"] = picture(1, 3, 16, 16).clamp(0, 1)
    predict = case.predict

    def adapted(x: Tensor, t: Tensor, cond: dict[str, Any]) -> Tensor:
        return predict(x, t, {**cond, "down_intrablock_additional_residuals": [f.clone() for f in features]})

    case.predict = adapted


@pytest.mark.parametrize("method", MORE_CALLS, ids=repr)
def test_an_adapter_that_counts_calls_and_more_calls_than_steps(method: Any, tiny: Tiny) -> None:
    """SDXL's drops its adapter from call `T·adapter_conditioning_factor` on."""
    case = tiny("sdxl")
    with_adapter(case, "StableDiffusionXLAdapterPipeline")
    match = "(?s)adapter_conditioning_factor.*calls on 6 steps.*Z2Sampling"
    check_refused(match, case.pipe, case.pipe.unet, case.run, method)


@pytest.mark.parametrize("method", Z2S, ids=repr)
def test_an_adapter_that_counts_calls_and_as_many_calls_as_steps(method: Any, tiny: Tiny) -> None:
    case = tiny("sdxl")
    bare = case.run()
    with_adapter(case, "StableDiffusionXLAdapterPipeline")
    plain = case.run()
    assert float((plain - bare).norm() / bare.norm()) > 1e-3
    with attach(case.pipe, Standard()):
        assert torch.equal(case.run(), plain)
    with attach(case.pipe, method):
        x = case.run()
    check_same(x, case.sampled(method))


@pytest.mark.parametrize("method", [ZSampling(), Z2Sampling(warmup=1)], ids=repr)
def test_an_adapter_for_every_call_is_led(method: Any, tiny: Tiny) -> None:
    """That of Stable Diffusion 1 holds nothing against the number of steps."""
    case = tiny("sd")
    with_adapter(case, "StableDiffusionAdapterPipeline")
    case.call |= {"height": 16, "width": 16}
    case.run()
    with attach(case.pipe, method):
        x = case.run()
    check_same(x, case.sampled(method))


@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize("method", [ZSampling(), Z2Sampling(warmup=1)], ids=repr)
def test_perturbed_attention_guidance(method: Any, scale: float, tiny: Tiny) -> None:
    """Without an unconditional branch it evaluates two, of which the perturbed one is no unconditional one."""
    case = tiny("sd")
    given = {"requires_safety_checker": False, "pag_applied_layers": ["mid"]}
    case.pipe = diffusers.StableDiffusionPAGPipeline(**case.pipe.components, **given)
    case.pipe.set_progress_bar_config(disable=True)

    def run() -> Tensor:
        return case.run(guidance_scale=scale, pag_scale=3.0)

    check_refused("perturbed-attention.*pag_scale=0", case.pipe, case.pipe.unet, run, method)
    plain = run()
    with attach(case.pipe, Standard()) as attached, case.counted() as rows:
        assert torch.equal(run(), plain)
    assert attached.rows == sum(rows)
    case.call["pag_scale"] = 0.0
    case.run()
    with attach(case.pipe, method):
        x = case.run()
    check_same(x, case.sampled(method))


@pytest.mark.parametrize("method", [ZSampling(), Z2Sampling(warmup=1), EndToEnd()], ids=repr)
def test_a_window_of_skip_layer_guidance(method: Any, tiny: Tiny) -> None:
    """SD3 counts calls against steps for it too; whatever its window, the call that enters it is refused."""
    case = tiny("sd3")
    window = {"skip_guidance_layers": [0], "skip_layer_guidance_start": 0.4, "skip_layer_guidance_stop": 0.6}
    with case.counted() as plain:
        case.run(**window)
    assert 2 * 6 < sum(plain) < 3 * 6
    with pytest.raises(ValueError, match="3 branches"), attach(case.pipe, method):
        case.run(**window)


@pytest.mark.parametrize("method", [ZSampling(), Z2Sampling(warmup=1), Led(ZSampling())], ids=repr)
def test_latents_of_another_shape_where_the_scheduler_remembers(method: Any, tiny: Tiny) -> None:
    """Said at that call; where nothing is remembered the path goes on with them."""

    def narrowed(pipe: Any, i: int, t: Any, given: dict[str, Any]) -> dict[str, Any]:
        return {"latents": given["latents"][..., :4]} if i == 2 else {}

    case = tiny("sd")
    case.pipe.scheduler = diffusers.DPMSolverMultistepScheduler(solver_order=1)
    with attach(case.pipe, method):
        assert case.run(callback_on_step_end=narrowed).shape == (1, 4, 8, 4)
    case.pipe.scheduler = diffusers.DPMSolverMultistepScheduler(solver_order=2)
    refused = pytest.raises(ValueError, match=r"another shape.*solver_order=1")
    with case.counted() as rows, refused, attach(case.pipe, method):
        case.run(callback_on_step_end=narrowed)
    assert sum(rows) == 4 * 2
