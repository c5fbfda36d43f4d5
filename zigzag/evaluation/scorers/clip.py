"""A CLIP of transformers: texts and images as unit vectors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zigzag.evaluation.evaluation import fingerprint
from zigzag.evaluation.scorers.base import not_loaded
from zigzag.evaluation.scorers.pixels import clip_pixels
from zigzag.support.extras import require

__all__ = ["Clip", "load_clip", "pretrained"]


@dataclass(frozen=True, eq=False)
class Clip:
    """A CLIP and its tokenizer.

    Attributes:
        source: where its weights are from. model: a `CLIPModel`. tokenizer: a `CLIPTokenizer`.
    """

    source: str
    model: Any
    tokenizer: Any

    @property
    def scale(self) -> Tensor:
        """What a cosine is multiplied by in CLIP's logits."""
        scale: Tensor = self.model.logit_scale.exp()
        return scale

    @cached_property
    def weights(self) -> str:
        """Where the weights are from, and their hash."""
        return f"{self.source} {fingerprint(self.model)}"

    @torch.no_grad()
    def texts(self, prompts: Sequence[str]) -> Tensor:
        """Prompts as unit vectors `(B, D)`; what is over 77 tokens is cut off, as CLIP reads no more."""
        most = self.model.config.text_config.max_position_embeddings
        read = self.tokenizer(list(prompts), padding=True, truncation=True, max_length=most, return_tensors="pt")
        read = read.to(self.model.device)
        return _unit(self.model.get_text_features(read["input_ids"], read["attention_mask"]))

    @torch.no_grad()
    def images(self, images: Tensor) -> Tensor:
        """Images `(B, 3, H, W)` in [0, 1] as unit vectors `(B, D)`."""
        shown = clip_pixels(images.to(self.model.device), self.model.config.vision_config.image_size)
        return _unit(self.model.get_image_features(shown))

    def cosines(self, prompts: Sequence[str], images: Tensor) -> Tensor:
        """The cosine of each image with its own prompt, `(B,)`."""
        return (self.texts(prompts) * self.images(images)).sum(1)


def _unit(features: Any) -> Tensor:
    v: Tensor = features.pooler_output
    unit: Tensor = v / v.norm(dim=-1, keepdim=True)
    return unit


def load_clip(
    score: str, weights: str, device: torch.device | str, tokenizer: str | None = None, option: str = "weights"
) -> Clip:
    """A CLIP in single precision, by its name on the hub or the folder that it is in.

    Args:
        score: for messages. tokenizer: where the tokenizer is, if it is not beside the weights.
        option: by which other weights are named.

    Raises:
        NotLoaded: if it is not to be had, or not all of it is there.
        ImportError: without transformers, naming the extra that brings it.
    """
    model = pretrained(score, "CLIPModel", weights, option).to(device)
    beside = pretrained(score, "CLIPTokenizer", tokenizer or weights, "tokenizer" if tokenizer else option)
    return Clip(weights, model, beside)


def pretrained(score: str, kind: str, weights: str, option: str = "weights") -> Any:
    """What `transformers.kind` loads, in single precision and for evaluation, nothing of it left at random.

    Args:
        score: for messages. weights: a name on the hub, or a folder. option: by which another is named.

    Raises:
        NotLoaded: if it is not to be had, or not all of it is there.
        ImportError: without transformers, naming the extra that brings it.
    """
    transformers = require("transformers", f"the score {score} needs transformers", "scores")
    fetch = f"name a folder by {score}:{option}=FOLDER"
    if not Path(weights).is_dir():
        if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", weights):
            raise not_loaded(score, weights, "there is no such folder, and a name on the hub is owner/model", fetch)
        fetch = f"fetch them by `hf download {weights}`, or {fetch}"
    whole = {} if kind.endswith("Tokenizer") else {"dtype": torch.float32, "output_loading_info": True}
    try:
        loaded = getattr(transformers, kind).from_pretrained(weights, **whole)
    except Exception as error:  # what is raised depends on where a file is broken
        raise not_loaded(score, weights, error, fetch) from error
    if not whole:
        return loaded
    model, told = loaded
    if lost := sorted(told["missing_keys"]) + sorted(str(key) for key in told["mismatched_keys"]):
        raise not_loaded(score, weights, f"{len(lost)} of its tensors are not there, {lost[0]} first", fetch)
    return model.eval().requires_grad_(False)
