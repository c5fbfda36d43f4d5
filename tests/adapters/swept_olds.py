"""Tiny pipelines that came early, or are kept for old checkpoints, for the sweep."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import diffusers
import transformers
from swept import Swept
from swept_more_unets import texts
from swept_others import CLAMPS
from swept_parts import NO_GAP, SIZE, Words, clip_text, clip_vision, mask, of_parts, pil, vision
from swept_unets import unconditional
from tiny_paths import picture
from tiny_unets import ddim, noise, shake, tiny_vae, unet


def alone(name: str, scheduler: Any, refused: str = NO_GAP, more: Any = None, **call: Any) -> Swept:
    parts = {"unet": unconditional(), "scheduler": scheduler, **(more or {})}
    return of_parts(name, {"output_type": "np"} | call, parts, refused=refused)


def latent(**sizes: Any) -> Any:
    net = diffusers.UNet2DModel(
        block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=4, sample_size=8, attention_head_dim=4,
        out_channels=4, down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"), **sizes,
    )  # fmt: skip
    return shake(net)


def vq() -> Any:
    return shake(
        diffusers.VQModel(
            block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2, latent_channels=4,
            up_block_types=("UpDecoderBlock2D",) * 2, layers_per_block=1, norm_num_groups=4, num_vq_embeddings=12,
            vq_embed_dim=4,
        )
    )  # fmt: skip


def ldm(name: str, in_channels: int, **call: Any) -> Swept:
    parts = {"vqvae": vq(), "unet": latent(in_channels=in_channels), "scheduler": ddim()}
    return of_parts(name, {"output_type": "np"} | call, parts, refused=NO_GAP)


def ldm_text() -> Swept:
    from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel

    config = LDMBertConfig(
        vocab_size=100, max_position_embeddings=8, encoder_layers=1, encoder_ffn_dim=16, encoder_attention_heads=2,
        d_model=16, head_dim=8,
    )  # fmt: skip
    parts = {
        "vqvae": tiny_vae(),
        "bert": shake(LDMBertModel(config), 3),
        "tokenizer": Words(),
        "unet": unet("sd"),
        "scheduler": ddim(),
    }
    call = {"prompt": "red", "guidance_scale": 4.0, "output_type": "np", "height": 64, "width": 64}
    return of_parts("LDMTextToImagePipeline", call, parts)


def shap_e(name: str, refused: str = CLAMPS, z2_refused: str = "", **config: Any) -> Swept:
    from diffusers.pipelines.shap_e.renderer import ShapERenderer

    tokens = 4
    net = diffusers.PriorTransformer(
        num_attention_heads=2, attention_head_dim=8, embedding_dim=16, num_embeddings=tokens, embedding_proj_dim=16,
        time_embed_dim=16, num_layers=1, clip_embed_dim=32, additional_embeddings=0, time_embed_act_fn="gelu",
        norm_in_type="layer" if name == "ShapEPipeline" else None, encoder_hid_proj_type=None, added_emb_type=None,
    )  # fmt: skip
    renderer = ShapERenderer(param_shapes=((8, 93), (8, 8), (8, 8), (8, 8)), d_latent=16, d_hidden=8, n_output=12)
    scheduler = diffusers.HeunDiscreteScheduler(
        beta_schedule="exp", num_train_timesteps=1024, prediction_type="sample", use_karras_sigmas=True,
        clip_sample_range=1.0, **{"clip_sample": True} | config,
    )  # fmt: skip
    parts = {"prior": shake(net), "scheduler": scheduler, "shap_e_renderer": renderer}
    if name == "ShapEPipeline":
        parts |= {"text_encoder": clip_text(), "tokenizer": Words()}
        return of_parts(
            name,
            {"prompt": "red", "guidance_scale": 4.0},
            parts,
            refused=refused,
            z2_refused=z2_refused,
            scale=None if config else 4.0,
        )
    parts |= {"image_encoder": transformers.CLIPVisionModel(clip_vision().config), "image_processor": vision()}
    return of_parts(
        name,
        {"image": pil(16), "guidance_scale": 4.0},
        parts,
        refused=refused,
        z2_refused=z2_refused,
        scale=None if config else 4.0,
    )


def wuerstchen_decoder() -> dict[str, Any]:
    from diffusers.pipelines.deprecated.wuerstchen import PaellaVQModel, WuerstchenDiffNeXt

    net = WuerstchenDiffNeXt(
        c_cond=16, c_hidden=[8, 16], nhead=[-1, 2], blocks=[1, 1], level_config=["CT", "CTA"],
        inject_effnet=[False, True], effnet_embd=16, clip_embd=16, c_r=8,
    )  # fmt: skip
    parts = {"decoder": shake(net), "vqgan": shake(PaellaVQModel(num_vq_embeddings=8, embed_dim=8))}
    return parts | {"text_encoder": clip_text(), "tokenizer": Words(), "scheduler": diffusers.DDPMWuerstchenScheduler()}


def wuerstchen() -> Swept:
    call = {"prompt": "red", "guidance_scale": 4.0, "image_embeddings": noise(1, 16, 4, 4, seed=7)}
    return of_parts("WuerstchenDecoderPipeline", call, wuerstchen_decoder() | {"latent_dim_scale": 4.0})


def wuerstchen_combined() -> Swept:
    from diffusers.pipelines.deprecated.wuerstchen import WuerstchenPrior

    net = WuerstchenPrior(c_in=16, c=8, depth=1, c_cond=16, c_r=8, nhead=2)
    prior = {
        "prior": shake(net),
        "text_encoder": clip_text(),
        "tokenizer": Words(),
        "scheduler": diffusers.DDPMWuerstchenScheduler(),
    }
    call = {"prompt": "red", "decoder_guidance_scale": 4.0, "prior_guidance_scale": 4.0, "prior_num_inference_steps": 2}
    call |= {"height": 128, "width": 128, "output_type": "latent"}
    return of_parts(
        "WuerstchenCombinedPipeline", call, wuerstchen_decoder() | {f"prior_{key}": part for key, part in prior.items()}
    )


def unidiffuser() -> Swept:
    """Whose two halves of a state are predicted apart, and each branch is another call."""
    text = clip_text().config
    net = diffusers.UniDiffuserModel(
        text_dim=16, clip_img_dim=16, num_text_tokens=text.max_position_embeddings, num_attention_heads=2,
        attention_head_dim=4, in_channels=4, out_channels=4, num_layers=1, norm_num_groups=4, sample_size=8,
        patch_size=2, activation_fn="gelu", num_embeds_ada_norm=1000, norm_type="layer_norm", block_type="unidiffuser",
        pre_layer_norm=False, use_timestep_embedding=False, use_patch_pos_embed=False, ff_final_dropout=True,
    )  # fmt: skip
    decoder = diffusers.UniDiffuserTextDecoder(
        prefix_length=text.max_position_embeddings, prefix_inner_dim=16, vocab_size=100, n_positions=16, n_embd=16,
        n_layer=1, n_head=2,
    )  # fmt: skip
    parts = {"vae": tiny_vae(), "unet": shake(net), "scheduler": ddim(), "text_decoder": decoder}
    parts |= {"image_encoder": clip_vision(), "clip_image_processor": vision(), "text_tokenizer": Words()}
    parts |= {"text_encoder": texts()["text_encoder"], "clip_tokenizer": Words()}
    call = {"prompt_embeds": noise(1, text.max_position_embeddings, 16, seed=3), "guidance_scale": 4.0}
    return of_parts(
        "UniDiffuserPipeline",
        SIZE | call | {"negative_prompt_embeds": noise(1, text.max_position_embeddings, 16, seed=4)},
        parts,
        refused="not laid out like",
    )


def vq_diffusion() -> Swept:
    """Whose states are tokens."""
    from diffusers.pipelines.deprecated.vq_diffusion.pipeline_vq_diffusion import (
        LearnedClassifierFreeSamplingEmbeddings as Learned,
    )

    net = diffusers.Transformer2DModel(
        attention_head_dim=4, num_attention_heads=2, num_vector_embeds=12, cross_attention_dim=16, attention_bias=True,
        num_embeds_ada_norm=10, sample_size=4, activation_fn="geglu-approximate", norm_type="ada_norm",
    )  # fmt: skip
    parts = {"transformer": shake(net), "vqvae": vq(), "learned_classifier_free_sampling_embeddings": Learned(False)}
    parts |= {"scheduler": diffusers.VQDiffusionScheduler(num_vec_classes=12, num_train_timesteps=10), **texts()}
    return of_parts("VQDiffusionPipeline", {"prompt": "red", "output_type": "np"}, parts, refused="has no steps")


def repaint() -> Swept:
    call = {"image": picture(1, 3, 8, 8), "mask_image": mask(8), "jump_length": 1, "jump_n_sample": 1}
    return alone("RePaintPipeline", diffusers.RePaintScheduler(), "original_image, mask", **call)


CLASSES: dict[str, Callable[[], Swept]] = {
    "PNDMPipeline": lambda: alone("PNDMPipeline", diffusers.PNDMScheduler(), "Runge-Kutta", num_inference_steps=4),
    "RePaintPipeline": repaint,
    "KarrasVePipeline": lambda: alone("KarrasVePipeline", diffusers.KarrasVeScheduler(), "sample_hat"),
    "LDMPipeline": partial(ldm, "LDMPipeline", 4),
    "LDMSuperResolutionPipeline": partial(ldm, "LDMSuperResolutionPipeline", 8, image=noise(1, 4, 8, 8, seed=9)),
    "LDMTextToImagePipeline": ldm_text,
    "ShapEPipeline": partial(shap_e, "ShapEPipeline"),
    "ShapEPipeline, unclipped": partial(shap_e, "ShapEPipeline", "", "has no inverse", clip_sample=False),
    "ShapEImg2ImgPipeline": partial(shap_e, "ShapEImg2ImgPipeline"),
    "WuerstchenDecoderPipeline": wuerstchen,
    "WuerstchenCombinedPipeline": wuerstchen_combined,
    "UniDiffuserPipeline": unidiffuser,
    "VQDiffusionPipeline": vq_diffusion,
}
# What is in no sweep, and why.
UNBUILT: dict[str, str] = {
    "UnCLIPPipeline": "three schedulers under other names, and no `scheduler`: attach asks for one",
    "UnCLIPImageVariationPipeline": "two schedulers under other names, and no `scheduler`: attach asks for one",
    "RFD4ProteinaPipeline": "two schedulers under other names, and no `scheduler`: attach asks for one",
    "ScoreSdeVePipeline": "its scheduler has step_pred and step_correct, and no `step`: attach asks for one",
    "VersatileDiffusionPipeline": "no call of its own: each of its methods runs one of the pipelines that are swept",
    "VersatileDiffusionDualGuidedPipeline": "fails by itself: DualTransformer2DModel takes no encoder_attention_mask",
    "StableDiffusionOnnxPipeline": "its networks are sessions of onnxruntime, and no modules",
    "KolorsPipeline": "needs sentencepiece",
    "KolorsImg2ImgPipeline": "needs sentencepiece",
    "KolorsPAGPipeline": "needs sentencepiece",
    "ConsisIDPipeline": "needs opencv",
    "AudioDiffusionPipeline": "needs librosa",
    "SpectrogramDiffusionPipeline": "needs note_seq",
}
