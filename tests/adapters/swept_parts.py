"""What the tiny pipelines of the sweep are put together of."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import diffusers
import torch
import transformers
from swept import Swept
from tiny_paths import picture
from tiny_unets import Case, embeds, noise, shake
from torch import Tensor

PAG = "perturbed-attention"
NO_GAP = "no unconditional branch"
THREE = "3 branches"

SIZE: dict[str, Any] = {"height": 16, "width": 16}
POOLED = {"pooled_prompt_embeds": noise(1, 16, seed=5), "negative_pooled_prompt_embeds": noise(1, 16, seed=6)}

Family = Callable[[], Any]


class Parts:
    """In place of a pipeline: its components."""

    def __init__(self, components: dict[str, Any]) -> None:
        self.components, self.vae = components, components["vae"]


def case(net: Any, vae: Any, scheduler: Any, **call: Any) -> Case:
    """A transformer and what belongs to it, called with embeddings."""
    c, u = embeds(1)
    given = {"prompt_embeds": c, "negative_prompt_embeds": u, "guidance_scale": 4.0, "negative_prompt": None, **call}
    parts = {"transformer": shake(net), "vae": vae, "scheduler": scheduler}
    return Case(Parts(parts), given, noise(1), None, {}, {})  # type: ignore[arg-type]


def of_family(name: str, family: Family, call: Any = None, parts: Any = None, cls: Any = None, **known: Any) -> Swept:
    """The pipeline class `name` (or one made of it, `cls`) of the components of a family, and of more `parts`."""
    one, cls = family(), cls or getattr(diffusers, name)
    if "unet" in one.pipe.components:  # which families share, and perturbed attention replaces parts of
        one.pipe.unet = copy.deepcopy(one.pipe.unet)
    if isinstance(one.pipe.components.get("vae"), diffusers.AutoencoderKL):
        one.pipe.components["vae"] = one.pipe.vae = vae = copy.deepcopy(one.pipe.vae)
        vae.register_to_config(shift_factor=0.1, force_upcast=False)
    have = {"requires_safety_checker": False, "add_watermarker": False, **one.pipe.components}
    have |= (parts() if callable(parts) else parts) or {}
    taken = inspect.signature(cls.__init__).parameters
    have |= {key: None for key, p in taken.items() if key not in have and p.default is p.empty and key != "self"}
    takes = inspect.signature(cls.__call__).parameters
    given = {key: value for key, value in one.call.items() if key in takes} | (call or {})
    return Swept(cls(**{key: value for key, value in have.items() if key in taken}), given, **known)


def of_parts(name: str, call: dict[str, Any], parts: dict[str, Any], **known: Any) -> Swept:
    return Swept(getattr(diffusers, name)(**parts), call, **known)


def again(net: Any, seed: int = 1, **changes: Any) -> Any:
    """A model like another, but for some of its configuration."""
    config = {key: value for key, value in net.config.items() if not key.startswith("_")}
    return shake(type(net)(**config | changes), seed)


def told(name: str, encode: Callable[..., Any], base: Any = None, method: str = "encode_prompt") -> Any:
    """The class that is told its embeddings, where it takes none."""
    return type(name, (base or getattr(diffusers, name),), {method: encode})


def renormalised(guided: Tensor, c: Tensor, dim: int = -1, most: float = math.inf) -> Tensor:
    """Brought back to the norm of the conditional prediction along a dimension."""
    return guided * (c.norm(dim=dim, keepdim=True) / guided.norm(dim=dim, keepdim=True)).clamp(max=most)


def wider(family: Family, channels: int, **changes: Any) -> Family:
    """A family whose model is shown more channels than it predicts."""

    def build() -> Any:
        one = family()
        name = "unet" if hasattr(one.pipe, "unet") else "transformer"
        net = getattr(one.pipe, name)
        out = {"out_channels": net.out_channels} if hasattr(net, "out_channels") else {}
        setattr(one.pipe, name, again(net, in_channels=channels, **out, **changes))
        return one

    return build


class Words:
    """In place of a tokenizer: ids of the letters of a text."""

    model_max_length = 5
    pad_token_id = 0
    added_tokens_encoder = MappingProxyType[str, int]({})

    def __call__(self, texts: Any, **kwargs: Any) -> Any:
        texts = [texts] if isinstance(texts, str) else texts
        ids = [([1, *(ord(letter) % 90 + 3 for letter in text[:3]), 2] + [0] * 5)[:5] for text in texts]
        mask = torch.ones(len(ids), 5, dtype=torch.long)
        length = {"length": mask.sum(1)} if kwargs.get("return_length") else {}
        return transformers.BatchEncoding({"input_ids": torch.tensor(ids), "attention_mask": mask, **length})

    def tokenize(self, text: str) -> list[str]:
        return [text]

    def batch_decode(self, *args: Any, **kwargs: Any) -> list[str]:
        return [""]


def kandinsky5_texts() -> dict[str, Any]:
    """By two encoders, and how long they are."""
    told: dict[str, Any] = dict(zip(("prompt_embeds_qwen", "negative_prompt_embeds_qwen"), embeds(1), strict=True))
    for side, seed in (("", 5), ("negative_", 6)):
        told |= {f"{side}prompt_embeds_clip": noise(1, 16, seed=seed)}
        told |= {f"{side}prompt_cu_seqlens": torch.tensor([0, 5], dtype=torch.int32)}
    return told


def clip_text() -> Any:
    config = transformers.CLIPTextConfig(
        hidden_size=16, intermediate_size=16, num_attention_heads=2, num_hidden_layers=1, vocab_size=100,
        projection_dim=16, bos_token_id=1, eos_token_id=2, pad_token_id=0, max_position_embeddings=8,
    )  # fmt: skip
    return shake(transformers.CLIPTextModelWithProjection(config), 3)


def clip_vision() -> Any:
    config = transformers.CLIPVisionConfig(
        hidden_size=16, projection_dim=16, num_hidden_layers=1, num_attention_heads=2, image_size=16,
        intermediate_size=16, patch_size=8,
    )  # fmt: skip
    return shake(transformers.CLIPVisionModelWithProjection(config), 3)


def vision() -> Any:
    return transformers.CLIPImageProcessor(crop_size=16, size=16)


def image(side: int) -> Tensor:
    return picture(1, 3, side, side).clamp(0, 1)


def mask(side: int) -> Tensor:
    return (picture(1, 1, side, side) > 0).float()


def pil(side: int) -> Any:
    from PIL import Image

    return Image.fromarray(((picture(side, side, 3) + 1) * 127).byte().numpy())
