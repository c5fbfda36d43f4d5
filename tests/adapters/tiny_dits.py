"""Tiny random transformer pipelines, each with a predictor that is written out here by hand."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from tiny_unets import Case, ddim, embeds, noise, quiet, shake, tiny_vae
from torch import Tensor

Cond = dict[str, Any]


def flow(**config: Any) -> Any:
    return diffusers.FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, **config})


def without(*names: str) -> dict[str, None]:
    return dict.fromkeys(names)


def sd3(batch: int = 1, scheduler: Any = None, **changes: Any) -> Case:
    net = shake(
        diffusers.SD3Transformer2DModel(
            sample_size=8, patch_size=1, in_channels=4, out_channels=4, num_layers=1, attention_head_dim=8,
            num_attention_heads=2, joint_attention_dim=16, caption_projection_dim=16, pooled_projection_dim=16,
        )
    )  # fmt: skip
    (c, u), (pc, pu) = embeds(batch), (noise(batch, 16, seed=5), noise(batch, 16, seed=6))
    nothing = without(*(f"{kind}{n}" for kind in ("text_encoder", "tokenizer") for n in ("", "_2", "_3")))
    pipe = diffusers.StableDiffusion3Pipeline(transformer=net, scheduler=scheduler or flow(), vae=tiny_vae(), **nothing)

    def predict(x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        return net(hidden_states=x, timestep=t, **cond).sample

    call = {"prompt_embeds": c, "negative_prompt_embeds": u, "pooled_prompt_embeds": pc, "guidance_scale": 4.0}
    call |= {"negative_pooled_prompt_embeds": pu, "height": 16, "width": 16}
    cond, uncond = ({"encoder_hidden_states": e, "pooled_projections": p} for e, p in ((c, pc), (u, pu)))
    return Case(quiet(pipe), call | changes, noise(batch, 4, 8, 8), predict, cond, uncond)


def hunyuan(batch: int = 1, scheduler: Any = None, **changes: Any) -> Case:
    net = shake(
        diffusers.HunyuanDiT2DModel(
            sample_size=8, num_layers=2, patch_size=2, attention_head_dim=8, num_attention_heads=2, in_channels=4,
            cross_attention_dim=16, cross_attention_dim_t5=16, pooled_projection_dim=16, hidden_size=16,
            text_len=5, text_len_t5=5,
        )
    )  # fmt: skip
    (c, u), (c2, u2), mask = (
        embeds(batch),
        (noise(batch, 5, 16, seed=5), noise(batch, 5, 16, seed=6)),
        torch.ones(batch, 5),
    )
    pipe = diffusers.HunyuanDiTPipeline(
        vae=tiny_vae(8), transformer=net, scheduler=scheduler or ddim(), requires_safety_checker=False,
        **without("text_encoder", "tokenizer", "safety_checker", "feature_extractor"),
    )  # fmt: skip
    rope = diffusers.models.embeddings.get_2d_rotary_pos_embed(
        8, diffusers.pipelines.hunyuandit.pipeline_hunyuandit.get_resize_crop_region_for_grid((4, 4), 32), (4, 4),
        output_type="pt",
    )  # fmt: skip
    ids = torch.tensor([[1024.0, 1024, 64, 64, 0, 0]]).repeat(batch, 1)

    def predict(x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        given = {"text_embedding_mask": mask, "text_embedding_mask_t5": mask, "image_meta_size": ids}
        style = torch.zeros(batch, dtype=torch.long)
        e = net(x, t.to(x.dtype), **given, **cond, style=style, image_rotary_emb=rope).sample
        return e[:, :4]  # the other half is a variance

    call = {"prompt_embeds": c, "negative_prompt_embeds": u, "prompt_embeds_2": c2, "negative_prompt_embeds_2": u2}
    masks = [f"{n}prompt_attention_mask{k}" for n in ("", "negative_") for k in ("", "_2")]
    call |= dict.fromkeys(masks, mask) | {
        "guidance_scale": 4.0,
        "height": 64,
        "width": 64,
        "use_resolution_binning": False,
    }
    cond, uncond = ({"encoder_hidden_states": e, "encoder_hidden_states_t5": e2} for e, e2 in ((c, c2), (u, u2)))
    return Case(quiet(pipe), call | changes, noise(batch, 4, 8, 8), predict, cond, uncond)


def pixart(batch: int = 1, scheduler: Any = None, **changes: Any) -> Case:
    net = shake(
        diffusers.PixArtTransformer2DModel(
            sample_size=8, num_layers=1, patch_size=2, attention_head_dim=8, num_attention_heads=2, in_channels=4,
            out_channels=8, cross_attention_dim=16, caption_channels=16, use_additional_conditions=False,
        )
    )  # fmt: skip
    (c, u), mask = embeds(batch), torch.ones(batch, 5)
    pipe = diffusers.PixArtSigmaPipeline(
        vae=tiny_vae(), transformer=net, scheduler=scheduler or ddim(), text_encoder=None, tokenizer=None
    )

    def predict(x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        added = {"resolution": None, "aspect_ratio": None}
        return net(x, timestep=t, encoder_attention_mask=mask, added_cond_kwargs=added, **cond).sample[:, :4]

    call = {"prompt_embeds": c, "negative_prompt_embeds": u, "prompt_attention_mask": mask, "negative_prompt": None}
    call |= {"negative_prompt_attention_mask": mask, "guidance_scale": 4.0, "height": 16, "width": 16}
    cond, uncond = {"encoder_hidden_states": c}, {"encoder_hidden_states": u}
    call["use_resolution_binning"] = False
    return Case(quiet(pipe), call | changes, noise(batch, 4, 8, 8), predict, cond, uncond)


def cogvideox(batch: int = 1, scheduler: Any = None, **changes: Any) -> Case:
    net = shake(
        diffusers.CogVideoXTransformer3DModel(
            num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=4, time_embed_dim=4,
            text_embed_dim=16, num_layers=1, sample_width=4, sample_height=4, sample_frames=5, patch_size=2,
            temporal_compression_ratio=4, max_text_seq_length=5,
        )
    )  # fmt: skip
    vae = diffusers.AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4, up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(4, 4, 4, 4), latent_channels=4, layers_per_block=1, norm_num_groups=2,
    )  # fmt: skip
    c, u = embeds(batch)
    scheduler = scheduler or diffusers.CogVideoXDDIMScheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, snr_shift_scale=3.0, timestep_spacing="trailing",
        clip_sample=False,
    )  # fmt: skip
    pipe = diffusers.CogVideoXPipeline(vae=vae, transformer=net, scheduler=scheduler, text_encoder=None, tokenizer=None)

    def predict(x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        return net(hidden_states=x, timestep=t, **cond).sample

    call = {"prompt_embeds": c, "negative_prompt_embeds": u, "guidance_scale": 4.0, "num_frames": 5}
    call |= {"height": 32, "width": 32, "num_inference_steps": 5}
    cond, uncond = {"encoder_hidden_states": c}, {"encoder_hidden_states": u}
    return Case(quiet(pipe), call | changes, noise(batch, 2, 4, 4, 4), predict, cond, uncond)


def wan(batch: int = 1, scheduler: Any = None, **changes: Any) -> Case:
    net = shake(
        diffusers.WanTransformer3DModel(
            patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4,
            text_dim=16, freq_dim=16, ffn_dim=16, num_layers=1, cross_attn_norm=True, rope_max_seq_len=32,
        )
    )  # fmt: skip
    vae = diffusers.AutoencoderKLWan(base_dim=3, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
    c, u = embeds(batch)
    pipe = diffusers.WanPipeline(
        vae=vae, transformer=net, scheduler=scheduler or flow(), text_encoder=None, tokenizer=None
    )

    def predict(x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        return net(hidden_states=x, timestep=t, **cond).sample

    call = {"prompt_embeds": c, "negative_prompt_embeds": u, "guidance_scale": 4.0, "num_frames": 5}
    cond, uncond = {"encoder_hidden_states": c}, {"encoder_hidden_states": u}
    return Case(
        quiet(pipe), call | {"height": 32, "width": 32} | changes, noise(batch, 4, 2, 4, 4), predict, cond, uncond
    )


def sana(batch: int = 1, scheduler: Any = None, **changes: Any) -> Case:
    net = shake(
        diffusers.SanaTransformer2DModel(
            patch_size=1, in_channels=4, out_channels=4, num_layers=1, num_attention_heads=2, attention_head_dim=4,
            num_cross_attention_heads=2, cross_attention_head_dim=4, cross_attention_dim=8, caption_channels=16,
            sample_size=8,
        )
    )  # fmt: skip
    vae = diffusers.AutoencoderDC(
        in_channels=3, latent_channels=4, encoder_block_types=("ResBlock",) * 2, encoder_block_out_channels=(4, 4),
        decoder_block_types=("ResBlock", "ResBlock"), decoder_block_out_channels=(4, 4), attention_head_dim=2,
        encoder_layers_per_block=(1, 1), decoder_layers_per_block=(1, 1), encoder_qkv_multiscales=((), ()),
        decoder_qkv_multiscales=((), ()),
    )  # fmt: skip
    (c, u), mask = embeds(batch), torch.ones(batch, 5)
    pipe = diffusers.SanaPipeline(
        vae=vae, transformer=net, scheduler=scheduler or flow(), text_encoder=None, tokenizer=None
    )

    def predict(x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        return net(x, timestep=t * net.config.timestep_scale, encoder_attention_mask=mask, **cond).sample

    call = {"prompt_embeds": c, "negative_prompt_embeds": u, "prompt_attention_mask": mask, "guidance_scale": 4.0}
    call |= {"negative_prompt_attention_mask": mask, "negative_prompt": None, "use_resolution_binning": False}
    cond, uncond = {"encoder_hidden_states": c}, {"encoder_hidden_states": u}
    return Case(
        quiet(pipe), call | {"height": 32, "width": 32} | changes, noise(batch, 4, 16, 16), predict, cond, uncond
    )


def lumina2(batch: int = 1, scheduler: Any = None, **changes: Any) -> Case:
    net = shake(
        diffusers.Lumina2Transformer2DModel(
            sample_size=8, patch_size=2, in_channels=4, hidden_size=8, num_layers=1, num_refiner_layers=1,
            num_attention_heads=1, num_kv_heads=1, multiple_of=16, axes_dim_rope=(4, 2, 2), axes_lens=(32, 16, 16),
            cap_feat_dim=16,
        )
    )  # fmt: skip
    (c, u), mask = embeds(batch), torch.ones(batch, 5, dtype=torch.bool)
    pipe = diffusers.Lumina2Pipeline(
        vae=tiny_vae(8), transformer=net, scheduler=scheduler or flow(), text_encoder=None, tokenizer=None
    )

    def predict(x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        return -net(x, timestep=1 - t / 1000, encoder_attention_mask=mask, **cond).sample

    call = {"prompt_embeds": c, "negative_prompt_embeds": u, "prompt_attention_mask": mask, "guidance_scale": 4.0}
    call |= {"negative_prompt_attention_mask": mask, "height": 64, "width": 64, "cfg_normalization": False}
    cond, uncond = {"encoder_hidden_states": c}, {"encoder_hidden_states": u}
    return Case(quiet(pipe), call | changes, noise(batch, 4, 8, 8), predict, cond, uncond)


def z_image(batch: int = 1, scheduler: Any = None, **changes: Any) -> Case:
    net = shake(
        diffusers.ZImageTransformer2DModel(
            in_channels=4, dim=32, n_layers=1, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=16,
            axes_dims=[8, 4, 4], axes_lens=[256, 32, 32],
        )
    )  # fmt: skip
    c, u = (list(e) for e in embeds(batch))
    pipe = diffusers.ZImagePipeline(
        vae=tiny_vae(8), transformer=net, scheduler=scheduler or flow(), text_encoder=None, tokenizer=None
    )

    def predict(x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        out = net(list(x.unsqueeze(2)), (1000 - t) / 1000, cond["captions"], return_dict=False)[0]
        return -torch.stack(out).squeeze(2)

    # It calls e_c + g·(e_c − e_u) a scale of g.
    call = {"prompt_embeds": c, "negative_prompt_embeds": u, "guidance_scale": 3.0, "height": 64, "width": 64}
    return Case(quiet(pipe), call | changes, noise(batch, 4, 8, 8), predict, {"captions": c}, {"captions": u})
