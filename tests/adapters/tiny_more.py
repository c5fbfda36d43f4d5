"""More tiny random transformer pipelines: AuraFlow, Chroma, CogView4, LTX-Video."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from tiny_dits import Cond, flow
from tiny_unets import Case, embeds, noise, quiet, shake, tiny_vae
from torch import Tensor


def auraflow(batch: int = 1, scheduler: Any = None, **changes: Any) -> Case:
    net = shake(
        diffusers.AuraFlowTransformer2DModel(
            sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_mmdit_layers=1, num_single_dit_layers=1,
            attention_head_dim=8, num_attention_heads=2, joint_attention_dim=16, caption_projection_dim=16,
            pos_embed_max_size=64,
        )
    )  # fmt: skip
    (c, u), mask = embeds(batch), torch.ones(batch, 5)
    pipe = diffusers.AuraFlowPipeline(
        vae=tiny_vae(8), transformer=net, scheduler=scheduler or flow(), text_encoder=None, tokenizer=None
    )

    def predict(x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        return net(x, timestep=t / 1000, **cond).sample

    call = {"prompt_embeds": c, "negative_prompt_embeds": u, "guidance_scale": 4.0, "height": 64, "width": 64}
    call |= {"prompt_attention_mask": mask, "negative_prompt_attention_mask": mask}
    cond, uncond = {"encoder_hidden_states": c}, {"encoder_hidden_states": u}
    return Case(quiet(pipe), call | changes, noise(batch, 4, 8, 8), predict, cond, uncond)


def chroma(batch: int = 1, scheduler: Any = None, **changes: Any) -> Case:
    net = shake(
        diffusers.ChromaTransformer2DModel(
            in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=16, axes_dims_rope=(4, 4, 8), approximator_num_channels=8, approximator_hidden_dim=16,
            approximator_layers=1,
        )
    )  # fmt: skip
    (c, u), mask = embeds(batch), torch.ones(batch, 5, dtype=torch.bool)
    pipe = diffusers.ChromaPipeline(
        vae=tiny_vae(8), transformer=net, scheduler=scheduler or flow(), text_encoder=None, tokenizer=None
    )
    side = torch.arange(4.0)
    ids = torch.cat([torch.zeros(16, 1), torch.cartesian_prod(side, side)], 1)
    full = torch.ones(batch, 5 + 16, dtype=torch.bool)

    def predict(x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        given = {"timestep": t / 1000, "img_ids": ids, "txt_ids": torch.zeros(5, 3), "attention_mask": full}
        return net(hidden_states=x, **given, **cond).sample

    call = {"prompt_embeds": c, "negative_prompt_embeds": u, "guidance_scale": 4.0, "height": 64, "width": 64}
    call |= {"prompt_attention_mask": mask, "negative_prompt_attention_mask": mask}
    cond, uncond = {"encoder_hidden_states": c}, {"encoder_hidden_states": u}
    return Case(quiet(pipe), call | changes, noise(batch, 16, 16), predict, cond, uncond)


def cogview4(batch: int = 1, scheduler: Any = None, **changes: Any) -> Case:
    net = shake(
        diffusers.CogView4Transformer2DModel(
            patch_size=2, in_channels=4, out_channels=4, num_layers=1, attention_head_dim=4, num_attention_heads=4,
            text_embed_dim=16, time_embed_dim=8, condition_dim=4,
        )
    )  # fmt: skip
    c, u = embeds(batch)
    pipe = diffusers.CogView4Pipeline(
        vae=tiny_vae(8), transformer=net, scheduler=scheduler or flow(), text_encoder=None, tokenizer=None
    )

    def predict(x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        sizes = {
            "original_size": torch.tensor([[64.0, 64.0]] * batch),
            "target_size": torch.tensor([[64.0, 64.0]] * batch),
        }
        return net(hidden_states=x, timestep=t, crop_coords=torch.zeros(batch, 2), **sizes, **cond).sample

    # A callback is told sigmas[i], by the counter of the loop.
    call = {"prompt_embeds": c, "negative_prompt_embeds": u, "guidance_scale": 4.0, "height": 64, "width": 64}
    call |= {"original_size": (64, 64), "callback_on_step_end": lambda pipe, i, sigma, given: given}
    cond, uncond = {"encoder_hidden_states": c}, {"encoder_hidden_states": u}
    return Case(quiet(pipe), call | changes, noise(batch, 4, 8, 8), predict, cond, uncond)


def ltx(batch: int = 1, scheduler: Any = None, **changes: Any) -> Case:
    net = shake(
        diffusers.LTXVideoTransformer3DModel(
            in_channels=8, out_channels=8, patch_size=1, patch_size_t=1, num_attention_heads=4, attention_head_dim=8,
            cross_attention_dim=32, num_layers=1, caption_channels=16,
        )
    )  # fmt: skip
    four = dict.fromkeys(("block_out_channels", "decoder_block_out_channels"), (8, 8, 8, 8))
    vae = diffusers.AutoencoderKLLTXVideo(latent_channels=8, layers_per_block=(1,) * 5, **four)
    (c, u), mask = embeds(batch), torch.ones(batch, 5)
    pipe = diffusers.LTXPipeline(
        vae=vae, transformer=net, scheduler=scheduler or flow(), text_encoder=None, tokenizer=None
    )
    frames, height, width = 2, 2, 2
    scale = (pipe.vae_temporal_compression_ratio / 25, *[pipe.vae_spatial_compression_ratio] * 2)

    def predict(x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        given = {"num_frames": frames, "height": height, "width": width, "rope_interpolation_scale": scale}
        return net(hidden_states=x, timestep=t, encoder_attention_mask=mask, **given, **cond).sample

    call = {"prompt_embeds": c, "negative_prompt_embeds": u, "guidance_scale": 4.0, "frame_rate": 25}
    call |= {"prompt_attention_mask": mask, "negative_prompt_attention_mask": mask}
    call |= {f"{side}": 2 * pipe.vae_spatial_compression_ratio for side in ("height", "width")}
    call["num_frames"] = 1 + pipe.vae_temporal_compression_ratio
    cond, uncond = {"encoder_hidden_states": c}, {"encoder_hidden_states": u}
    return Case(quiet(pipe), call | changes, noise(batch, 8, 8), predict, cond, uncond)
