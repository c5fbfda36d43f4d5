"""More tiny pipelines of U-Nets for the sweep: other controls, upscalers, edits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import diffusers
import torch
import transformers
from diffusers.pipelines.deprecated.paint_by_example import PaintByExampleImageEncoder
from diffusers.pipelines.stable_diffusion.clip_image_project_model import CLIPImageProjection
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
from swept import Swept
from swept_others import prior_parts
from swept_parts import POOLED, SIZE, Words, again, clip_text, clip_vision, image, mask, of_family, pil, vision, wider
from swept_unets import SD_CONTROL, seen
from tiny_unets import SD_BETAS, Case, animatediff, modelscope, noise, sd, sdxl, shake, unet
from torch import Tensor

IMAGE, MASK = image(16), mask(16)
FROM: dict[str, Any] = {"image": IMAGE, "strength": 1.0}
UNION: dict[str, Any] = {"control_image": IMAGE, "control_mode": 1}


CONTROLLED = {
    "in_channels", "down_block_types", "block_out_channels", "layers_per_block", "norm_num_groups",
    "cross_attention_dim", "attention_head_dim", "use_linear_projection", "addition_embed_type",
    "projection_class_embeddings_input_dim",
}  # fmt: skip
HINT: dict[str, Any] = {"conditioning_embedding_out_channels": (4, 8)}


def union() -> dict[str, Any]:
    taken = {key: value for key, value in unet("sdxl").config.items() if key in CONTROLLED}
    sizes = {"num_trans_channel": 8, "num_trans_head": 2, "num_proj_channel": 8, "addition_time_embed_dim": 4}
    return {"controlnet": shake(diffusers.ControlNetUnionModel(**taken, **sizes, **HINT), 7)}


def xs(kind: str) -> Callable[[], dict[str, Any]]:
    def parts() -> dict[str, Any]:
        net = again(unet(kind), layers_per_block=2)  # as many as the adapter's blocks take
        adapter = diffusers.ControlNetXSAdapter.from_unet(net, size_ratio=0.5, **HINT)
        return {"unet": net, "controlnet": shake(adapter, 7)}

    return parts


def preconditioned(e: Tensor, x: Tensor, sigma: float) -> Tensor:
    """The x₀ that the upscaler makes of its model's output."""
    return x / (sigma**2 + 1) + sigma / (sigma**2 + 1) ** 0.5 * e


def upscale() -> Case:
    one = sd(scheduler=diffusers.EulerDiscreteScheduler(prediction_type="sample"))
    one.pipe.unet = again(one.pipe.unet, in_channels=8, out_channels=5, time_cond_proj_dim=144)
    return one


def texts() -> dict[str, Any]:
    """A text encoder without a projection, and its tokenizer."""
    return {"text_encoder": shake(transformers.CLIPTextModel(clip_text().config), 3), "tokenizer": Words()}


def gligen(kind: str) -> Callable[[], Case]:
    def build() -> Case:
        one = sd()
        one.pipe.unet = again(one.pipe.unet, attention_type=kind)
        return one

    return build


def gligen_seen() -> dict[str, Any]:
    project = CLIPImageProjection(hidden_size=16)
    return texts() | {"processor": vision(), "image_encoder": clip_vision(), "image_project": shake(project, 5)}


def painted() -> dict[str, Any]:
    config = clip_vision().config
    config.update({"hidden_size": 32, "projection_dim": 16})
    encoder = shake(PaintByExampleImageEncoder(config, proj_size=16), 3)
    return {"image_encoder": encoder, "feature_extractor": vision()}


def sde(family: Callable[..., Case]) -> Callable[[], Case]:
    scheduler = {"algorithm_type": "sde-dpmsolver++", "solver_order": 2}
    return lambda: family(scheduler=diffusers.DPMSolverMultistepScheduler(**SD_BETAS, **scheduler))


def inverted(build: Callable[[], Swept]) -> Swept:
    """After its image was inverted, as its call needs it."""
    one = build()
    torch.manual_seed(0)
    one.pipe.vae.register_to_config(sample_size=32)
    one.pipe.invert(image=pil(32), source_prompt="", num_inversion_steps=3)
    return one


BEFORE = "does not run over its scheduler's timesteps"  # but over those of an inversion before
BOXES: dict[str, Any] = {"gligen_phrases": ["a cat"], "gligen_boxes": [[0.1, 0.2, 0.6, 0.7]]}
SAID = {"prompt": "red", "prompt_embeds": None, "negative_prompt_embeds": None}
EDIT: dict[str, Any] = {"image_latents": noise(3, 4, 8, 8, seed=9), "inpaint_strength": 1.0}
LEDITS: dict[str, Any] = {"negative_prompt_embeds": None, "edit_threshold": 0.5}
EDITED: dict[str, Any] = {"editing_prompt_embeddings": noise(1, 5, 16, seed=9), "edit_warmup_steps": 0}

ROWS: list[tuple[str, Any, Any, Any, dict[str, Any]]] = [
    ("StableDiffusionXLControlNetUnionPipeline", sdxl, UNION, union, {}),
    ("StableDiffusionXLControlNetUnionImg2ImgPipeline", sdxl, FROM | UNION, union, {}),
    ("StableDiffusionXLControlNetUnionInpaintPipeline", sdxl, FROM | UNION | {"mask_image": MASK}, union, {}),
    ("StableDiffusionControlNetXSPipeline", sd, {"image": IMAGE}, xs("sd"), {}),
    ("StableDiffusionXLControlNetXSPipeline", sdxl, {"image": IMAGE}, xs("sdxl"), {}),
    (
        "StableDiffusionLatentUpscalePipeline",
        upscale,
        POOLED | {"image": noise(1, 4, 4, 4, seed=9)},
        None,
        {"says": preconditioned, "z2_refused": "has no inverse"},
    ),
    ("StableDiffusionGLIGENPipeline", gligen("gated"), SIZE | BOXES, texts, {}),
    (
        "StableDiffusionGLIGENTextImagePipeline",
        gligen("gated-text-image"),
        SIZE | BOXES | {"gligen_images": [pil(16)]},
        gligen_seen,
        {"refused": "4 branches"},
    ),
    (
        "StableDiffusionAttendAndExcitePipeline",
        sd,
        SIZE | {"token_indices": [1], "attn_res": (4, 4), "prompt": None, "thresholds": {}},
        texts,
        {"refused": "3 branches"},
    ),
    (
        "StableDiffusionDiffEditPipeline",
        sd,
        EDIT | {"mask_image": mask(8)},
        None,
        {"z_refused": "one latent image for each"},
    ),
    (
        "PaintByExamplePipeline",
        wider(sd, 9),
        {"image": IMAGE, "mask_image": MASK, "example_image": pil(16)},
        painted,
        {},
    ),
    ("SemanticStableDiffusionPipeline", sd, SIZE | {"prompt": "red"}, texts, {"z_refused": "in tables"}),
    (
        "SemanticStableDiffusionPipeline, edited",
        sd,
        SIZE | EDITED | {"prompt": "red"},
        texts,
        {"refused": "3 branches|in tables"},
    ),
    (
        "LEditsPPPipelineStableDiffusion",
        sde(sd),
        LEDITS | {"editing_prompt_embeds": noise(1, 5, 16, seed=9), "use_intersect_mask": False},
        texts,
        {"refused": BEFORE},
    ),
    (
        "LEditsPPPipelineStableDiffusionXL",
        sde(sdxl),
        LEDITS | {"editing_prompt": "blue", "negative_pooled_prompt_embeds": None},
        lambda: {"text_encoder_2": clip_text(), "tokenizer_2": Words()},
        {"refused": BEFORE},
    ),
]


def frames() -> dict[str, Any]:
    sizes = {"block_out_channels": (8, 16), "motion_norm_num_groups": 2, "motion_num_attention_heads": 2}
    return {"motion_adapter": shake(diffusers.MotionAdapter(motion_layers_per_block=1, **sizes), 5)}


def sparse() -> dict[str, Any]:
    sizes: dict[str, Any] = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}
    sizes |= {"cross_attention_dim": 16, "attention_head_dim": 4, "motion_num_attention_heads": 2}
    blocks = ("DownBlockMotion", "CrossAttnDownBlockMotion")
    return {"controlnet": shake(diffusers.SparseControlNetModel(down_block_types=blocks, **sizes), 7)}


def i2vgen() -> Case:
    one = modelscope()
    one.pipe.unet = shake(
        diffusers.I2VGenXLUNet(
            block_out_channels=(4, 8), layers_per_block=1, sample_size=8, cross_attention_dim=16, attention_head_dim=2,
            norm_num_groups=2, down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
            up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        )
    )  # fmt: skip
    return one


def embedded() -> Case:
    """Whose U-Net is shown an embedding of an image, and the level of its noise."""
    one = sd()
    one.pipe.unet = again(one.pipe.unet, class_embed_type="projection", projection_class_embeddings_input_dim=32)
    return one


SQUARED: dict[str, Any] = {"beta_schedule": "squaredcos_cap_v2"}


def noised() -> dict[str, Any]:
    parts = {"image_noising_scheduler": diffusers.DDPMScheduler(**SQUARED)}
    return parts | {"image_normalizer": StableUnCLIPImageNormalizer(embedding_dim=16)}


def unclip() -> dict[str, Any]:
    own = prior_parts()
    config: dict[str, Any] = {"prediction_type": "sample", "clip_sample_range": 5.0}
    parts = {f"prior_{key}": own[key] for key in ("text_encoder", "tokenizer")} | {"prior": own["prior"]}
    return texts() | noised() | parts | {"prior_scheduler": diffusers.DDPMScheduler(**SQUARED, **config)}


FOUR: list[Any] = [pil(16)] * 4
SHOWN = {"conditioning_frames": FOUR}
ZERO: dict[str, Any] = {"refused": "a copy of its", "samples": 1.5}  # two steps of one frame, two of both
ROWS += [
    ("StableUnCLIPPipeline", embedded, SIZE | SAID | {"prior_num_inference_steps": 2}, unclip, {"before": 4}),
    ("StableUnCLIPImg2ImgPipeline", embedded, SIZE | {"image": pil(16)}, lambda: noised() | seen(), {}),
    ("AnimateDiffControlNetPipeline", animatediff, SHOWN, SD_CONTROL, {}),
    ("AnimateDiffSDXLPipeline", sdxl, {"num_frames": 4}, frames, {}),
    (
        "AnimateDiffSparseControlNetPipeline",
        animatediff,
        SHOWN | {"controlnet_frame_indices": [0, 1, 2, 3]},
        sparse,
        {},
    ),
    (
        "AnimateDiffVideoToVideoControlNetPipeline",
        animatediff,
        SHOWN | {"video": FOUR, "strength": 1.0},
        SD_CONTROL,
        {},
    ),
    ("PIAPipeline", wider(animatediff, 9), {"image": pil(16)}, None, {}),
    ("I2VGenXLPipeline", i2vgen, {"image": pil(16)}, seen, {}),
    (
        "TextToVideoZeroPipeline",
        sd,
        SIZE | {"prompt": "red", "video_length": 2, "t0": 0, "t1": 1},
        texts,
        ZERO,
    ),
    (
        "TextToVideoZeroSDXLPipeline",
        sdxl,
        SIZE | {"prompt": None, "video_length": 2, "t0": 0, "t1": 1},
        None,
        ZERO,
    ),
]
CLASSES: dict[str, Callable[[], Swept]] = {
    name: partial(of_family, name.split(",")[0], family, call, parts, **known)
    for name, family, call, parts, known in ROWS
}
CLASSES |= {name: partial(inverted, build) for name, build in CLASSES.items() if name.startswith("LEdits")}
