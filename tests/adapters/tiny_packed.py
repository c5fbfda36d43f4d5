"""Tiny random pipelines whose latents are packed into tokens, each with a predictor written out by hand."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from tiny_dits import Cond, flow, without
from tiny_unets import Case, embeds, noise, quiet, shake, tiny_vae
from torch import Tensor

from zigzag import CFG, StepInfo


class Renormalised(CFG):
    """Plain guidance brought back to the norm of the conditional prediction, along the last dimension."""

    def __call__(self, e_c: Tensor | None, e_u: Tensor | None, step: StepInfo) -> Tensor:
        assert e_c is not None
        e = super().__call__(e_c, e_u, step)
        return e * (e_c.norm(dim=-1, keepdim=True) / e.norm(dim=-1, keepdim=True))


def flux(batch: int = 1, scheduler: Any = None, **changes: Any) -> Case:
    net = shake(
        diffusers.FluxTransformer2DModel(
            in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=16, pooled_projection_dim=16, axes_dims_rope=(4, 4, 8), guidance_embeds=True,
        )
    )  # fmt: skip
    (c, u), (pc, pu) = embeds(batch), (noise(batch, 16, seed=5), noise(batch, 16, seed=6))
    pipe = diffusers.FluxPipeline(
        vae=tiny_vae(8), transformer=net, scheduler=scheduler or flow(use_dynamic_shifting=True),
        **without("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"),
    )  # fmt: skip
    rows, columns = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")
    ids = torch.stack([torch.zeros(16), rows.flatten(), columns.flatten()], -1)

    def predict(x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        given = {
            "timestep": t / 1000,
            "guidance": torch.full((batch,), 3.5),
            "img_ids": ids,
            "txt_ids": torch.zeros(5, 3),
        }
        return net(hidden_states=x, **{**given, **cond}).sample

    call = {"prompt_embeds": c, "negative_prompt_embeds": u, "pooled_prompt_embeds": pc, "true_cfg_scale": 4.0}
    call |= {"negative_pooled_prompt_embeds": pu, "guidance_scale": 3.5, "height": 64, "width": 64}
    cond, uncond = ({"encoder_hidden_states": e, "pooled_projections": p} for e, p in ((c, pc), (u, pu)))
    return Case(quiet(pipe), call | changes, noise(batch, 16, 16), predict, cond, uncond)


def flux2_klein(batch: int = 1, scheduler: Any = None, **changes: Any) -> Case:
    net = shake(
        diffusers.Flux2Transformer2DModel(
            in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=16, timestep_guidance_channels=16, axes_dims_rope=(4, 4, 4, 4), guidance_embeds=False,
        )
    )  # fmt: skip
    vae = diffusers.AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",), up_block_types=("UpDecoderBlock2D",), block_out_channels=(4,),
        layers_per_block=1, latent_channels=4, norm_num_groups=1, sample_size=16,
    )  # fmt: skip
    c, u = embeds(batch)
    pipe = diffusers.Flux2KleinPipeline(
        vae=vae, transformer=net, scheduler=scheduler or flow(), text_encoder=None, tokenizer=None
    )
    side = torch.arange(4)
    ids = torch.cartesian_prod(torch.arange(1), side, side, torch.arange(1)).expand(batch, -1, -1)
    text = torch.cartesian_prod(torch.arange(1), torch.arange(1), torch.arange(1), torch.arange(5)).expand(
        batch, -1, -1
    )

    def predict(x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        given = {"timestep": t / 1000, "guidance": None, "txt_ids": text, "img_ids": ids}
        return net(hidden_states=tokens, **given, **cond).sample.transpose(1, 2).reshape(x.shape)

    def finish(x: Tensor) -> Tensor:
        std = (vae.bn.running_var + vae.config.batch_norm_eps).sqrt()
        return torch.nn.functional.pixel_shuffle(x * std.view(1, -1, 1, 1) + vae.bn.running_mean.view(1, -1, 1, 1), 2)

    call = {"prompt_embeds": c, "negative_prompt_embeds": u, "guidance_scale": 4.0, "height": 8, "width": 8}
    cond, uncond = {"encoder_hidden_states": c}, {"encoder_hidden_states": u}
    return Case(quiet(pipe), call | changes, noise(batch, 16, 4, 4), predict, cond, uncond, finish=finish)


def qwen(batch: int = 1, scheduler: Any = None, **changes: Any) -> Case:
    net = shake(
        diffusers.QwenImageTransformer2DModel(
            patch_size=2, in_channels=16, out_channels=4, num_layers=1, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=16, guidance_embeds=False, axes_dims_rope=(8, 4, 4),
        )
    )  # fmt: skip
    vae = diffusers.AutoencoderKLQwenImage(
        base_dim=12, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, latents_mean=[0.0] * 4, latents_std=[1.0] * 4
    )
    c, u = embeds(batch)
    pipe = diffusers.QwenImagePipeline(
        vae=vae, transformer=net, scheduler=scheduler or flow(use_dynamic_shifting=True), text_encoder=None,
        tokenizer=None,
    )  # fmt: skip

    def predict(x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        given = {"timestep": t / 1000, "img_shapes": [[(1, 4, 4)]] * batch, "guidance": None}
        return net(hidden_states=x, encoder_hidden_states_mask=None, **given, **cond).sample

    call = {"prompt_embeds": c, "negative_prompt_embeds": u, "true_cfg_scale": 4.0, "height": 64, "width": 64}
    cond, uncond = {"encoder_hidden_states": c}, {"encoder_hidden_states": u}
    return Case(quiet(pipe), call | changes, noise(batch, 16, 16), predict, cond, uncond, Renormalised(4.0))
