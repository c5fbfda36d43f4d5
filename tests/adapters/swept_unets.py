"""Tiny pipelines of U-Nets for the sweep: Stable Diffusion and SDXL, and their kin."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import diffusers
from swept import Swept
from swept_parts import NO_GAP, PAG, SIZE, THREE, again, clip_vision, image, mask, of_family, of_parts, vision, wider
from tiny_paths import picture
from tiny_unets import SD_BETAS, Case, ddim, sd, sdxl, shake, unet

IMAGE, MASK = image(16), mask(16)
FROM: dict[str, Any] = {"image": IMAGE, "strength": 1.0}
INTO = FROM | SIZE | {"mask_image": MASK}
SHOWN: dict[str, Any] = FROM | {"control_image": IMAGE}
MID = {"pag_applied_layers": ["mid"]}
COUNTS = "drops its adapter"


def attending(kind: str) -> Callable[[], Case]:
    """A family whose U-Net attends in its first block, where adapters are added before it is halved."""

    def build() -> Case:
        one = (sd if kind == "sd" else sdxl)()
        one.pipe.unet = again(one.pipe.unet, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"))
        return one

    return build


def adapter() -> Any:
    given: dict[str, Any] = {"channels": [8, 16], "num_res_blocks": 1, "downscale_factor": 2}
    return {"adapter": diffusers.T2IAdapter(in_channels=3, adapter_type="full_adapter", **given)}


def control(kind: str) -> dict[str, Any]:
    net = diffusers.ControlNetModel.from_unet(unet(kind), conditioning_embedding_out_channels=(4, 8))
    return {"controlnet": shake(net, 7)}


def timed(scheduler: Any) -> Callable[[], Case]:
    """A family whose U-Net is told the guidance scale."""

    def build() -> Case:
        one = sd(scheduler=scheduler)
        one.pipe.unet = again(one.pipe.unet, time_cond_proj_dim=8)
        return one

    return build


def unconditional() -> Any:
    net = diffusers.UNet2DModel(
        block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=4, sample_size=8, attention_head_dim=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    return shake(net)


def alone(name: str, scheduler: Any, refused: str = NO_GAP) -> Callable[[], Swept]:
    """A pipeline without a condition."""
    return lambda: of_parts(
        name, {"output_type": "np"}, {"unet": unconditional(), "scheduler": scheduler()}, refused=refused
    )


def svd() -> Swept:
    net = diffusers.UNetSpatioTemporalConditionModel(
        block_out_channels=(32, 32), layers_per_block=1, sample_size=8, in_channels=8, out_channels=4,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"), cross_attention_dim=16,
        num_attention_heads=2, projection_class_embeddings_input_dim=12, addition_time_embed_dim=4,
    )  # fmt: skip
    scheduler = diffusers.EulerDiscreteScheduler(
        **SD_BETAS, prediction_type="v_prediction", sigma_max=700.0, sigma_min=0.002, steps_offset=1,
        timestep_spacing="leading", timestep_type="continuous", use_karras_sigmas=True,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLTemporalDecoder(
        block_out_channels=[32, 32], down_block_types=["DownEncoderBlock2D"] * 2, latent_channels=4
    )
    call = {**SIZE, "image": IMAGE, "num_frames": 2, "min_guidance_scale": 1.5, "max_guidance_scale": 2.5}
    parts = {"unet": shake(net), "vae": vae, "scheduler": scheduler, "image_encoder": clip_vision()}
    parts["feature_extractor"] = vision()
    # Each frame has a scale of its own.
    return of_parts("StableVideoDiffusionPipeline", call | {"decode_chunk_size": 2}, parts, scale=None)


def seen() -> dict[str, Any]:
    return {"image_encoder": clip_vision(), "feature_extractor": vision()}


LOW = {"low_res_scheduler": diffusers.DDPMScheduler()}
SD_CONTROL, XL_CONTROL = partial(control, "sd"), partial(control, "sdxl")
SD_PAG, XL_PAG = (lambda: MID | control("sd")), (lambda: MID | control("sdxl"))
ROWS: list[tuple[str, Any, Any, Any, dict[str, Any]]] = [
    ("StableDiffusionPipeline", sd, SIZE, None, {}),
    ("StableDiffusionImg2ImgPipeline", sd, FROM, None, {}),
    ("StableDiffusionInpaintPipeline", sd, INTO, None, {}),
    ("StableDiffusionSAGPipeline", sd, SIZE | {"sag_scale": 0.5}, None, {"refused": THREE}),
    ("StableDiffusionLDM3DPipeline", sd, SIZE | {"output_type": "np"}, None, {}),
    ("StableDiffusionControlNetPipeline", sd, {"image": IMAGE}, SD_CONTROL, {}),
    ("StableDiffusionControlNetImg2ImgPipeline", sd, SHOWN, SD_CONTROL, {}),
    ("StableDiffusionControlNetInpaintPipeline", sd, SHOWN | {"mask_image": MASK}, SD_CONTROL, {}),
    ("StableDiffusionAdapterPipeline", attending("sd"), SIZE | {"image": IMAGE}, adapter, {}),
    ("StableDiffusionPAGPipeline", sd, SIZE, MID, {"refused": PAG}),
    ("StableDiffusionPAGImg2ImgPipeline", sd, FROM, MID, {"refused": PAG}),
    ("StableDiffusionPAGInpaintPipeline", sd, INTO, MID, {"refused": PAG}),
    ("StableDiffusionControlNetPAGPipeline", sd, {"image": IMAGE}, SD_PAG, {"refused": PAG}),
    ("StableDiffusionControlNetPAGInpaintPipeline", sd, SHOWN | {"mask_image": MASK}, SD_PAG, {"refused": PAG}),
    ("StableDiffusionInstructPix2PixPipeline", wider(sd, 8), {"image": IMAGE}, None, {"refused": THREE}),
    ("StableDiffusionDepth2ImgPipeline", wider(sd, 5), FROM | {"depth_map": IMAGE[:, 0]}, None, {}),
    ("StableDiffusionImageVariationPipeline", sd, SIZE | {"image": IMAGE}, seen, {}),
    ("StableDiffusionUpscalePipeline", wider(sd, 7, num_class_embeds=1000), {"image": picture(1, 3, 8, 8)}, LOW, {}),
    ("LatentConsistencyModelPipeline", timed(diffusers.LCMScheduler()), SIZE, None, {"refused": NO_GAP}),
    ("LatentConsistencyModelImg2ImgPipeline", timed(diffusers.LCMScheduler()), FROM, None, {"refused": NO_GAP}),
    ("StableDiffusionXLPipeline", sdxl, {}, None, {}),
    ("StableDiffusionXLImg2ImgPipeline", sdxl, FROM, None, {}),
    ("StableDiffusionXLInpaintPipeline", sdxl, INTO, None, {}),
    ("StableDiffusionXLControlNetPipeline", sdxl, {"image": IMAGE}, XL_CONTROL, {}),
    ("StableDiffusionXLControlNetImg2ImgPipeline", sdxl, SHOWN, XL_CONTROL, {}),
    ("StableDiffusionXLControlNetInpaintPipeline", sdxl, SHOWN | {"mask_image": MASK}, XL_CONTROL, {}),
    ("StableDiffusionXLAdapterPipeline", attending("sdxl"), SIZE | {"image": IMAGE}, adapter, {"z_refused": COUNTS}),
    ("StableDiffusionXLPAGPipeline", sdxl, {}, MID, {"refused": PAG}),
    ("StableDiffusionXLPAGImg2ImgPipeline", sdxl, FROM, MID, {"refused": PAG}),
    ("StableDiffusionXLPAGInpaintPipeline", sdxl, INTO, MID, {"refused": PAG}),
    ("StableDiffusionXLControlNetPAGPipeline", sdxl, {"image": IMAGE}, XL_PAG, {"refused": PAG}),
    ("StableDiffusionXLControlNetPAGImg2ImgPipeline", sdxl, SHOWN, XL_PAG, {"refused": PAG}),
    ("StableDiffusionXLInstructPix2PixPipeline", wider(sdxl, 8), SIZE | {"image": IMAGE}, None, {"refused": THREE}),
]
CLASSES: dict[str, Callable[[], Swept]] = {
    name: partial(of_family, name, family, call, parts, **known) for name, family, call, parts, known in ROWS
}
CLASSES |= {
    "DDIMPipeline": alone("DDIMPipeline", ddim),
    "DDPMPipeline": alone("DDPMPipeline", partial(diffusers.DDPMScheduler, clip_sample=False)),
    "ConsistencyModelPipeline": alone(
        "ConsistencyModelPipeline", diffusers.CMStochasticIterativeScheduler, "clip_denoised=True"
    ),
    "StableVideoDiffusionPipeline": svd,
}
