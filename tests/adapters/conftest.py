"""Tiny random pipelines, by family."""

from __future__ import annotations

import json
import string
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

# pytest's importlib mode puts no folder of tests on the path.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Any]:
    """`tiny(family, batch=1, **call)`: a Case (tiny_unets.py) of that family."""
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    import tiny_distilled
    import tiny_dits
    import tiny_more
    import tiny_packed
    import tiny_unets

    def build(family: str, batch: int = 1, **changes: Any) -> Any:
        homes = [
            module
            for module in (tiny_unets, tiny_dits, tiny_packed, tiny_more, tiny_distilled)
            if hasattr(module, family)
        ]
        return getattr(homes[0], family)(batch, **changes)

    return build


@pytest.fixture(scope="session")
def schedulers(tiny: Callable[..., Any]) -> Callable[..., Any]:
    """`schedulers(kind)`: DDIM on ε ("ddim") or v ("v"), or Euler ("euler")."""
    import diffusers
    import tiny_unets

    def build(kind: str, **config: Any) -> Any:
        if kind == "euler":
            return diffusers.EulerDiscreteScheduler(**{**tiny_unets.SD_BETAS, "steps_offset": 1, **config})
        return tiny_unets.ddim(**({"prediction_type": "v_prediction"} if kind == "v" else {}), **config)

    return build


@pytest.fixture(scope="session")
def folder(tiny: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion with a text encoder and a tokenizer of single letters, as `save_pretrained` leaves it."""
    diffusers, transformers = pytest.importorskip("diffusers"), pytest.importorskip("transformers")
    home = tmp_path_factory.mktemp("tiny-sd")
    vocabulary = ["<|startoftext|>", "<|endoftext|>"]
    vocabulary += [c + end for c in string.ascii_lowercase + string.digits + ".,'" for end in ("", "</w>")]
    (home / "vocab.json").write_text(json.dumps({word: k for k, word in enumerate(vocabulary)}))
    (home / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(
        vocab=str(home / "vocab.json"), merges=str(home / "merges.txt"), model_max_length=12
    )
    torch.manual_seed(0)
    text = transformers.CLIPTextConfig(
        vocab_size=len(vocabulary), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=12, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    bare = tiny("sd").pipe
    pipe = diffusers.StableDiffusionPipeline(
        vae=bare.vae, unet=bare.unet, scheduler=bare.scheduler, tokenizer=tokenizer,
        text_encoder=transformers.CLIPTextModel(text), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    pipe.save_pretrained(home / "model")
    return home / "model"
