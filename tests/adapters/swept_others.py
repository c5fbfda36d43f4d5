"""Tiny pipelines of priors, decoders and cascades for the sweep: Kandinsky, DeepFloyd IF, Stable Cascade, Würstchen."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import diffusers
from swept import Swept
from swept_parts import Words, clip_text, clip_vision, mask, of_parts, pil, vision
from tiny_paths import picture
from tiny_unets import ddim, embeds, noise, shake

CROSS = {
    "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"), "block_out_channels": (32, 32),
    "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"), "layers_per_block": 1,
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn", "encoder_hid_dim": 16, "attention_head_dim": 4,
    "resnet_time_scale_shift": "scale_shift",
}  # fmt: skip
KINDS = {
    "2.1": {"addition_embed_type": "text_image", "encoder_hid_dim_type": "text_image_proj"},
    "2.2": {"addition_embed_type": "image", "encoder_hid_dim_type": "image_proj"},
    "hint": {"addition_embed_type": "image_hint", "encoder_hid_dim_type": "image_proj", "in_channels": 8},
    "inpaint": {"addition_embed_type": "image", "encoder_hid_dim_type": "image_proj", "in_channels": 9},
}
SIZE: dict[str, Any] = {"height": 16, "width": 16, "guidance_scale": 4.0}
IMAGES = {"image_embeds": noise(1, 16, seed=3), "negative_image_embeds": noise(1, 16, seed=4)}
PRIOR: dict[str, Any] = {"prior_guidance_scale": 4.0, "prior_num_inference_steps": 2}
CLAMPS, LEARNED = "clip_sample=True clamps", "learned variance"


def mclip() -> Any:
    from diffusers.pipelines.kandinsky.text_encoder import MCLIPConfig, MultilingualCLIP

    config = MCLIPConfig(
        numDims=16, transformerDimensions=16, hidden_size=16, intermediate_size=16, num_attention_heads=2,
        num_hidden_layers=1, vocab_size=100,
    )  # fmt: skip
    return shake(MultilingualCLIP(config), 4)


def kandinsky_parts(kind: str, in_channels: int = 4) -> dict[str, Any]:
    sizes: dict[str, Any] = {"in_channels": in_channels, "out_channels": 8, "cross_attention_dim": 16}
    sizes |= {**CROSS, **KINDS[kind]}
    movq = diffusers.VQModel(
        block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"), latent_channels=4, layers_per_block=1,
        norm_num_groups=4, norm_type="spatial", num_vq_embeddings=12, vq_embed_dim=4,
    )  # fmt: skip
    parts = {"unet": shake(diffusers.UNet2DConditionModel(**sizes), 2), "movq": shake(movq)}
    parts["scheduler"] = ddim(beta_schedule="linear")
    return parts | ({"text_encoder": mclip(), "tokenizer": Words()} if kind == "2.1" else {})


def kandinsky(name: str, kind: str = "2.2", in_channels: int = 4, **call: Any) -> Swept:
    said = {"prompt": "red", "output_type": "pt"} if kind == "2.1" else {}
    return of_parts(name, SIZE | IMAGES | said | call, kandinsky_parts(kind, in_channels))


def prior_parts(**config: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"num_attention_heads": 2, "attention_head_dim": 8, "embedding_dim": 16, "num_layers": 1}
    net = diffusers.PriorTransformer(num_embeddings=5, additional_embeddings=4, **given)
    clamp = {"variance_type": "fixed_small_log", "prediction_type": "sample", "clip_sample_range": 10.0}
    texts = {"text_encoder": clip_text(), "tokenizer": Words()}
    images = {"image_encoder": clip_vision(), "image_processor": vision()}
    return {"prior": shake(net), "scheduler": diffusers.UnCLIPScheduler(**clamp, **config), **texts, **images}


def prior(name: str, refused: str = "", z2_refused: str = "", scale: float | None = 4.0, **config: Any) -> Swept:
    call = {"prompt": "red", "guidance_scale": 4.0, "output_type": "pt"}
    return of_parts(name, call, prior_parts(**config), scale=scale, refused=refused, z2_refused=z2_refused)


def kandinsky_combined(name: str, kind: str, in_channels: int = 4, **call: Any) -> Swept:
    parts = kandinsky_parts(kind, in_channels) | {f"prior_{key}": value for key, value in prior_parts().items()}
    return of_parts(name, SIZE | PRIOR | {"prompt": "red", "output_type": "pt"} | call, parts)


def cascade(name: str, prefix: str, **config: Any) -> dict[str, Any]:
    """A model of Stable Cascade, and what goes with it."""
    net = diffusers.models.StableCascadeUNet(
        conditioning_dim=16, down_num_layers_per_block=(1, 1), up_num_layers_per_block=(1, 1), dropout=(0.0, 0.0),
        clip_text_pooled_in_channels=16, **config,
    )  # fmt: skip
    parts = {"text_encoder": clip_text(), "tokenizer": Words(), "scheduler": diffusers.DDPMWuerstchenScheduler()}
    return {f"{prefix}{key}": value for key, value in (parts | {name: shake(net)}).items()}


def cascade_prior(prefix: str = "") -> dict[str, Any]:
    return cascade(
        "prior", prefix, block_out_channels=(16, 16), num_attention_heads=(2, 2), switch_level=(False,),
        clip_image_in_channels=16, clip_text_in_channels=16,
    )  # fmt: skip


def cascade_decoder() -> dict[str, Any]:
    from diffusers.pipelines.deprecated.wuerstchen import PaellaVQModel

    res, vqgan = ["SDCascadeResBlock", "SDCascadeTimestepBlock"], PaellaVQModel(num_vq_embeddings=8, embed_dim=8)
    parts = cascade(
        "decoder", "", in_channels=4, out_channels=4, block_out_channels=[8, 16], num_attention_heads=[-1, 2],
        down_blocks_repeat_mappers=[1, 1], up_blocks_repeat_mappers=[1, 1], switch_level=None, clip_seq=1,
        block_types_per_layer=[res, [*res, "SDCascadeAttnBlock"]], effnet_in_channels=16, patch_size=2,
        pixel_mapper_in_channels=3,
    )  # fmt: skip
    return {**parts, "vqgan": shake(vqgan), "latent_dim_scale": 4.0}


POOLED = {"prompt_embeds_pooled": noise(1, 1, 16, seed=5), "negative_prompt_embeds_pooled": noise(1, 1, 16, seed=6)}
TEXTS: dict[str, Any] = dict(zip(("prompt_embeds", "negative_prompt_embeds"), embeds(1), strict=True))
TEXTS |= {"guidance_scale": 4.0}
DECODED: dict[str, Any] = TEXTS | POOLED | {"image_embeddings": noise(1, 16, 4, 4, seed=7)}
CALL: dict[str, Any] = TEXTS | {"height": 64, "width": 64, "output_type": "pt"}


def cascade_combined() -> Swept:
    call = {"prompt": "red", "decoder_guidance_scale": 4.0, "height": 128, "width": 128, "output_type": "pt"}
    parts = cascade_decoder() | cascade_prior("prior_")
    del parts["latent_dim_scale"]
    return of_parts("StableCascadeCombinedPipeline", call | PRIOR, parts)


def wuerstchen() -> Swept:
    from diffusers.pipelines.deprecated.wuerstchen import WuerstchenPrior

    net = WuerstchenPrior(c_in=2, c=8, depth=1, c_cond=16, c_r=8, nhead=2)
    parts = {"text_encoder": clip_text(), "tokenizer": Words(), "scheduler": diffusers.DDPMWuerstchenScheduler()}
    return of_parts("WuerstchenPriorPipeline", CALL, {"prior": shake(net), **parts})


def deepfloyd(name: str, **call: Any) -> Swept:
    """Whose scheduler takes a learned variance, by which its steps are not linear."""
    sizes: dict[str, Any] = {
        "in_channels": 3, "out_channels": 6, "cross_attention_dim": 32, "sample_size": 8, "act_fn": "gelu",
        "addition_embed_type": "text", "addition_embed_type_num_heads": 2, "cross_attention_norm": "group_norm",
        **CROSS,
    }  # fmt: skip
    learned = {"beta_schedule": "squaredcos_cap_v2", "variance_type": "learned_range", "thresholding": True}
    parts: dict[str, Any] = dict.fromkeys(("text_encoder", "tokenizer", "safety_checker", "feature_extractor"))
    parts |= {"watermarker": None, "requires_safety_checker": False}
    parts["scheduler"] = diffusers.DDPMScheduler(**learned, sample_max_value=1.0)
    if "SuperResolution" in name:
        sizes |= {"in_channels": 6, "class_embed_type": "timestep", "time_embedding_dim": 16}
        parts["image_noising_scheduler"] = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    parts["unet"] = shake(diffusers.UNet2DConditionModel(**sizes), 2)
    return of_parts(name, TEXTS | {"output_type": "pt"} | call, parts, refused=LEARNED)


FROM: dict[str, Any] = {"image": pil(16), "strength": 1.0}
INTO: dict[str, Any] = {"image": pil(16), "mask_image": mask(16)[0, 0].numpy()}
PIXELS: dict[str, Any] = {"image": picture(1, 3, 16, 16)}
CLASSES: dict[str, Callable[[], Swept]] = {
    "KandinskyPipeline": partial(kandinsky, "KandinskyPipeline", "2.1"),
    "KandinskyImg2ImgPipeline": partial(kandinsky, "KandinskyImg2ImgPipeline", "2.1", **FROM),
    "KandinskyInpaintPipeline": partial(kandinsky, "KandinskyInpaintPipeline", "2.1", in_channels=9, **INTO),
    "KandinskyV22Pipeline": partial(kandinsky, "KandinskyV22Pipeline"),
    "KandinskyV22Img2ImgPipeline": partial(kandinsky, "KandinskyV22Img2ImgPipeline", **FROM),
    "KandinskyV22InpaintPipeline": partial(kandinsky, "KandinskyV22InpaintPipeline", "inpaint", **INTO),
    "KandinskyV22ControlnetPipeline": partial(
        kandinsky, "KandinskyV22ControlnetPipeline", "hint", hint=picture(1, 3, 64, 64), output_type="pt"
    ),
    "KandinskyPriorPipeline": partial(prior, "KandinskyPriorPipeline", CLAMPS),
    "KandinskyV22PriorPipeline": partial(prior, "KandinskyV22PriorPipeline", CLAMPS),
    # Of x₀, whose last step has no inverse, and so no Shift before it; in float32 the first has none by hand.
    "KandinskyV22PriorPipeline, unclipped": partial(
        prior, "KandinskyV22PriorPipeline", z2_refused="has no inverse", scale=None, clip_sample=False
    ),
    "KandinskyCombinedPipeline": partial(kandinsky_combined, "KandinskyCombinedPipeline", "2.1"),
    "KandinskyImg2ImgCombinedPipeline": partial(kandinsky_combined, "KandinskyImg2ImgCombinedPipeline", "2.1", **FROM),
    "KandinskyInpaintCombinedPipeline": partial(
        kandinsky_combined, "KandinskyInpaintCombinedPipeline", "2.1", in_channels=9, **INTO
    ),
    "KandinskyV22CombinedPipeline": partial(kandinsky_combined, "KandinskyV22CombinedPipeline", "2.2"),
    "KandinskyV22Img2ImgCombinedPipeline": partial(
        kandinsky_combined, "KandinskyV22Img2ImgCombinedPipeline", "2.2", **FROM
    ),
    "KandinskyV22InpaintCombinedPipeline": partial(
        kandinsky_combined, "KandinskyV22InpaintCombinedPipeline", "inpaint", **INTO
    ),
    "StableCascadePriorPipeline": lambda: of_parts("StableCascadePriorPipeline", CALL | POOLED, cascade_prior()),
    "StableCascadeDecoderPipeline": lambda: of_parts("StableCascadeDecoderPipeline", DECODED, cascade_decoder()),
    "StableCascadeCombinedPipeline": cascade_combined,
    "WuerstchenPriorPipeline": wuerstchen,
    "IFPipeline": partial(deepfloyd, "IFPipeline"),
    "IFImg2ImgPipeline": partial(deepfloyd, "IFImg2ImgPipeline", **PIXELS, strength=1.0),
    "IFInpaintingPipeline": partial(deepfloyd, "IFInpaintingPipeline", **PIXELS, mask_image=mask(16), strength=1.0),
    "IFSuperResolutionPipeline": partial(deepfloyd, "IFSuperResolutionPipeline", **PIXELS),
}
