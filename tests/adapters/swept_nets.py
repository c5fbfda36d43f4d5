"""Tiny transformers of videos for the sweep, each with its autoencoder, scheduler and call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import torch
from swept_parts import POOLED, SIZE, case
from tiny_dits import flow
from tiny_unets import Case, ddim, noise, tiny_vae
from torch import nn

MASKS = {"prompt_attention_mask": torch.ones(1, 5), "negative_prompt_attention_mask": torch.ones(1, 5)}
WAN: dict[str, Any] = {
    "patch_size": (1, 2, 2), "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 4, "out_channels": 4,
    "text_dim": 16, "freq_dim": 16, "ffn_dim": 16, "num_layers": 1, "cross_attn_norm": True,
}  # fmt: skip


class Safe(nn.Module):
    """In place of Cosmos' guardrail."""

    device, dtype = torch.device("cpu"), torch.float32

    def check_text_safety(self, prompt: str) -> bool:
        return True


def wan_vae() -> Any:
    sizes: dict[str, Any] = {"dim_mult": [1, 1, 1, 1], "latents_mean": [0.0] * 4, "latents_std": [1.0] * 4}
    return diffusers.AutoencoderKLWan(base_dim=3, z_dim=4, num_res_blocks=1, **sizes)


def allegro() -> Case:
    net = diffusers.AllegroTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, num_layers=1,
        cross_attention_dim=24, sample_width=8, sample_height=8, sample_frames=8, caption_channels=16,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLAllegro(
        down_block_types=("AllegroDownBlock3D",) * 4, up_block_types=("AllegroUpBlock3D",) * 4,
        block_out_channels=(8,) * 4, latent_channels=4, layers_per_block=1, norm_num_groups=2,
        temporal_compression_ratio=4,
    )  # fmt: skip
    return case(net, vae, ddim(), height=32, width=32, num_frames=8, **MASKS)


def latte() -> Case:
    net = diffusers.LatteTransformer3DModel(
        sample_size=8, num_layers=1, patch_size=2, attention_head_dim=8, num_attention_heads=2, caption_channels=16,
        video_length=2, in_channels=4, cross_attention_dim=16, out_channels=8, attention_bias=True,
        num_embeds_ada_norm=1000, activation_fn="gelu-approximate", norm_type="ada_norm_single",
        norm_elementwise_affine=False,
    )  # fmt: skip
    return case(net, tiny_vae(), ddim(), video_length=2, **SIZE)


def mochi(**config: Any) -> Case:
    net = diffusers.MochiTransformer3DModel(
        patch_size=2, num_attention_heads=2, attention_head_dim=8, num_layers=2, pooled_projection_dim=16,
        in_channels=4, text_embed_dim=16, time_embed_dim=4, max_sequence_length=16,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLMochi(
        latent_channels=4, encoder_block_out_channels=(32,) * 4, decoder_block_out_channels=(32,) * 4,
        layers_per_block=(1,) * 5, latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    )  # fmt: skip
    return case(net, vae, flow(**config), num_frames=7, **SIZE, **{name: mask.bool() for name, mask in MASKS.items()})


def cosmos_vae() -> Any:
    return diffusers.AutoencoderKLCosmos(
        latent_channels=4, encoder_block_out_channels=(8,) * 4, decode_block_out_channels=(8,) * 4,
        attention_resolutions=(8,), resolution=64, num_layers=1, patch_size=4, spatial_compression_ratio=4,
        temporal_compression_ratio=4, latents_mean=None, latents_std=None,
    )  # fmt: skip


def cosmos(channels: int, vae: Callable[[], Any], scheduler: Callable[[], Any]) -> Case:
    net = diffusers.CosmosTransformer3DModel(
        in_channels=channels, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=1, mlp_ratio=2,
        text_embed_dim=16, adaln_lora_dim=4, max_size=(4, 32, 32), patch_size=(1, 2, 2), rope_scale=(2.0, 1.0, 1.0),
        concat_padding_mask=False, extra_pos_embed_type="learnable",
    )  # fmt: skip
    return case(net, vae(), scheduler(), height=32, width=32, num_frames=9)


def hunyuan_video(channels: int = 4) -> Case:
    net = diffusers.HunyuanVideoTransformer3DModel(
        in_channels=channels, out_channels=4, num_attention_heads=2, attention_head_dim=10, num_layers=1,
        num_single_layers=1, num_refiner_layers=1, patch_size=1, patch_size_t=1, guidance_embeds=True,
        text_embed_dim=16, pooled_projection_dim=16, rope_axes_dim=(2, 4, 4),
    )  # fmt: skip
    vae = diffusers.AutoencoderKLHunyuanVideo(
        latent_channels=4, down_block_types=("HunyuanVideoDownBlock3D",) * 4,
        up_block_types=("HunyuanVideoUpBlock3D",) * 4, block_out_channels=(8,) * 4, layers_per_block=1,
        norm_num_groups=4,
    )  # fmt: skip
    return case(net, vae, flow(), num_frames=5, true_cfg_scale=4.0, **SIZE, **MASKS, **POOLED)


def hunyuan15() -> Case:
    net = diffusers.HunyuanVideo15Transformer3DModel(
        in_channels=9, out_channels=4, num_attention_heads=2, attention_head_dim=8, num_layers=1, num_refiner_layers=1,
        mlp_ratio=2.0, patch_size=1, patch_size_t=1, text_embed_dim=16, text_embed_2_dim=16, image_embed_dim=12,
        rope_axes_dim=(2, 2, 4), target_size=16, task_type="t2v",
    )  # fmt: skip
    vae = diffusers.AutoencoderKLHunyuanVideo15(
        latent_channels=4, block_out_channels=(16, 16), layers_per_block=1, spatial_compression_ratio=4,
        temporal_compression_ratio=2, downsample_match_channel=False, upsample_match_channel=False,
    )  # fmt: skip
    given = {f"{side}prompt_embeds_mask{n}": torch.ones(1, 5) for side in ("", "negative_") for n in ("", "_2")}
    given |= {"prompt_embeds_2": noise(1, 5, 16, seed=7), "negative_prompt_embeds_2": noise(1, 5, 16, seed=8)}
    return case(net, vae, flow(), num_frames=5, **SIZE, **given)


def easyanimate() -> Case:
    net = diffusers.EasyAnimateTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, time_embed_dim=2,
        text_embed_dim=16, num_layers=1, sample_width=16, sample_height=16, patch_size=2,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLMagvit(
        down_block_types=("SpatialDownBlock3D", *("SpatialTemporalDownBlock3D",) * 3),
        up_block_types=("SpatialUpBlock3D", *("SpatialTemporalUpBlock3D",) * 3), block_out_channels=(8,) * 4,
        latent_channels=4, layers_per_block=1, norm_num_groups=2, spatial_group_norm=False,
    )  # fmt: skip
    return case(net, vae, flow(), num_frames=5, **SIZE, **MASKS)


def skyreels(scheduler: Callable[[], Any]) -> Case:
    net = diffusers.SkyReelsV2Transformer3DModel(**WAN, rope_max_seq_len=32)
    return case(net, wan_vae(), scheduler(), num_frames=9, **SIZE)


def vace() -> Case:
    net = diffusers.WanVACETransformer3DModel(
        **WAN | {"num_layers": 2}, rope_max_seq_len=32, vace_layers=[0, 1], vace_in_channels=4 * 2 + 64
    )
    return case(net, wan_vae(), flow(), num_frames=5, **SIZE)


def wide_wan(channels: int) -> Case:
    net = diffusers.WanTransformer3DModel(**WAN | {"in_channels": channels}, rope_max_seq_len=32)
    return case(net, wan_vae(), flow(), num_frames=9, **SIZE)


def anyflow(cls: Any, **config: Any) -> Case:
    net = cls(**WAN, rope_max_seq_len=32, gate_value=0.25, deltatime_type="r", **config)
    return case(net, wan_vae(), diffusers.FlowMapEulerDiscreteScheduler(shift=5.0), num_frames=9, **SIZE)


def helios() -> Case:
    net = diffusers.HeliosTransformer3DModel(
        **WAN, rope_dim=(4, 4, 4), has_multi_term_memory_patch=True, guidance_cross_attn=True,
        zero_history_timestep=True, is_amplify_history=False,
    )  # fmt: skip
    config: dict[str, Any] = {"stage_range": [0, 1], "stages": 1, "use_dynamic_shifting": True}
    scheduler = diffusers.HeliosScheduler(scheduler_type="euler", **config)
    return case(net, wan_vae(), scheduler, num_frames=9, **SIZE)


def sana_video() -> Case:
    net = diffusers.SanaVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=12, num_layers=1,
        num_cross_attention_heads=2, cross_attention_head_dim=12, cross_attention_dim=24, caption_channels=16,
        sample_size=8, patch_size=(1, 2, 2), norm_elementwise_affine=False, qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
    )  # fmt: skip
    size = {"height": 32, "width": 32, "frames": 9, "use_resolution_binning": False}
    return case(net, wan_vae(), flow(), **size, **MASKS)
