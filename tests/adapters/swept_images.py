"""Tiny pipelines of transformers that make images, for the sweep."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import diffusers
from swept import Swept
from swept_nets import MASKS
from swept_parts import NO_GAP, PAG, again, case, image, mask, of_family, of_parts, renormalised, wider
from tiny_dits import flow, hunyuan, lumina2, pixart, sana, sd3, z_image
from tiny_more import auraflow, chroma, cogview4
from tiny_packed import flux, flux2_klein, qwen
from tiny_unets import Case, ddim, shake, tiny_vae
from torch import Tensor

BIG, BIG_MASK = image(64), mask(64)
FROM: dict[str, Any] = {"image": image(16), "strength": 1.0}
FROM_BIG: dict[str, Any] = {"image": BIG, "strength": 1.0}
INTO = FROM_BIG | {"mask_image": BIG_MASK}
SHOWN = {"control_image": BIG}
KONTEXT: dict[str, Any] = {"_auto_resize": False, "max_area": 64 * 64}
BLOCK = {"pag_applied_layers": ["transformer_blocks.0"]}
QUIET = {"callback_on_step_end": None}


def sd3_control() -> dict[str, Any]:
    given = {"num_layers": 1, "num_extra_conditioning_channels": 0, "load_weights_from_transformer": False}
    return {"controlnet": shake(diffusers.SD3ControlNetModel.from_transformer(sd3().pipe.transformer, **given), 7)}


def flux_control() -> dict[str, Any]:
    given = {"num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2}
    net = flux().pipe.transformer
    made = diffusers.FluxControlNetModel.from_transformer(net, load_weights_from_transformer=False, **given)
    return {"controlnet": shake(made, 7)}


def sana_control() -> dict[str, Any]:
    sizes, cls = sana().pipe.transformer.config, diffusers.SanaControlNetModel
    taken = inspect.signature(cls.__init__).parameters
    return {"controlnet": shake(cls(**{name: size for name, size in sizes.items() if name in taken}), 7)}


def chroma_told() -> Case:
    """Whose configuration says what the inpainting pipeline asks of it, as the model's own does not."""
    one = chroma()
    one.pipe.transformer.register_to_config(guidance_embeds=False)
    return one


def sprint() -> Case:
    one = sana(scheduler=diffusers.SCMScheduler())
    one.pipe.transformer = again(one.pipe.transformer, guidance_embeds=True)
    return one


def dit() -> Swept:
    """Whose state is a doubled batch: its own test is in test_attach_whole.py."""
    net = diffusers.DiTTransformer2DModel(
        sample_size=8, num_layers=1, patch_size=2, attention_head_dim=4, num_attention_heads=2, in_channels=4,
        out_channels=8, attention_bias=True, activation_fn="gelu-approximate", num_embeds_ada_norm=1000,
        norm_type="ada_norm_zero", norm_elementwise_affine=False,
    )  # fmt: skip
    parts = {"transformer": shake(net), "vae": tiny_vae(), "scheduler": ddim()}
    call = {"class_labels": [1], "guidance_scale": 4.0, "output_type": "np"}
    return of_parts("DiTPipeline", call, parts, scale=None)


def prx() -> Case:
    net = diffusers.PRXTransformer2DModel(
        patch_size=1, in_channels=3, context_in_dim=16, hidden_size=8, mlp_ratio=2.0, num_heads=2, depth=1,
        axes_dim=[2, 2], bottleneck_size=8, resolution_embeds=True,
    )  # fmt: skip
    size = {"height": 16, "width": 16, "use_resolution_binning": False, "output_type": "pt"}
    return case(net, None, flow(), **size, **MASKS)


def prx_latent() -> Case:
    net = diffusers.PRXTransformer2DModel(
        patch_size=1, in_channels=4, context_in_dim=16, hidden_size=8, mlp_ratio=2.0, num_heads=2, depth=1,
        axes_dim=[2, 2],
    )  # fmt: skip
    return case(net, tiny_vae(), flow(), height=16, width=16, use_resolution_binning=False, **MASKS)


def x0_into_v(e: Tensor, x: Tensor, sigma: float) -> Tensor:
    return (x - e) / max(sigma, 0.05)


ROWS: list[tuple[str, Any, Any, Any, dict[str, Any]]] = [
    ("StableDiffusion3Pipeline", sd3, {}, None, {}),
    ("StableDiffusion3Img2ImgPipeline", sd3, FROM, None, {}),
    ("StableDiffusion3PAGPipeline", sd3, {}, BLOCK, {"refused": PAG}),
    ("StableDiffusion3PAGImg2ImgPipeline", sd3, FROM, BLOCK, {"refused": PAG}),
    ("StableDiffusion3ControlNetPipeline", sd3, {"control_image": image(16)}, sd3_control, {}),
    ("FluxPipeline", flux, {}, None, {}),
    ("FluxImg2ImgPipeline", flux, FROM_BIG, None, {}),
    ("FluxInpaintPipeline", flux, INTO, None, {}),
    ("FluxKontextPipeline", flux, {"image": BIG} | KONTEXT, None, {}),
    ("FluxKontextInpaintPipeline", flux, INTO | KONTEXT, None, {}),
    ("FluxControlNetPipeline", flux, SHOWN, flux_control, {}),
    ("FluxControlNetImg2ImgPipeline", flux, FROM_BIG | SHOWN, flux_control, {"refused": NO_GAP}),
    ("FluxControlNetInpaintPipeline", flux, INTO | SHOWN, flux_control, {"refused": NO_GAP}),
    ("FluxControlPipeline", wider(flux, 32), SHOWN, None, {"refused": NO_GAP}),
    ("FluxControlImg2ImgPipeline", wider(flux, 32), FROM_BIG | SHOWN, None, {"refused": NO_GAP}),
    ("FluxControlInpaintPipeline", wider(flux, 32), INTO | SHOWN, None, {"refused": NO_GAP}),
    ("FluxFillPipeline", wider(flux, 288), {"image": BIG, "mask_image": BIG_MASK}, None, {"refused": NO_GAP}),
    ("Flux2KleinPipeline", flux2_klein, {}, None, {}),
    ("Flux2KleinInpaintPipeline", flux2_klein, FROM | {"mask_image": mask(16)}, None, {}),
    ("Flux2KleinKVPipeline", flux2_klein, {}, None, {"refused": NO_GAP}),
    ("Flux2Pipeline", flux2_klein, {}, None, {"refused": NO_GAP}),
    ("QwenImagePipeline", qwen, {}, None, {"guides": renormalised}),
    ("QwenImageImg2ImgPipeline", qwen, FROM_BIG, None, {"guides": renormalised}),
    ("QwenImageInpaintPipeline", qwen, INTO, None, {"guides": renormalised}),
    ("AuraFlowPipeline", auraflow, {}, None, {}),
    ("ChromaPipeline", chroma, {}, None, {}),
    ("ChromaImg2ImgPipeline", chroma, FROM_BIG, None, {}),
    ("ChromaInpaintPipeline", chroma_told, INTO, None, {}),
    ("CogView4Pipeline", cogview4, QUIET, None, {}),
    ("CogView4ControlPipeline", wider(cogview4, 8), QUIET | SHOWN, None, {}),
    ("HunyuanDiTPipeline", hunyuan, {}, None, {}),
    ("HunyuanDiTPAGPipeline", hunyuan, {}, {"pag_applied_layers": ["blocks.0"]}, {"refused": PAG}),
    ("PixArtAlphaPipeline", pixart, {}, None, {}),
    ("PixArtSigmaPipeline", pixart, {}, None, {}),
    ("PixArtSigmaPAGPipeline", pixart, {}, BLOCK, {"refused": PAG}),
    ("SanaPipeline", sana, {}, None, {}),
    ("SanaControlNetPipeline", sana, {"control_image": image(32)}, sana_control, {}),
    ("SanaPAGPipeline", sana, {}, BLOCK, {"refused": PAG}),
    ("SanaSprintPipeline", sprint, {}, None, {"steps": 2, "refused": NO_GAP}),
    ("Lumina2Pipeline", lumina2, {}, None, {}),
    ("ZImagePipeline", z_image, {}, None, {}),
    ("ZImageImg2ImgPipeline", z_image, FROM_BIG, None, {}),
    ("ZImageInpaintPipeline", z_image, INTO, None, {}),
    ("PRXPipeline", prx_latent, {}, None, {}),
    ("PRXPixelPipeline", prx, {}, None, {"says": x0_into_v}),
]
CLASSES: dict[str, Callable[[], Swept]] = {
    name: partial(of_family, name, family, call, parts, **known) for name, family, call, parts, known in ROWS
}
CLASSES["DiTPipeline"] = dit
