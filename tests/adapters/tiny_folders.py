"""Tiny random pipelines in folders, as `save_pretrained` leaves them, whose tokenizers know single letters."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from tiny_packed import flux
from tiny_unets import sd

LETTERS = string.ascii_lowercase + string.digits + ".,'"


def clip(home: Path) -> tuple[Any, Any]:
    """CLIP's tokenizer and text encoder."""
    vocabulary = ["<|startoftext|>", "<|endoftext|>", *(c + end for c in LETTERS for end in ("", "</w>"))]
    (home / "vocab.json").write_text(json.dumps({word: k for k, word in enumerate(vocabulary)}))
    (home / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(
        vocab=str(home / "vocab.json"), merges=str(home / "merges.txt"), model_max_length=12
    )
    torch.manual_seed(0)
    config = transformers.CLIPTextConfig(
        vocab_size=len(vocabulary), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=12, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    return tokenizer, transformers.CLIPTextModel(config)


def t5() -> tuple[Any, Any]:
    """T5's tokenizer and encoder."""
    vocabulary = ["<pad>", "</s>", "<unk>", "▁", *LETTERS]
    tokenizer = transformers.T5Tokenizer(vocab=[(piece, 0.0) for piece in vocabulary], extra_ids=0)
    torch.manual_seed(0)
    config = transformers.T5Config(vocab_size=len(vocabulary), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    return tokenizer, transformers.T5EncoderModel(config)


def stable_diffusion(home: Path) -> Path:
    """Stable Diffusion, with a UNet of two branches."""
    bare, (tokenizer, encoder) = sd().pipe, clip(home)
    pipe = diffusers.StableDiffusionPipeline(
        vae=bare.vae, unet=bare.unet, scheduler=bare.scheduler, tokenizer=tokenizer, text_encoder=encoder,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.save_pretrained(home / "model")
    return home / "model"


def distilled(home: Path) -> Path:
    """Flux, which is told a guidance scale."""
    bare, (tokenizer, encoder), (tokenizer_2, encoder_2) = flux().pipe, clip(home), t5()
    bare.vae.register_to_config(shift_factor=0.0)
    pipe = diffusers.FluxPipeline(
        vae=bare.vae, transformer=bare.transformer, scheduler=bare.scheduler, text_encoder=encoder, tokenizer=tokenizer,
        text_encoder_2=encoder_2, tokenizer_2=tokenizer_2,
    )  # fmt: skip
    pipe.save_pretrained(home / "model")
    return home / "model"
