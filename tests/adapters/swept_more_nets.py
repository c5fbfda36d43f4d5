"""Tiny networks of images for the sweep, each with its autoencoder, scheduler and call."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import diffusers
import torch
import transformers
from swept_parts import case
from tiny_dits import flow, hunyuan, sd3
from tiny_packed import qwen
from tiny_unets import Case, embeds, noise, shake, tiny_vae

SIZED = {"height": 64, "width": 64}


def llama() -> Any:
    """A text encoder of which a pipeline takes all layers."""
    config = transformers.LlamaConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        vocab_size=100,
    )  # fmt: skip
    return shake(transformers.LlamaForCausalLM(config), 3)


def hunyuan_control() -> dict[str, Any]:
    sizes = dict(hunyuan().pipe.transformer.config)
    taken = inspect.signature(diffusers.HunyuanDiT2DControlNetModel.__init__).parameters
    sizes = {key: size for key, size in sizes.items() if key in taken} | {"transformer_num_layers": 2}
    return {"controlnet": shake(diffusers.HunyuanDiT2DControlNetModel(**sizes), 7)}


def sd3_control() -> dict[str, Any]:
    given = {"num_layers": 1, "num_extra_conditioning_channels": 1, "load_weights_from_transformer": False}
    return {"controlnet": shake(diffusers.SD3ControlNetModel.from_transformer(sd3().pipe.transformer, **given), 7)}


def hunyuan_image(**guided: Any) -> Callable[[], Case]:
    def build() -> Case:
        net = diffusers.HunyuanImageTransformer2DModel(
            in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8, num_layers=1,
            num_single_layers=1, num_refiner_layers=1, patch_size=(1, 1), text_embed_dim=16, text_embed_2_dim=16,
            rope_axes_dim=(4, 4),
        )  # fmt: skip
        vae = diffusers.AutoencoderKLHunyuanImage(
            in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(32, 32), layers_per_block=1,
            scaling_factor=0.5, spatial_compression_ratio=2, sample_size=64,
        )  # fmt: skip
        second = {"prompt_embeds_2": noise(1, 5, 16, seed=5), "negative_prompt_embeds_2": noise(1, 5, 16, seed=6)}
        masks = [f"{n}prompt_embeds_mask{k}" for n in ("", "negative_") for k in ("", "_2")]
        call = {"height": 16, "width": 16} | second | dict.fromkeys(masks, torch.ones(1, 5, dtype=torch.long))
        return case(net, vae, flow(), **call)

    return build


def cogview3() -> Case:
    net = diffusers.CogView3PlusTransformer2DModel(
        patch_size=2, in_channels=4, num_layers=1, attention_head_dim=4, num_attention_heads=2, out_channels=4,
        text_embed_dim=16, time_embed_dim=8, condition_dim=2, pos_embed_max_size=8, sample_size=8,
    )  # fmt: skip
    return case(net, tiny_vae(), diffusers.CogVideoXDDIMScheduler(clip_sample=False), height=16, width=16)


def bria() -> Case:
    net = diffusers.BriaTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=16, pooled_projection_dim=None, axes_dims_rope=[0, 4, 4],
    )  # fmt: skip
    return case(net, tiny_vae(), flow(use_dynamic_shifting=True), height=16, width=16)


def fibo_vae() -> Any:
    return diffusers.AutoencoderKLWan(
        base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, in_channels=12, out_channels=12, patch_size=2,
        scale_factor_spatial=16,
    )  # fmt: skip


def fibo() -> Case:
    net = diffusers.BriaFiboTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=32, text_encoder_dim=16, pooled_projection_dim=None, axes_dims_rope=[0, 4, 4],
    )  # fmt: skip
    call = {"prompt": '{"text": "red"}', "negative_prompt": "blue", "guidance_scale": 4.0}
    return case(net, fibo_vae(), flow(use_dynamic_shifting=True), **SIZED | call)


def hidream() -> Case:
    net = diffusers.HiDreamImageTransformer2DModel(
        patch_size=2, in_channels=4, out_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=8,
        num_attention_heads=2, caption_channels=[16, 16], text_emb_dim=32, num_routed_experts=2,
        num_activated_experts=1, axes_dims_rope=(4, 2, 2), max_resolution=(16, 16), llama_layers=(0, 1),
    )  # fmt: skip
    names = ("prompt_embeds_t5", "negative_prompt_embeds_t5")
    call: dict[str, Any] = dict(zip(names, embeds(1), strict=True))
    call |= {
        "prompt_embeds_llama3": noise(2, 1, 5, 16, seed=7),
        "negative_prompt_embeds_llama3": noise(2, 1, 5, 16, seed=8),
    }
    call |= {"pooled_prompt_embeds": noise(1, 32, seed=5), "negative_pooled_prompt_embeds": noise(1, 32, seed=6)}
    return case(net, tiny_vae(8), flow(), **SIZED | call)


def movq() -> Any:
    return shake(
        diffusers.VQModel(
            block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
            up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"), latent_channels=4, layers_per_block=1,
            norm_num_groups=4, norm_type="spatial", num_vq_embeddings=12, vq_embed_dim=4,
        )
    )  # fmt: skip


def qwen_vae() -> Any:
    return qwen().pipe.vae


def krea2() -> Case:
    net = diffusers.Krea2Transformer2DModel(
        in_channels=16, num_layers=1, attention_head_dim=8, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=32, timestep_embed_dim=8, text_hidden_dim=16, num_text_layers=2, text_num_attention_heads=2,
        text_num_key_value_heads=1, text_intermediate_size=16, num_layerwise_text_blocks=1,
        num_refiner_text_blocks=1, axes_dims_rope=(4, 2, 2),
    )  # fmt: skip
    texts = {"prompt_embeds": noise(1, 5, 2, 16, seed=3), "negative_prompt_embeds": noise(1, 5, 2, 16, seed=4)}
    masks = dict.fromkeys(("prompt_embeds_mask", "negative_prompt_embeds_mask"), torch.ones(1, 5, dtype=torch.bool))
    return case(net, qwen_vae(), flow(use_dynamic_shifting=True), **SIZED | texts | masks)


def longcat() -> Case:
    net = diffusers.LongCatImageTransformer2DModel(
        in_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, pooled_projection_dim=16, axes_dims_rope=[4, 4, 8],
    )  # fmt: skip
    texts = {"prompt": "red", "prompt_embeds": None, "negative_prompt_embeds": None}
    return case(net, tiny_vae(8, 16), flow(use_dynamic_shifting=True), **SIZED | texts)


def nucleus() -> Case:
    net = diffusers.NucleusMoEImageTransformer2DModel(
        patch_size=2, in_channels=16, out_channels=4, num_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, axes_dims_rope=(8, 4, 4), mlp_ratio=8.0, moe_enabled=False, capacity_factors=[8.0],
    )  # fmt: skip
    masks = dict.fromkeys(("prompt_embeds_mask", "negative_prompt_embeds_mask"), torch.ones(1, 5, dtype=torch.long))
    return case(net, qwen_vae(), flow(use_dynamic_shifting=True), **SIZED | masks)


def ovis() -> Case:
    net = diffusers.OvisImageTransformer2DModel(
        in_channels=16, out_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=16, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    return case(net, tiny_vae(8), flow(use_dynamic_shifting=True), **SIZED)


def flux2_vae(channels: int = 4) -> Any:
    return diffusers.AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",), up_block_types=("UpDecoderBlock2D",), block_out_channels=(4,),
        layers_per_block=1, latent_channels=channels, norm_num_groups=1, sample_size=16,
    )  # fmt: skip


def ernie() -> Case:
    net = diffusers.ErnieImageTransformer2DModel(
        hidden_size=32, num_attention_heads=2, num_layers=1, ffn_hidden_size=32, in_channels=16, out_channels=16,
        patch_size=1, text_in_dim=16, rope_axes_dim=(4, 4, 8),
    )  # fmt: skip
    texts = dict(zip(("prompt_embeds", "negative_prompt_embeds"), (list(e) for e in embeds(1)), strict=True))
    return case(net, flux2_vae(), flow(), height=8, width=8, **texts)


def ideogram() -> dict[str, Any]:
    """Whose unconditional branch is a network of its own."""
    sizes: dict[str, Any] = {
        "in_channels": 16, "num_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2,
        "intermediate_size": 32, "adaln_dim": 16, "llm_features_dim": 16, "mrope_section": (4, 2, 2),
    }  # fmt: skip
    nets = [shake(diffusers.Ideogram4Transformer2DModel(**sizes), seed) for seed in (0, 9)]
    parts = dict(zip(("transformer", "unconditional_transformer"), nets, strict=True))
    return parts | {"vae": flux2_vae(), "scheduler": flow(shift=1.0), "text_encoder": None, "tokenizer": None}


def lumina() -> Case:
    net = diffusers.LuminaNextDiT2DModel(
        sample_size=8, patch_size=2, in_channels=4, hidden_size=8, num_layers=1, num_attention_heads=1,
        num_kv_heads=1, multiple_of=16, cross_attention_dim=16,
    )  # fmt: skip
    masks = dict.fromkeys(("prompt_attention_mask", "negative_prompt_attention_mask"), torch.ones(1, 5))
    return case(net, tiny_vae(8), flow(), **SIZED | masks)


def refiner() -> Case:
    net = diffusers.HunyuanImageTransformer2DModel(
        in_channels=16, out_channels=8, num_attention_heads=2, attention_head_dim=8, num_layers=1,
        num_single_layers=1, num_refiner_layers=1, patch_size=(1, 1, 1), text_embed_dim=16, guidance_embeds=True,
        rope_axes_dim=(2, 2, 4),
    )  # fmt: skip
    vae = diffusers.AutoencoderKLHunyuanImageRefiner(
        latent_channels=4, block_out_channels=(8, 8, 8, 8, 8), layers_per_block=1,
    )  # fmt: skip
    masks = dict.fromkeys(("prompt_embeds_mask", "negative_prompt_embeds_mask"), torch.ones(1, 5, dtype=torch.long))
    return case(net, vae, flow(), **SIZED | masks)


def fibo2() -> Case:
    net = diffusers.BriaFibo2Transformer2DModel(
        in_channels=4, patch_size=2, dim=32, n_layers=2, n_refiner_layers=1, n_heads=2, cap_feat_dim=16,
        injection_layer_ids=(1,), perceiver_num_layers=1, min_num_gist_tokens=2, max_num_gist_tokens=4, gist_step=2,
        gist_min_text_len=2, gist_max_text_len=8, axes_dims=(4, 6, 6), axes_lens=(64, 32, 32),
    )  # fmt: skip
    texts = {"prompt_embeds": noise(1, 2, 5, 16, seed=3), "negative_prompt_embeds": noise(1, 2, 5, 16, seed=4)}
    return case(net, flux2_vae(), flow(use_dynamic_shifting=True), height=16, width=16, **texts)


def qwen21() -> Case:
    net = diffusers.QwenImage21Transformer2DModel(
        in_channels=4, out_channels=4, num_layers=1, attention_head_dim=16, num_attention_heads=2, context_in_dim=16,
        axes_dims_rope=(8, 4, 4),
    )  # fmt: skip
    vae = diffusers.AutoencoderKLQwenImage21(
        base_dim=4, decoder_base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1, 1], num_res_blocks=1, latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )  # fmt: skip
    return case(net, vae, flow(use_dynamic_shifting=True), **SIZED, true_cfg_scale=4.0)
