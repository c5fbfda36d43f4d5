"""More tiny pipelines of transformers that make images, for the sweep."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import diffusers
import swept_more_nets as nets
import torch
from swept import Swept
from swept_parts import (
    Words,
    again,
    clip_text,
    image,
    kandinsky5_texts,
    mask,
    of_family,
    of_parts,
    pil,
    renormalised,
    told,
)
from tiny_dits import flow, hunyuan, sd3
from tiny_packed import qwen
from tiny_unets import Case, embeds, noise, shake, tiny_vae
from torch import Tensor

BIG, BIG_MASK = image(64), mask(64)


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


def sixteen() -> Case:
    """Of as many channels as the inpainting pipeline takes for a model that is not shown the mask."""
    one = sd3()
    one.pipe.transformer = again(one.pipe.transformer, in_channels=16, out_channels=16)
    one.pipe.vae = tiny_vae(2, 16)
    return one


def layered() -> Case:
    one = qwen()
    one.pipe.transformer = again(one.pipe.transformer, use_additional_t_cond=True)
    return one


def kandinsky3(name: str, **call: Any) -> Swept:
    net = diffusers.Kandinsky3UNet(
        in_channels=4, time_embedding_dim=4, groups=2, attention_head_dim=4, layers_per_block=2,
        block_out_channels=(8, 16), cross_attention_dim=4, encoder_hid_dim=16,
    )  # fmt: skip
    scheduler = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2", steps_offset=1, clip_sample=False)
    parts = {"unet": shake(net), "movq": nets.movq(), "scheduler": scheduler, "text_encoder": None, "tokenizer": None}
    masks = {"attention_mask": torch.ones(1, 5), "negative_attention_mask": torch.ones(1, 5)}
    given = dict(zip(("prompt_embeds", "negative_prompt_embeds"), embeds(1), strict=True))
    return of_parts(name, given | masks | {"guidance_scale": 3.0} | call, parts)


def kandinsky5(name: str, shown: bool = False, **call: Any) -> Swept:
    net = diffusers.Kandinsky5Transformer3DModel(
        in_visual_dim=4, in_text_dim=16, in_text_dim2=16, time_dim=16, out_visual_dim=4, patch_size=(1, 2, 2),
        model_dim=16, ff_dim=32, num_text_blocks=1, num_visual_blocks=1, axes_dims=(1, 1, 2), visual_cond=shown,
        attention_type="regular",
    )  # fmt: skip
    parts: dict[str, Any] = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    parts |= {"transformer": shake(net), "vae": tiny_vae(8), "scheduler": flow()}
    given: dict[str, Any] = {"guidance_scale": 4.0, "height": 64, "width": 64}
    one = of_parts(name, given | kandinsky5_texts() | call, parts)
    one.pipe.resolutions = [(64, 64)]
    return one


def hidream() -> Swept:
    """Which brings every size to that of its default: to 64², here."""
    one = of_family("HiDreamImagePipeline", nets.hidream)
    one.pipe.default_sample_size = 8
    return one


def guided_apart(start: int = 5, **given: Any) -> dict[str, Any]:
    """The guider of Hunyuan-Image: plain guidance up to a step, projected from there on."""
    made = diffusers.AdaptiveProjectedMixGuidance(
        guidance_scale=4.0, adaptive_projected_guidance_start_step=start, **given
    )
    return {"guider": made}


def longcat_told(name: str) -> Any:
    def encode(pipe: Any, prompt: str, **kwargs: Any) -> Any:
        return embeds(1)[not prompt], torch.zeros(5, 3)

    return told(name, encode, small(name) if "Edit" in name else None)


def ideogram4() -> Swept:
    def encode(pipe: Any, prompt: Any, grid_h: int, grid_w: int, max_sequence_length: int, device: Any) -> Any:
        tokens = grid_h * grid_w
        features = torch.cat([noise(1, max_sequence_length, 16, seed=3), torch.zeros(1, tokens, 16)], 1)
        return features, *pipe._prepare_ids([max_sequence_length], grid_h, grid_w, max_sequence_length, device)

    call = {"prompt": "red", "height": 8, "width": 8, "guidance_scale": 4.0, "guidance_schedule": None}
    call |= {"max_sequence_length": 5}
    parts = nets.ideogram()
    return Swept(told("Ideogram4Pipeline", encode)(**parts), call, z_refused=SCHEDULED, lays=last_tokens)


class Chat:
    """In place of a processor of chats, of which the pipeline asks what goes before a prompt."""

    def apply_chat_template(self, *args: Any, **given: Any) -> list[list[int]]:
        return [[1, 2]]

    @property
    def tokenizer(self) -> Chat:
        return self

    def encode(self, text: str) -> list[int]:
        return [7]


class Looks:
    """In place of a processor of texts and images, of which the images' is asked for."""

    image_processor = None


def last_tokens(part: Tensor, m: Tensor) -> Tensor:
    """Behind those of the text, where the branch has one."""
    return part[:, -m.shape[1] :]


def three_channels(guided: Tensor, c: Tensor) -> Tensor:
    """Lumina guides three of its channels, and leaves the others conditional."""
    return torch.cat([guided[:, :3], c[:, 3:]], 1)


SCHEDULED = "lays out a guidance scale for each of its steps"
EDITED: dict[str, Any] = {"image": pil(64)}
PT = {"output_type": "pt"}
LAYERED: dict[str, Any] = {"prompt": "red", "layers": 2, "cfg_normalize": False}
ROWS: list[tuple[str, Any, Any, Any, dict[str, Any]]] = [
    ("QwenImageControlNetPipeline", qwen, {"control_image": BIG}, qwen_control, {"guides": renormalised}),
    (
        "QwenImageControlNetInpaintPipeline",
        qwen,
        {"control_image": BIG, "control_mask": BIG_MASK},
        partial(qwen_control, 4),
        {"guides": renormalised},
    ),
    ("QwenImageEditPipeline", qwen, EDITED, None, {"cls": small("QwenImageEditPipeline"), "guides": renormalised}),
    (
        "QwenImageEditPlusPipeline",
        qwen,
        EDITED,
        None,
        {"cls": small("QwenImageEditPlusPipeline"), "guides": renormalised},
    ),
    (
        "QwenImageEditInpaintPipeline",
        qwen,
        EDITED | {"mask_image": BIG_MASK, "strength": 1.0},
        None,
        {"cls": small("QwenImageEditInpaintPipeline"), "guides": renormalised},
    ),
    (
        "QwenImageLayeredPipeline",
        layered,
        EDITED | LAYERED | PT,
        lambda: {"text_encoder": clip_text()},
        {"cls": small("QwenImageLayeredPipeline")},
    ),
    ("QwenImage21Pipeline", nets.qwen21, {}, {"processor": Chat()}, {"lays": last_tokens}),
    (
        "StableDiffusion3InpaintPipeline",
        sixteen,
        {"image": image(16), "mask_image": mask(16), "strength": 1.0},
        None,
        {},
    ),
    (
        "StableDiffusion3ControlNetInpaintingPipeline",
        sd3,
        {"control_image": image(16), "control_mask": mask(16)},
        nets.sd3_control,
        {},
    ),
    ("HunyuanDiTControlNetPipeline", hunyuan, {"control_image": BIG}, nets.hunyuan_control, {}),
    ("HunyuanImagePipeline", nets.hunyuan_image(), {}, guided_apart, {}),
    ("CogView3PlusPipeline", nets.cogview3, {}, None, {}),
    ("BriaPipeline", nets.bria, {}, None, {}),
    ("BriaFiboPipeline", nets.fibo, {}, lambda: {"text_encoder": nets.llama(), "tokenizer": Words()}, {}),
    ("Krea2Pipeline", nets.krea2, {}, None, {"scale": 5.0}),  # it calls c + g·(c − u) a scale of g
    (
        "LongCatImagePipeline",
        nets.longcat,
        {"enable_prompt_rewrite": False},
        None,
        {"guides": partial(renormalised, most=1.0), "cls": longcat_told("LongCatImagePipeline")},
    ),
    (
        "LongCatImageEditPipeline",
        nets.longcat,
        EDITED,
        {"text_processor": Looks()},
        {"cls": longcat_told("LongCatImageEditPipeline")},
    ),
    ("NucleusMoEImagePipeline", nets.nucleus, {}, None, {"guides": renormalised}),
    ("OvisImagePipeline", nets.ovis, {}, None, {}),
    ("ErnieImagePipeline", nets.ernie, {}, None, {}),
    ("LuminaPipeline", nets.lumina, {}, None, {"guides": three_channels}),
    ("HunyuanImageRefinerPipeline", nets.refiner, {"image": BIG}, guided_apart, {}),
    ("BriaFibo2Pipeline", nets.fibo2, {}, None, {}),
    ("BriaFibo2Pipeline, shown", nets.fibo2, {"image": pil(16)}, None, {}),
    (
        "BriaFiboEditPipeline",
        nets.fibo,
        {"image": pil(64), "prompt": '{"edit_instruction": "red"}'},
        lambda: {"text_encoder": nets.llama(), "tokenizer": Words()},
        {},
    ),
]
CLASSES: dict[str, Callable[[], Swept]] = {
    name: partial(of_family, name.split(",")[0], family, call, parts, **known)
    for name, family, call, parts, known in ROWS
}
CLASSES |= {
    "HiDreamImagePipeline": hidream,
    "Ideogram4Pipeline": ideogram4,
    "Kandinsky3Pipeline": partial(kandinsky3, "Kandinsky3Pipeline", height=64, width=64),
    "Kandinsky3Img2ImgPipeline": partial(kandinsky3, "Kandinsky3Img2ImgPipeline", image=pil(16), strength=1.0),
    "Kandinsky5T2IPipeline": partial(kandinsky5, "Kandinsky5T2IPipeline"),
    "Kandinsky5I2IPipeline": partial(kandinsky5, "Kandinsky5I2IPipeline", shown=True, image=pil(64)),
}
UNBUILT: dict[str, str] = {
    "OmniGenPipeline": "needs torchvision, for its processor of prompts and images",
    "FluxPriorReduxPipeline": "a prior of embeddings in one pass: it has no scheduler",
    "LLaDA2Pipeline": "of tokens of text, block by block: its network is `model`, of the checkpoint's remote code",
    "DiffusionGemmaPipeline": "of tokens of text, canvas by canvas: its network is `model`",
}
