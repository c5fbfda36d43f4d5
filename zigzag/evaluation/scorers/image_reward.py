"""ImageReward: a BLIP taught by images of one prompt that people put in order."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from zigzag.evaluation.scorers.aesthetic import layers
from zigzag.evaluation.scorers.base import checked, hashed_file, not_loaded
from zigzag.evaluation.scorers.clip import pretrained
from zigzag.evaluation.scorers.pixels import clip_pixels
from zigzag.support.extras import require

__all__ = ["ImageReward"]

REPO, FILE = "THUDM/ImageReward", "ImageReward.pt"
TOKENS = 35  # of a prompt that are read
MEAN, STD = 0.16717362830052426, 1.0333394966054072  # of the answers over the images that it was taught with
_FETCH = f"fetch them by `hf download {REPO} {FILE}`, or name the file by imagereward:weights=FILE"


class ImageReward:
    r"""ImageReward, five linear layers on what a BLIP reads of the prompt while it looks at the image.

    .. math:: s = \frac{A_5(A_4(A_3(A_2(A_1 h_0)))) - μ}{σ}

    with `h₀` the first of the text encoder's vectors, and μ, σ the mean and deviation on the images it was taught with.

    Source: Xu et al. 2023, section 3, and the released code.

    Args:
        device: where it runs, in single precision. weights: the file of the weights; by default the published one, from
            the hub. tokenizer: a name on the hub, or a folder.

    Raises:
        NotLoaded: if the weights are not to be had, or are of another network.
        ImportError: without transformers, naming the extra that brings it.
    """

    name = "imagereward"

    def __init__(
        self,
        device: torch.device | str = "cpu",
        weights: str = "",
        tokenizer: str = "google-bert/bert-base-uncased",
    ) -> None:
        transformers = require("transformers", "the score imagereward needs transformers", "scores")
        path = Path(weights) if weights else _published()
        try:
            saved: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
            self.image, self.text, self.layers = _networks(transformers, saved)
        except Exception as error:  # what torch.load raises depends on where a file is broken
            raise not_loaded(self.name, path, error, _FETCH) from error
        for part in (self.image, self.text, self.layers):
            part.float().to(device).eval().requires_grad_(False)
        self.tokenizer = pretrained(self.name, "BertTokenizer", tokenizer, "tokenizer")
        self.file, self.device = f"{path.name} {hashed_file(path)[:16]}", torch.device(device)

    def weights(self) -> str:
        """The file and its hash."""
        return self.file

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str], images: Tensor) -> Tensor:
        """The rewards `(B,)`, about 0 on the images that it was taught with."""
        shown = clip_pixels(checked(prompts, images).to(self.device), self.image.config.image_size)
        seen = self.image(shown).last_hidden_state
        read = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt"
        ).to(self.device)
        h = self.text(read["input_ids"], read["attention_mask"], encoder_hidden_states=seen).last_hidden_state
        reward: Tensor = (self.layers(h[:, 0]) - MEAN) / STD
        return reward.squeeze(1).cpu()


# The names of the released image encoder, and those that transformers has for the same tensors.
_VISION: Final = (
    (r"^cls_token$", "embeddings.class_embedding"),
    (r"^pos_embed$", "embeddings.position_embedding"),
    (r"^patch_embed\.proj", "embeddings.patch_embedding"),
    (r"^norm\.", "post_layernorm."),
    (r"^blocks\.(\d+)\.norm(\d)", r"encoder.layers.\1.layer_norm\2"),
    (r"^blocks\.(\d+)\.attn\.qkv", r"encoder.layers.\1.self_attn.qkv"),
    (r"^blocks\.(\d+)\.attn\.proj", r"encoder.layers.\1.self_attn.projection"),
    (r"^blocks\.", "encoder.layers."),
)


def _networks(transformers: Any, saved: Mapping[str, Tensor]) -> tuple[Any, Any, torch.nn.Sequential]:
    """Image encoder, text encoder and layers, of the sizes and with the tensors of a released file."""
    vision, text, top = (_under(saved, head) for head in ("blip.visual_encoder.", "blip.text_encoder.", "mlp.layers."))
    for pattern, name in _VISION:
        vision = {re.sub(pattern, name, key): value for key, value in vision.items()}
    patch = vision["embeddings.patch_embedding.weight"]
    patches = vision["embeddings.position_embedding"].shape[1] - 1
    image_encoder = transformers.BlipVisionModel(
        transformers.BlipVisionConfig(
            hidden_size=len(patch), intermediate_size=len(vision["encoder.layers.0.mlp.fc1.weight"]),
            num_hidden_layers=_count(vision, "encoder.layers."), num_attention_heads=len(patch) // 64,
            patch_size=patch.shape[-1], image_size=patch.shape[-1] * round(patches**0.5), layer_norm_eps=1e-6,
        )
    )  # fmt: skip
    words, width = text["embeddings.word_embeddings.weight"].shape
    text_encoder = transformers.BlipTextModel(
        transformers.BlipTextConfig(
            vocab_size=words, hidden_size=width, encoder_hidden_size=len(patch), num_attention_heads=width // 64,
            intermediate_size=len(text["encoder.layer.0.intermediate.dense.weight"]),
            num_hidden_layers=_count(text, "encoder.layer."), layer_norm_eps=1e-12,
            max_position_embeddings=len(text["embeddings.position_embeddings.weight"]), is_decoder=True,
        ),
        add_pooling_layer=False,
    )  # fmt: skip
    text.pop("embeddings.position_ids", None)  # 0, 1, 2, …
    reward = layers(width)
    for network, state in ((image_encoder, vision), (text_encoder, text), (reward, top)):
        network.load_state_dict(state)
    return image_encoder, text_encoder, reward


def _under(saved: Mapping[str, Tensor], head: str) -> dict[str, Tensor]:
    return {key.removeprefix(head): value for key, value in saved.items() if key.startswith(head)}


def _count(state: Mapping[str, Tensor], head: str) -> int:
    return len({key.removeprefix(head).split(".")[0] for key in state if key.startswith(head)})


def _published() -> Path:
    hub = require("huggingface_hub", "the weights of imagereward need huggingface_hub", "scores")
    try:
        return Path(hub.hf_hub_download(REPO, FILE))
    except (OSError, ValueError) as error:
        raise not_loaded("imagereward", f"{REPO} {FILE}", error, _FETCH) from error
