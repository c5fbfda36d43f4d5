"""Tiny random pipelines in folders, as `save_pretrained` leaves them, whose tokenizers know single letters."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from tiny_dits import hunyuan
from tiny_packed import flux
from tiny_unets import sd, sdxl, shake

LETTERS = string.ascii_lowercase + string.digits + ".,'"


def clip(home: Path, kind: str = "CLIPTextModel", size: int = 16, layers: int = 1) -> tuple[Any, Any]:
    """CLIP's tokenizer and text encoder."""
    vocabulary = ["<|startoftext|>", "<|endoftext|>", *(c + end for c in LETTERS for end in ("", "</w>"))]
    (home / "vocab.json").write_text(json.dumps({word: k for k, word in enumerate(vocabulary)}))
    (home / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(
        vocab=str(home / "vocab.json"), merges=str(home / "merges.txt"), model_max_length=12
    )
    torch.manual_seed(0)
    config = transformers.CLIPTextConfig(
        vocab_size=len(vocabulary), hidden_size=size, intermediate_size=16, num_hidden_layers=layers,
        num_attention_heads=2, max_position_embeddings=12, bos_token_id=0, eos_token_id=1, pad_token_id=1,
        projection_dim=16,
    )  # fmt: skip
    return tokenizer, getattr(transformers, kind)(config)


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


def stable_diffusion_xl(home: Path) -> Path:
    """Stable Diffusion XL: two text encoders, the last states but one of which stand side by side."""
    bare, (tokenizer, encoder) = sdxl().pipe, clip(home, size=8, layers=2)
    tokenizer_2, encoder_2 = clip(home, "CLIPTextModelWithProjection", size=8, layers=2)
    pipe = diffusers.StableDiffusionXLPipeline(
        vae=bare.vae, unet=bare.unet, scheduler=bare.scheduler, text_encoder=encoder, tokenizer=tokenizer,
        text_encoder_2=encoder_2, tokenizer_2=tokenizer_2, add_watermarker=False,
    )  # fmt: skip
    pipe.save_pretrained(home / "model")
    return home / "model"


def hunyuan_dit(home: Path) -> Path:
    """Hunyuan-DiT: a BERT of 77 tokens, and a T5 of 256."""
    bare, (tokenizer, encoder) = hunyuan().pipe, t5()
    net = diffusers.HunyuanDiT2DModel(
        sample_size=8, num_layers=2, patch_size=2, attention_head_dim=8, num_attention_heads=2, in_channels=4,
        cross_attention_dim=16, cross_attention_dim_t5=16, pooled_projection_dim=16, hidden_size=16,
        text_len=77, text_len_t5=256,
    )  # fmt: skip
    torch.manual_seed(0)
    bert = transformers.BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=77,
    )  # fmt: skip
    pipe = diffusers.HunyuanDiTPipeline(
        vae=bare.vae, transformer=shake(net), scheduler=bare.scheduler, text_encoder=transformers.BertModel(bert),
        tokenizer=tokenizer, text_encoder_2=encoder, tokenizer_2=tokenizer, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.save_pretrained(home / "model")
    return home / "model"
