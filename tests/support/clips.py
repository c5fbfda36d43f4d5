"""Tiny random CLIPs and a tiny Mask2Former, as `save_pretrained` leaves them in folders."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

SIDE, WIDTH, LENGTH = 32, 8, 24  # pixels, of the joint space, tokens
PROMPTS = ["a cat", "a red dog left of a chair, and no more than that", "7 books"]  # the second one is too long
THINGS = ["dog", "mouse", "cat", "keyboard", "remote"]


def tokenizer_in(folder: Path) -> Any:
    """A tokenizer of single letters."""
    import transformers

    vocabulary = ["<|startoftext|>", "<|endoftext|>"]
    vocabulary += [c + end for c in string.ascii_lowercase + string.digits + ".,'-" for end in ("", "</w>")]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: k for k, word in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    made = transformers.CLIPTokenizer(
        vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"), model_max_length=LENGTH
    )
    made.save_pretrained(folder)
    return made


def clip_in(folder: Path, seed: int = 0) -> Any:
    """A random CLIP with its tokenizer; it is large enough in its weights that its vectors differ."""
    import transformers

    words = len(tokenizer_in(folder))
    shared = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    torch.manual_seed(seed)
    model = transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config={**shared, **ends, "vocab_size": words, "max_position_embeddings": LENGTH},
            vision_config={**shared, "image_size": SIDE, "patch_size": 8},
            projection_dim=WIDTH,
        )
    )
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim > 1:
                p.copy_(torch.randn_like(p) / p[0].numel() ** 0.5)
        model.logit_scale.fill_(3.5)
    model.save_pretrained(folder)
    return model.eval()


def mask2former_in(folder: Path, things: list[str], seed: int = 0) -> Any:
    """A random Mask2Former of a tiny Swin, whose classes are the things; now sure of what it sees, now not."""
    import transformers

    torch.manual_seed(seed)
    swin = transformers.SwinConfig(
        image_size=64, patch_size=4, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = transformers.Mask2FormerConfig(
        backbone_config=swin, feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=16,
        encoder_layers=1, decoder_layers=2, num_attention_heads=2, dim_feedforward=16, num_queries=12,
    )  # fmt: skip
    config.id2label = dict(enumerate(things))
    config.label2id = {thing: k for k, thing in enumerate(things)}
    model = transformers.Mask2FormerForUniversalSegmentation(config)
    with torch.no_grad():
        model.class_predictor.weight.mul_(100)
        for name, p in model.named_parameters():
            if "mask_embedder" in name and p.ndim > 1:
                p.mul_(8)
    model.save_pretrained(folder)
    return model.eval()


def files(images: Tensor) -> list[Any]:
    """Images in [0, 1] as Pillow's."""
    from PIL import Image

    return [Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy()) for image in images]


def by_pillow(images: Tensor, side: int) -> Tensor:
    """What transformers' processor, which is Pillow's, makes of images, in double precision."""
    module = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    processor = module.CLIPImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    )  # fmt: skip
    return torch.cat([processor(images=file, return_tensors="pt")["pixel_values"] for file in files(images)]).double()
