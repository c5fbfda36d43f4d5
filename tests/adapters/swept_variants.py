"""Tiny pipelines of Stable Diffusion's U-Net that edit, measure or are told something else, for the sweep."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import diffusers
import torch
import transformers
from swept import Swept
from swept_more_unets import texts
from swept_parts import (
    NO_GAP,
    SIZE,
    THREE,
    Words,
    clip_text,
    clip_vision,
    image,
    mask,
    of_family,
    of_parts,
    pil,
    vision,
    wider,
)
from swept_unets import control
from tiny_unets import Case, ddim, noise, sd, shake, tiny_vae, unet
from torch import Tensor, nn

FROM: dict[str, Any] = {"image": image(16), "strength": 1.0}


def marigold(name: str) -> Swept:
    one = wider(sd, 8)()
    parts = {"unet": one.pipe.unet, "vae": tiny_vae(), "scheduler": ddim(), **texts()}
    call = {"image": pil(16), "processing_resolution": 0, "output_latent": True, "output_type": "pt"}
    return of_parts(name, call, parts, refused=NO_GAP)


def versatile(name: str, **call: Any) -> Swept:
    """Whose U-Net is that of images."""
    parts: dict[str, Any] = {"text_encoder": clip_text(), "tokenizer": Words(), "text_unet": None}
    parts |= {"image_encoder": clip_vision(), "image_feature_extractor": vision()}
    parts |= {"image_unet": unet("sd"), "vae": tiny_vae(), "scheduler": ddim()}
    taken = inspect.signature(getattr(diffusers, name).__init__).parameters
    return of_parts(
        name, SIZE | {"guidance_scale": 4.0} | call, {key: part for key, part in parts.items() if key in taken}
    )


def parallel() -> Case:
    return sd(scheduler=diffusers.DDIMParallelScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1))


class Queries(nn.Module):
    """In place of a Q-Former, which asks the hub for its tokenizer."""

    device, dtype, config = torch.device("cpu"), torch.float32, SimpleNamespace(num_query_tokens=2)

    def forward(self, image_input: Tensor, text_input: Any, return_dict: bool) -> Tensor:
        return noise(len(image_input), 2, 16, seed=9)


class Padded(Words):
    """As many ids as are asked for."""

    def __call__(self, texts: Any, **kwargs: Any) -> Any:
        found = super().__call__(texts, **kwargs)
        more = kwargs["max_length"] - found["input_ids"].shape[1]
        return transformers.BatchEncoding({name: nn.functional.pad(ids, (0, more)) for name, ids in found.items()})


def blip(name: str, call: dict[str, Any], **more: Any) -> Swept:
    from diffusers.pipelines.deprecated.blip_diffusion.blip_image_processing import BlipImageProcessor
    from diffusers.pipelines.deprecated.blip_diffusion.modeling_ctx_clip import ContextCLIPTextModel

    config = clip_text().config
    parts = {"text_encoder": shake(ContextCLIPTextModel(config), 3), "tokenizer": Padded(), "vae": tiny_vae()}
    parts |= {"unet": unet("sd"), "scheduler": ddim(), "qformer": Queries()}
    parts |= {"image_processor": BlipImageProcessor(size=SIZE), "mean": [0.5] * 3, "std": [0.5] * 3}
    call = {"prompt": "red", "source_subject_category": "cat", "target_subject_category": "dog"} | call
    call |= {"reference_image": pil(16), "guidance_scale": 4.0, "output_type": "np"}
    return of_parts(name, SIZE | call, parts | more)


ZERO = {"source_embeds": noise(2, 5, 16, seed=11), "target_embeds": noise(2, 5, 16, seed=12)}
ROWS: list[tuple[str, Any, Any, Any, dict[str, Any]]] = [
    ("AltDiffusionPipeline", sd, SIZE, None, {}),
    ("AltDiffusionImg2ImgPipeline", sd, FROM, None, {}),
    (
        "CycleDiffusionPipeline",
        sd,
        FROM | {"prompt": "red", "source_prompt": "blue", "prompt_embeds": None},
        texts,
        {"refused": "passes variance_noise"},
    ),
    ("StableDiffusionModelEditingPipeline", sd, SIZE, texts, {}),
    ("StableDiffusionPanoramaPipeline", sd, SIZE, None, {}),
    ("StableDiffusionPanoramaPipeline, two views", sd, SIZE | {"width": 576}, None, {"refused": "at one time"}),
    ("StableDiffusionInpaintPipelineLegacy", sd, FROM | {"mask_image": mask(16)}, None, {}),
    ("StableDiffusionParadigmsPipeline", parallel, SIZE, None, {"refused": "steps many times"}),
    ("StableDiffusionPix2PixZeroPipeline", sd, SIZE | ZERO, None, {"refused": "samples twice"}),
    ("StableDiffusionPipelineSafe", sd, SIZE | {"prompt": "red"}, texts, {"refused": THREE}),
    ("StableDiffusionPipelineSafe, unsafe", sd, SIZE | {"prompt": "red", "sld_guidance_scale": 0.0}, texts, {}),
]


CLASSES: dict[str, Callable[[], Swept]] = {
    "MarigoldDepthPipeline": partial(marigold, "MarigoldDepthPipeline"),
    "MarigoldNormalsPipeline": partial(marigold, "MarigoldNormalsPipeline"),
    "MarigoldIntrinsicsPipeline": partial(marigold, "MarigoldIntrinsicsPipeline"),
    "BlipDiffusionPipeline": partial(blip, "BlipDiffusionPipeline", {}),
    "BlipDiffusionControlNetPipeline": lambda: blip(
        "BlipDiffusionControlNetPipeline", {"condtioning_image": pil(16)}, **control("sd")
    ),
}
CLASSES |= {
    name: partial(of_family, name.split(",")[0], family, call, parts, **known)
    for name, family, call, parts, known in ROWS
}
CLASSES |= {
    "VersatileDiffusionTextToImagePipeline": partial(versatile, "VersatileDiffusionTextToImagePipeline", prompt="red"),
    "VersatileDiffusionImageVariationPipeline": partial(
        versatile, "VersatileDiffusionImageVariationPipeline", image=pil(16)
    ),
}
