"""What a pipeline hands to its scheduler other than one guided prediction of its samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_paths import calls_of, check_same
from torch import Tensor

from zigzag import Standard, Z2Sampling, ZSampling, sample

diffusers = pytest.importorskip("diffusers")
guiders = pytest.importorskip("diffusers.guiders")
pytest.importorskip("transformers")
attach = pytest.importorskip("zigzag.adapters.diffusers").attach

# diffusers hands tensors to numpy in a way that numpy 2 warns of, thousands of times.
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")

Tiny = Callable[..., Any]
METHODS = [Z2Sampling(warmup=1), ZSampling()]


def dit(tiny: Tiny) -> tuple[Any, Any, Callable[[Tensor, Tensor, Tensor], Tensor]]:
    """A pipeline whose state is a doubled batch, and whose learned variance is dropped; its model by hand."""
    import tiny_unets

    net = tiny_unets.shake(
        diffusers.DiTTransformer2DModel(
            sample_size=8, num_layers=1, patch_size=2, attention_head_dim=4, num_attention_heads=2, in_channels=4,
            out_channels=8, attention_bias=True, activation_fn="gelu-approximate", num_embeds_ada_norm=1000,
            norm_type="ada_norm_zero", norm_elementwise_affine=False,
        )
    )  # fmt: skip
    pipe = tiny_unets.quiet(diffusers.DiTPipeline(net, tiny_unets.tiny_vae(), tiny_unets.ddim()))

    def predict(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        return net(x, timestep=t, class_labels=label).sample[:, :4]

    return pipe, tiny_unets, predict


@pytest.mark.parametrize("labels", [[1, 2], [1, 1], [1000, 1000], [1000]])
def test_a_doubled_batch_handed_over_whole(labels: list[int], tiny: Tiny) -> None:
    """DiT steps both halves of its batch alike: two rows a sample, and the zigzag of each sample.

    Label 1000 is that of no condition: its halves give equal predictions, and are two all the same.
    """
    pipe, tools, predict = dit(tiny)
    last: list[Tensor] = []

    def run() -> Tensor:
        given = {"class_labels": labels, "guidance_scale": 4.0, "num_inference_steps": 6, "output_type": "pt"}
        pipe(**given, generator=torch.Generator().manual_seed(5))
        return last[-1]

    def decode(z: Tensor, *args: Any, **kwargs: Any) -> Any:
        last.append(z * pipe.vae.config.scaling_factor)
        return before(z, *args, **kwargs)

    before = pipe.vae.decode
    pipe.vae.decode = decode
    try:
        plain = run()
        with attach(pipe, Standard()) as counted:
            assert torch.equal(run(), plain)
        assert counted.rows == 2 * 6
        x = torch.randn(len(labels), 4, 8, 8, generator=torch.Generator().manual_seed(5))
        c, u = labels, [1000] * len(labels)
        for method in METHODS:
            with attach(pipe, method) as counted:
                led = run()
            assert counted.rows == 2 * calls_of(method.path(6))
            if labels[0] == 1000 and method == METHODS[0]:
                check_same(led, plain)
            given = {"cond": torch.tensor(c), "uncond": torch.tensor(u), "strong": 4.0}
            check_same(led, sample(predict, x, tools.solver_of(pipe.scheduler), method, **given))
    finally:
        del pipe.vae.decode


@pytest.mark.parametrize("batch", [1, 2])
def test_a_time_for_each_token_is_refused(batch: int, tiny: Tiny) -> None:
    """Whatever the batch is; and fine under Standard()."""
    case = tiny("sd", batch, scheduler=diffusers.FlowMatchEulerDiscreteScheduler())

    def run() -> Tensor:
        case.pipe.scheduler.set_timesteps(4)
        x, embeds = case.latents, torch.cat([case.call["negative_prompt_embeds"], case.call["prompt_embeds"]])
        for t in case.pipe.scheduler.timesteps:
            u, c = case.pipe.unet(torch.cat([x, x]), t, embeds).sample.chunk(2)
            e, tokens = (u + 4 * (c - u)).flatten(2), t.expand(batch, 1)
            x = case.pipe.scheduler.step(e, t, x.flatten(2), per_token_timesteps=tokens).prev_sample.reshape(x.shape)
        return x

    with torch.no_grad():
        plain = run()
        with attach(case.pipe, Standard()) as counted:
            assert torch.equal(run(), plain)
        assert counted.rows == 2 * 4
        for method in METHODS:
            with pytest.raises(ValueError, match="per_token_timesteps"), attach(case.pipe, method):
                run()


@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("equal", [True, False])
@pytest.mark.parametrize("kind", ["x0 into v", "first frame cut off"])
def test_a_prediction_made_otherwise_is_followed(kind: str, equal: bool, method: Any, tiny: Tiny) -> None:
    """The gap is that of what the scheduler is given; with equal prompts there is none, and Z² changes nothing."""
    case = tiny("sd")
    c, u = case.call["prompt_embeds"], case.call["negative_prompt_embeds"]
    x, converted = case.latents, kind == "x0 into v"
    first, x = (None, x) if converted else (x[..., :1, :], x[..., 1:, :])

    def predict(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        if first is None:
            return x - case.pipe.unet(x, t, cond).sample
        return case.pipe.unet(torch.cat([first, x], -2), t, cond).sample[..., 1:, :]

    def run() -> Tensor:
        case.pipe.scheduler.set_timesteps(6)
        state = x
        for t in case.pipe.scheduler.timesteps:
            shown = state if first is None else torch.cat([first, state], -2)
            e_u, e_c = case.pipe.unet(torch.cat([shown] * 2), t, torch.cat([c if equal else u, c])).sample.chunk(2)
            e = e_u + 4 * (e_c - e_u)
            state = case.pipe.scheduler.step(state - e if converted else e[..., 1:, :], t, state).prev_sample
        return state

    with torch.no_grad():
        plain = run()
        with attach(case.pipe, method) as counted:
            led = run()
    assert counted.rows == 2 * calls_of(method.path(6))
    if equal and method == METHODS[0]:
        check_same(led, plain)
    given = {"cond": c, "uncond": c if equal else u, "strong": 4.0, "batched": False}
    check_same(led, sample(predict, x, case.solver(), method, **given))


@pytest.mark.parametrize("equal", [True, False])
def test_a_prediction_that_cannot_be_followed_is_refused(equal: bool, tiny: Tiny) -> None:
    """A part of it replaced, as of a frame that is known; with equal prompts only that it fits no branch tells."""
    case = tiny("sd")
    c, u = case.call["prompt_embeds"], case.call["negative_prompt_embeds"]

    def run() -> None:
        case.pipe.scheduler.set_timesteps(6)
        x = case.latents
        for t in case.pipe.scheduler.timesteps:
            e_u, e_c = case.pipe.unet(torch.cat([x, x]), t, torch.cat([c if equal else u, c])).sample.chunk(2)
            e = e_u + 4 * (e_c - e_u)
            e[..., :4, :] = x[..., :4, :] - torch.linspace(0, 1, 8)
            x = case.pipe.scheduler.step(e, t, x).prev_sample

    for method in METHODS:
        refused = pytest.raises(ValueError, match="attach cannot")
        with case.counted() as rows, torch.no_grad(), refused, attach(case.pipe, method):
            run()
        assert len(rows) == 1


def test_a_guider_that_counts_calls_is_refused(tiny: Tiny) -> None:
    """HunyuanVideo 1.5 tells its guider call i: an interval of steps would be one of calls."""
    case = tiny("sd")
    case.pipe.guider = guiders.ClassifierFreeGuidance(4.0, stop=0.75)
    refused = pytest.raises(ValueError, match=r"(?s)guides from 0 to 0\.75.*stop=1")
    with case.counted() as rows, refused, attach(case.pipe, ZSampling()):
        case.run()
    assert not rows
    for guider, method in ((case.pipe.guider, Z2Sampling(warmup=1)), (guiders.ClassifierFreeGuidance(4), ZSampling())):
        case.pipe.guider = guider
        with attach(case.pipe, method):
            x = case.run()
        check_same(x, case.sampled(method))


def test_two_scheduler_steps_a_round_are_counted_and_refused(tiny: Tiny) -> None:
    """Cosmos 1 steps both branches for their x0, and then what guidance makes of it."""
    case = tiny("sd", 2)

    def run() -> Tensor:
        scheduler = case.pipe.scheduler
        scheduler.set_timesteps(6)
        x = case.latents
        for t in scheduler.timesteps:
            u, c = (case.pipe.unet(x, t, case.call[n]).sample for n in ("negative_prompt_embeds", "prompt_embeds"))
            scheduler.step(torch.cat([u, c]), t, torch.cat([x, x]))
            x = scheduler.step(u + 4 * (c - u), t, x).prev_sample
        return x

    with torch.no_grad():
        plain = run()
        with attach(case.pipe, Standard()) as counted:
            assert torch.equal(run(), plain)
        assert counted.rows == 2 * 6
        for method in METHODS:
            with pytest.raises((RuntimeError, ValueError)), attach(case.pipe, method):
                run()


@pytest.mark.parametrize("method", [Standard(), *METHODS], ids=repr)
def test_a_call_that_only_fills_a_cache(method: Any, tiny: Tiny) -> None:
    """`(None, cache)` of AnyFlow's transformer, before its loop: no prediction, and a row."""
    case = tiny("sd")
    plain = case.run()
    forward = case.model.forward
    case.model.forward = lambda x, *args, fill=False, **kwargs: (None, {}) if fill else forward(x, *args, **kwargs)
    try:
        with attach(case.pipe, method) as run:
            case.model(case.latents, fill=True)
            x = case.run()
    finally:
        del case.model.forward
    assert run.rows == 1 + 2 * calls_of(method.path(6))
    check_same(x, plain if method == Standard() else case.sampled(method))
