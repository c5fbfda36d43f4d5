"""Tiny random U-Net pipelines, each with a predictor that is written out here by hand."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from torch import Tensor

from zigzag import DDIM, FlowEuler, Solver, Spherical, sample

STEPS = 6
SD_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@dataclass
class Case:
    """A pipeline, how it is called, and the same model as `eps_fn(x, t, cond)` in the scheduler's own prediction."""

    pipe: Any
    call: dict[str, Any]
    latents: Tensor
    predict: Callable[[Tensor, Tensor, dict[str, Any]], Tensor]
    cond: dict[str, Any]
    uncond: dict[str, Any]
    strong: Any = 4.0
    finish: Callable[[Tensor], Tensor] = lambda x: x  # from the last state to what the pipeline returns

    def run(self, **changes: Any) -> Tensor:
        """The final latents of the pipeline."""
        call = {"num_inference_steps": STEPS, "output_type": "latent", **self.call, **changes}
        latents = {} if "generator" in call else {"latents": self.latents.clone()}
        out = self.pipe(**latents, **call, return_dict=False)[0]
        return out if isinstance(out, Tensor) else torch.stack(list(out))

    def sampled(self, method: Any, start: Tensor | None = None, **given: Any) -> Tensor:
        """The same by `zigzag.sample`, on the grid that a run of the pipeline has left in its scheduler."""
        scheduler = self.pipe.scheduler
        if start is None:
            start = self.latents * getattr(scheduler, "init_noise_sigma", 1.0)
        given = {"strong": self.strong, "batched": False, **given}
        solver = given.pop("solver", None) or solver_of(scheduler)
        return self.finish(sample(self.predict, start, solver, method, cond=self.cond, uncond=self.uncond, **given))

    def solver(self) -> Solver:
        return solver_of(self.pipe.scheduler)

    def img2img_ids(self) -> None:
        """Image-to-image pipelines of SDXL tell an aesthetic score in place of the target size, if they have one."""
        for cond in (self.cond, self.uncond):
            width = cond["encoder_hidden_states"].shape[0]
            ids = self.pipe._get_add_time_ids(
                (16, 16), (0, 0), (16, 16), 6.0, 2.5, (16, 16), (0, 0), (16, 16), torch.float32, 16
            )[cond is self.uncond]
            cond["added_cond_kwargs"]["time_ids"] = ids.expand(width, -1)

    @property
    def model(self) -> Any:
        return getattr(self.pipe, "unet", None) or self.pipe.transformer

    def counted(self) -> AbstractContextManager[list[int]]:
        """The rows of every call of the model."""
        return counted(self.model)


@contextmanager
def counted(model: Any) -> Iterator[list[int]]:
    """The rows of every call of a network, counted by a hook of the test's own."""
    rows: list[int] = []

    def count(module: Any, args: Any, kwargs: Any) -> None:
        rows.append(len(next(x for x in (*args, kwargs.get("hidden_states"), kwargs.get("sample")) if x is not None)))

    hook = model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield rows
    finally:
        hook.remove()


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def shake(model: Any, seed: int = 0) -> Any:
    """Random weights throughout, for layers that start at zero would hide what is passed to them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            fan = max(1, parameter[0].numel()) if parameter.ndim > 1 else 4
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan**0.5)
    return model.eval()


def ddim(**config: Any) -> Any:
    given = {**SD_BETAS, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1, **config}
    return diffusers.DDIMScheduler(**given)


def solver_of(scheduler: Any) -> Solver:
    """The core's solver on the grid that a run has left in the scheduler, written without the adapter."""
    if isinstance(scheduler, diffusers.FlowMatchEulerDiscreteScheduler):
        return FlowEuler(scheduler.sigmas, scheduler.timesteps)
    if isinstance(scheduler, diffusers.EulerDiscreteScheduler):
        return DDIM(torch.ones(len(scheduler.sigmas)), scheduler.sigmas, scheduler.timesteps)
    final = float(scheduler.final_alpha_cumprod)
    solver = DDIM.from_alphas_cumprod(scheduler.alphas_cumprod, scheduler.timesteps, final)
    if scheduler.config.prediction_type == "v_prediction":
        return Spherical(torch.atan2(solver.sigmas, solver.alphas), scheduler.timesteps)
    return solver


def tiny_vae(factor: int = 2, channels: int = 4) -> Any:
    """One of its own for each pipeline: some are given another configuration."""
    return copy.deepcopy(_vae(factor, channels))


@functools.cache
def _vae(factor: int, channels: int) -> Any:
    return shake(
        diffusers.AutoencoderKL(
            block_out_channels=(8,) * factor.bit_length(), layers_per_block=1, latent_channels=channels,
            norm_num_groups=2,
            down_block_types=("DownEncoderBlock2D",) * factor.bit_length(),
            up_block_types=("UpDecoderBlock2D",) * factor.bit_length(), sample_size=16,
        )
    )  # fmt: skip


@functools.cache
def unet(kind: str = "sd", in_channels: int = 4) -> Any:
    sizes = {
        "block_out_channels": (8, 16), "layers_per_block": 1, "sample_size": 8, "in_channels": in_channels,
        "norm_num_groups": 4, "cross_attention_dim": 16, "attention_head_dim": 4,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    }  # fmt: skip
    if kind == "sdxl":
        sizes |= {"addition_embed_type": "text_time", "addition_time_embed_dim": 4, "use_linear_projection": True}
        sizes |= {"projection_class_embeddings_input_dim": 6 * 4 + 16}
    return shake(diffusers.UNet2DConditionModel(**sizes), seed=1)


def embeds(batch: int, width: int = 16, tokens: int = 5) -> tuple[Tensor, Tensor]:
    return noise(batch, tokens, width, seed=3), noise(batch, tokens, width, seed=4)


def quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def sd(batch: int = 1, scheduler: Any = None, **changes: Any) -> Case:
    net, (c, u) = unet("sd"), embeds(batch)
    pipe = diffusers.StableDiffusionPipeline(
        vae=tiny_vae(), text_encoder=None, tokenizer=None, unet=net, scheduler=scheduler or ddim(), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip

    def predict(x: Tensor, t: Tensor, cond: dict[str, Any]) -> Tensor:
        return net(scaled(pipe.scheduler, x, t), t, **cond).sample

    call = {"prompt_embeds": c, "negative_prompt_embeds": u, "guidance_scale": 4.0, **changes}
    cond, uncond = {"encoder_hidden_states": c}, {"encoder_hidden_states": u}
    return Case(quiet(pipe), call, noise(batch, 4, 8, 8), predict, cond, uncond)


def scaled(scheduler: Any, x: Tensor, t: Tensor) -> Tensor:
    """Euler and LMS show the model `x/√(1 + σ²)`, with the σ of the time told; of data, at a time below all, 0."""
    euler = diffusers.EulerDiscreteScheduler | diffusers.EulerAncestralDiscreteScheduler
    if not isinstance(scheduler, euler | diffusers.LMSDiscreteScheduler):
        return x
    sigma = scheduler.sigmas[int((scheduler.timesteps > t[0]).sum())]
    return x / (sigma**2 + 1) ** 0.5


def sdxl(batch: int = 1, scheduler: Any = None, kind: str = "", in_channels: int = 4, **changes: Any) -> Case:
    net, (c, u) = unet("sdxl", in_channels), embeds(batch)
    pooled, ids = (noise(batch, 16, seed=5), noise(batch, 16, seed=6)), torch.tensor([[16.0, 16, 0, 0, 16, 16]])
    parts = {
        "vae": tiny_vae(), "text_encoder": None, "text_encoder_2": None, "tokenizer": None, "tokenizer_2": None,
        "unet": net, "scheduler": scheduler or ddim(), "add_watermarker": False,
    }  # fmt: skip
    control = None
    if kind == "ControlNet":
        parts["controlnet"] = control = shake(
            diffusers.ControlNetModel.from_unet(net, conditioning_embedding_out_channels=(4, 8)), 7
        )
    pipe = getattr(diffusers, f"StableDiffusionXL{kind}Pipeline")(**parts)

    def predict(x: Tensor, t: Tensor, cond: dict[str, Any]) -> Tensor:
        shown = scaled(pipe.scheduler, x, t)
        if control is not None:
            given = {**cond, "controlnet_cond": changes["image"].expand(len(x), -1, -1, -1), "return_dict": False}
            down, mid = control(shown, t, **given)
            return net(shown, t, **cond, down_block_additional_residuals=down, mid_block_additional_residual=mid).sample
        return net(shown, t, **cond).sample

    call = {
        "prompt_embeds": c, "negative_prompt_embeds": u, "pooled_prompt_embeds": pooled[0], "guidance_scale": 4.0,
        "negative_pooled_prompt_embeds": pooled[1], **changes,
    }  # fmt: skip
    if kind in ("", "ControlNet"):
        call |= {"height": 16, "width": 16}
    added = [{"text_embeds": p, "time_ids": ids.expand(batch, -1)} for p in pooled]
    cond, uncond = ({"encoder_hidden_states": e, "added_cond_kwargs": a} for e, a in zip((c, u), added, strict=True))
    return Case(quiet(pipe), call, noise(batch, 4, 8, 8), predict, cond, uncond)


def animatediff(batch: int = 1, scheduler: Any = None, **changes: Any) -> Case:
    sizes = {"block_out_channels": (8, 16), "motion_norm_num_groups": 2, "motion_num_attention_heads": 2}
    adapter, (c, u) = diffusers.MotionAdapter(motion_layers_per_block=1, **sizes), embeds(batch)
    pipe = diffusers.AnimateDiffPipeline(
        vae=tiny_vae(), text_encoder=None, tokenizer=None, unet=unet("sd"), motion_adapter=adapter,
        scheduler=scheduler or ddim(beta_schedule="linear"), feature_extractor=None, image_encoder=None,
    )  # fmt: skip
    net = shake(pipe.unet, 2)

    def predict(x: Tensor, t: Tensor, cond: dict[str, Any]) -> Tensor:
        return net(x, t, **cond).sample

    call = {"prompt_embeds": c, "negative_prompt_embeds": u, "guidance_scale": 4.0, "num_frames": 4, **changes}
    # The pipeline repeats its prompt for every frame.
    cond, uncond = ({"encoder_hidden_states": e.repeat_interleave(4, 0)} for e in (c, u))
    return Case(quiet(pipe), call | {"height": 16, "width": 16}, noise(batch, 4, 4, 8, 8), predict, cond, uncond)


def modelscope(batch: int = 1, scheduler: Any = None, **changes: Any) -> Case:
    net = shake(
        diffusers.UNet3DConditionModel(
            block_out_channels=(4, 8), layers_per_block=1, sample_size=8, cross_attention_dim=16, attention_head_dim=4,
            norm_num_groups=2, down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
            up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        )
    )  # fmt: skip
    c, u = embeds(batch)
    pipe = diffusers.TextToVideoSDPipeline(
        vae=tiny_vae(), text_encoder=None, tokenizer=None, unet=net, scheduler=scheduler or ddim()
    )

    def predict(x: Tensor, t: Tensor, cond: dict[str, Any]) -> Tensor:
        return net(x, t, **cond).sample

    call = {"prompt_embeds": c, "negative_prompt_embeds": u, "guidance_scale": 4.0, "num_frames": 4, **changes}
    cond, uncond = {"encoder_hidden_states": c}, {"encoder_hidden_states": u}
    return Case(quiet(pipe), call | {"height": 16, "width": 16}, noise(batch, 4, 4, 8, 8), predict, cond, uncond)
