"""More tiny pipelines of transformers that make images, for the sweep."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import diffusers
import torch
import transformers
from swept import Swept
from swept_parts import Words, again, case, clip_text, image, mask, of_family, of_parts, pil
from tiny_dits import flow, hunyuan, sd3
from tiny_packed import qwen
from tiny_unets import Case, embeds, noise, shake, tiny_vae

BIG, BIG_MASK = image(64), mask(64)
SIZED = {"height": 64, "width": 64}


def small(name: str) -> Any:
    """The class that brings its images to a million pixels whatever they are: to 64², here."""
    cls = getattr(diffusers, name)
    module = sys.modules[cls.__module__]
    sized = module.calculate_dimensions

    @functools.wraps(cls.__call__)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        with mock.patch.object(module, "calculate_dimensions", lambda area, ratio: sized(64 * 64, ratio)):
            return cls.__call__(self, *args, **kwargs)

    return type(name, (cls,), {"__call__": call})


def qwen_control(extra: int = 0) -> dict[str, Any]:
    sizes = dict(qwen().pipe.transformer.config)
    taken = ("patch_size", "in_channels", "out_channels", "num_layers", "attention_head_dim", "num_attention_heads")
    sizes = {key: sizes[key] for key in (*taken, "joint_attention_dim", "axes_dims_rope")}
    return {"controlnet": shake(diffusers.QwenImageControlNetModel(**sizes, extra_condition_channels=extra), 7)}


def layered() -> Case:
    one = qwen()
    one.pipe.transformer = again(one.pipe.transformer, use_additional_t_cond=True)
    return one


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
            in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(4, 8, 8, 8), layers_per_block=1,
            scaling_factor=0.5, spatial_compression_ratio=8, sample_size=64,
        )  # fmt: skip
        second = {"prompt_embeds_2": noise(1, 5, 16, seed=5), "negative_prompt_embeds_2": noise(1, 5, 16, seed=6)}
        masks = [f"{n}prompt_embeds_mask{k}" for n in ("", "negative_") for k in ("", "_2")]
        call = SIZED | second | dict.fromkeys(masks, torch.ones(1, 5, dtype=torch.long))
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
    call |= {"prompt_embeds_llama3": noise(2, 1, 5, 16, seed=7), "negative_prompt_embeds_llama3": noise(2, 1, 5, 16, seed=8)}
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


def kandinsky3(name: str, **call: Any) -> Swept:
    net = diffusers.Kandinsky3UNet(
        in_channels=4, time_embedding_dim=4, groups=2, attention_head_dim=4, layers_per_block=1,
        block_out_channels=(8, 16), cross_attention_dim=4, encoder_hid_dim=16,
    )  # fmt: skip
    scheduler = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2", steps_offset=1, clip_sample=False)
    parts = {"unet": shake(net), "movq": movq(), "scheduler": scheduler, "text_encoder": None, "tokenizer": None}
    masks = {"attention_mask": torch.ones(1, 5), "negative_attention_mask": torch.ones(1, 5)}
    given = dict(zip(("prompt_embeds", "negative_prompt_embeds"), embeds(1), strict=True))
    return of_parts(name, given | masks | {"guidance_scale": 3.0} | call, parts)


def kandinsky5(name: str, shown: bool = False, **call: Any) -> Swept:
    net = diffusers.Kandinsky5Transformer3DModel(
        in_visual_dim=4, in_text_dim=16, in_text_dim2=16, time_dim=16, out_visual_dim=4, patch_size=(1, 2, 2),
        model_dim=16, ff_dim=32, num_text_blocks=1, num_visual_blocks=1, axes_dims=(1, 1, 2), visual_cond=shown,
        attention_type="regular",
    )  # fmt: skip
    c, u = embeds(1)
    parts: dict[str, Any] = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    parts |= {"transformer": shake(net), "vae": tiny_vae(8), "scheduler": flow()}
    given: dict[str, Any] = {"guidance_scale": 4.0, "height": 64, "width": 64}
    for kind, qwen_embeds, seed in (("", c[0], 5), ("negative_", u[0], 6)):
        given |= {f"{kind}prompt_embeds_qwen": qwen_embeds[None], f"{kind}prompt_embeds_clip": noise(1, 16, seed=seed)}
        given |= {f"{kind}prompt_cu_seqlens": torch.tensor([0, 5], dtype=torch.int32)}
    one = of_parts(name, given | call, parts)
    one.pipe.resolutions = [(64, 64)]
    return one


def guided_apart(start: int = 5, **given: Any) -> dict[str, Any]:
    """The guider of Hunyuan-Image: plain guidance up to a step, projected from there on."""
    made = diffusers.AdaptiveProjectedMixGuidance(
        guidance_scale=4.0, adaptive_projected_guidance_start_step=start, **given
    )
    return {"guider": made}


EDITED: dict[str, Any] = {"image": pil(64)}
PT = {"output_type": "pt"}
LAYERED: dict[str, Any] = {"prompt": "red", "layers": 2, "cfg_normalize": False}
ROWS: list[tuple[str, Any, Any, Any, dict[str, Any]]] = [
    # Renormalised, which is no u + w·(c − u).
    ("QwenImageControlNetPipeline", qwen, {"control_image": BIG}, qwen_control, {"scale": None}),
    (
        "QwenImageControlNetInpaintPipeline",
        qwen,
        {"control_image": BIG, "control_mask": BIG_MASK},
        partial(qwen_control, 4),
        {"scale": None},
    ),
    ("QwenImageEditPipeline", qwen, EDITED, None, {"scale": None}),
    ("QwenImageEditPlusPipeline", qwen, EDITED, None, {"scale": None}),
    ("QwenImageEditInpaintPipeline", qwen, EDITED | {"mask_image": BIG_MASK, "strength": 1.0}, None, {"scale": None}),
    ("QwenImageLayeredPipeline", layered, EDITED | LAYERED | PT, lambda: {"text_encoder": clip_text()}, {}),
    ("StableDiffusion3InpaintPipeline", sd3, {"image": image(16), "mask_image": mask(16), "strength": 1.0}, None, {}),
    (
        "StableDiffusion3ControlNetInpaintingPipeline",
        sd3,
        {"control_image": image(16), "control_mask": mask(16)},
        sd3_control,
        {},
    ),
    ("HunyuanDiTControlNetPipeline", hunyuan, {"control_image": BIG}, hunyuan_control, {}),
    ("HunyuanImagePipeline", hunyuan_image(), {}, guided_apart, {}),
    ("CogView3PlusPipeline", cogview3, {}, None, {}),
    ("BriaPipeline", bria, {}, None, {}),
    ("BriaFiboPipeline", fibo, {}, lambda: {"text_encoder": llama(), "tokenizer": Words()}, {}),
    ("HiDreamImagePipeline", hidream, {}, None, {}),
]
CLASSES: dict[str, Callable[[], Swept]] = {
    name: partial(of_family, name, family, call, parts, cls=small(name) if "QwenImage" in name and "Control" not in name else None, **known) for name, family, call, parts, known in ROWS
}
CLASSES |= {
    "Kandinsky3Pipeline": partial(kandinsky3, "Kandinsky3Pipeline", height=64, width=64),
    "Kandinsky3Img2ImgPipeline": partial(kandinsky3, "Kandinsky3Img2ImgPipeline", image=pil(16), strength=1.0),
    "Kandinsky5T2IPipeline": partial(kandinsky5, "Kandinsky5T2IPipeline"),
    "Kandinsky5I2IPipeline": partial(kandinsky5, "Kandinsky5I2IPipeline", shown=True, image=pil(64)),
}
