"""Tiny random pipelines that evaluate one branch alone: those that take no second one, and the rest told to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import torch
from tiny_dits import Cond, flow, without
from tiny_more import ltx
from tiny_packed import flux
from tiny_unets import Case, embeds, noise, quiet, sdxl, shake
from torch import Tensor


def flux2(batch: int = 1, scheduler: Any = None, **changes: Any) -> Case:
    net = shake(
        diffusers.Flux2Transformer2DModel(
            in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=16, timestep_guidance_channels=16, axes_dims_rope=(4, 4, 4, 4), guidance_embeds=True,
        )
    )  # fmt: skip
    vae = diffusers.AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",), up_block_types=("UpDecoderBlock2D",), block_out_channels=(4,),
        layers_per_block=1, latent_channels=4, norm_num_groups=1, sample_size=16,
    )  # fmt: skip
    c, _ = embeds(batch)
    pipe = diffusers.Flux2Pipeline(
        vae=vae, transformer=net, scheduler=scheduler or flow(), text_encoder=None, tokenizer=None
    )
    one, side = torch.arange(1), torch.arange(4)
    ids = torch.cartesian_prod(one, side, side, one).expand(batch, -1, -1)
    text = torch.cartesian_prod(one, one, one, torch.arange(5)).expand(batch, -1, -1)

    def predict(x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        given = {"timestep": t / 1000, "txt_ids": text, "img_ids": ids}
        return net(hidden_states=x.flatten(2).transpose(1, 2), **given, **cond).sample.transpose(1, 2).reshape(x.shape)

    call = {"prompt_embeds": c, "guidance_scale": 3.5, "height": 8, "width": 8}
    cond = {"encoder_hidden_states": c, "guidance": torch.full((batch,), 3.5)}
    packed = Case(quiet(pipe), call | changes, noise(batch, 16, 4, 4), predict, cond, {})
    packed.finish = lambda x: x.flatten(2).transpose(1, 2)
    return packed


def hunyuan_video(batch: int = 1, scheduler: Any = None, **changes: Any) -> Case:
    net = shake(
        diffusers.HunyuanVideoTransformer3DModel(
            in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=10, num_layers=1,
            num_single_layers=1, num_refiner_layers=1, patch_size=1, text_embed_dim=16, pooled_projection_dim=8,
            rope_axes_dim=(2, 4, 4),
        )
    )  # fmt: skip
    vae = diffusers.AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(8,) * 4, layers_per_block=1, norm_num_groups=4,
        mid_block_add_attention=False,
    )  # fmt: skip
    (c, _), pooled, mask = embeds(batch), noise(batch, 8, seed=5), torch.ones(batch, 5)
    pipe = diffusers.HunyuanVideoPipeline(
        vae=vae, transformer=net, scheduler=scheduler or flow(),
        **without("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"),
    )  # fmt: skip

    def predict(x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        return net(hidden_states=x, timestep=t, encoder_attention_mask=mask, **cond).sample

    call = {"prompt_embeds": c, "pooled_prompt_embeds": pooled, "prompt_attention_mask": mask, "guidance_scale": 6.0}
    call |= {"height": 16, "width": 16, "num_frames": 5}
    cond = {"encoder_hidden_states": c, "pooled_projections": pooled, "guidance": torch.full((batch,), 6000.0)}
    return Case(quiet(pipe), call | changes, noise(batch, 4, 2, 2, 2), predict, cond, {})


def one_branch(family: str, batch: int = 1, **changes: Any) -> Case:
    """A pipeline of that family with guidance by two branches off."""
    off: dict[str, tuple[Callable[..., Case], dict[str, Any]]] = {
        "flux": (flux, {"true_cfg_scale": 1.0}), "flux2": (flux2, {}), "hunyuan_video": (hunyuan_video, {}),
        "ltx": (ltx, {"guidance_scale": 1.0}), "sdxl": (sdxl, {"guidance_scale": 0.0}),
    }  # fmt: skip
    build, call = off[family]
    case = build(batch, **call, **changes)
    if family == "flux":
        case.cond["guidance"] = torch.full((batch,), 3.5)
    case.strong = 1.0
    return case
