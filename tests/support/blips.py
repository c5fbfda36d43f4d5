"""A tiny ImageReward as its weights are released, and what it says, written out in double precision."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import conv2d, gelu, layer_norm

WIDE, HIGH, DEEP, PATCH, SIDE = 128, 64, 2, 8, 32  # of the image encoder, of the text encoder, layers, pixels
HEAD = 64
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "cat", "dog", "left", "of", "chair", "books", "7"]


def vocabulary_in(folder: Path) -> str:
    """A tokenizer of few words, in a folder."""
    import transformers

    (folder / "vocab.txt").write_text("\n".join(WORDS))
    transformers.BertTokenizer(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    return str(folder)


def released(seed: int = 0) -> dict[str, Tensor]:
    """Random weights under the names of the released file."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}

    def linear(name: str, out: int, into: int) -> None:
        state[f"{name}.weight"] = torch.randn(out, into, generator=generator) / into**0.5
        state[f"{name}.bias"] = torch.randn(out, generator=generator) / 10

    def norm(name: str, width: int) -> None:
        state[f"{name}.weight"] = 1 + torch.randn(width, generator=generator) / 10
        state[f"{name}.bias"] = torch.randn(width, generator=generator) / 10

    eye, read = "blip.visual_encoder", "blip.text_encoder"
    state[f"{eye}.cls_token"] = torch.randn(1, 1, WIDE, generator=generator)
    state[f"{eye}.pos_embed"] = torch.randn(1, 1 + (SIDE // PATCH) ** 2, WIDE, generator=generator) / 3
    linear(f"{eye}.patch_embed.proj", WIDE, 3 * PATCH**2)
    state[f"{eye}.patch_embed.proj.weight"] = state[f"{eye}.patch_embed.proj.weight"].reshape(WIDE, 3, PATCH, PATCH)
    norm(f"{eye}.norm", WIDE)
    for k in range(DEEP):
        block = f"{eye}.blocks.{k}"
        norm(f"{block}.norm1", WIDE)
        norm(f"{block}.norm2", WIDE)
        for name, out, into in (
            ("attn.qkv", 3 * WIDE, WIDE), ("attn.proj", WIDE, WIDE),
            ("mlp.fc1", 4 * WIDE, WIDE), ("mlp.fc2", WIDE, 4 * WIDE),
        ):  # fmt: skip
            linear(f"{block}.{name}", out, into)
    state[f"{read}.embeddings.position_ids"] = torch.arange(64)[None]
    state[f"{read}.embeddings.word_embeddings.weight"] = torch.randn(len(WORDS) + 2, HIGH, generator=generator)
    state[f"{read}.embeddings.position_embeddings.weight"] = torch.randn(64, HIGH, generator=generator)
    norm(f"{read}.embeddings.LayerNorm", HIGH)
    for k in range(DEEP):
        layer = f"{read}.encoder.layer.{k}"
        for kind, into in (("attention", HIGH), ("crossattention", WIDE)):
            for name, width in (("query", HIGH), ("key", into), ("value", into)):
                linear(f"{layer}.{kind}.self.{name}", HIGH, width)
            linear(f"{layer}.{kind}.output.dense", HIGH, HIGH)
            norm(f"{layer}.{kind}.output.LayerNorm", HIGH)
        linear(f"{layer}.intermediate.dense", 2 * HIGH, HIGH)
        linear(f"{layer}.output.dense", HIGH, 2 * HIGH)
        norm(f"{layer}.output.LayerNorm", HIGH)
    linear("blip.vision_proj", 8, WIDE)  # of its first training, and not asked
    linear("blip.text_proj", 8, HIGH)
    for k, (out, into) in {0: (1024, HIGH), 2: (128, 1024), 4: (64, 128), 6: (16, 64), 7: (1, 16)}.items():
        linear(f"mlp.layers.{k}", out, into)
    return state


def reward(state: dict[str, Tensor], pixels: Tensor, words: list[int]) -> float:
    """What the released network says of an image `(3, SIDE, SIDE)`, as it is shown, and the numbers of a prompt's
    words, without those that only fill up.
    """
    s = {key: value.double() if value.is_floating_point() else value for key, value in state.items()}

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ s[f"{name}.weight"].T + s[f"{name}.bias"]

    def norm(name: str, x: Tensor, eps: float) -> Tensor:
        return layer_norm(x, x.shape[-1:], s[f"{name}.weight"], s[f"{name}.bias"], eps)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        heads = [
            torch.softmax(a @ b.T / math.sqrt(HEAD), 1) @ c
            for a, b, c in zip(q.split(HEAD, 1), k.split(HEAD, 1), v.split(HEAD, 1), strict=True)
        ]
        return torch.cat(heads, 1)

    eye, read = "blip.visual_encoder", "blip.text_encoder"
    weight, bias = (s[f"{eye}.patch_embed.proj.{name}"] for name in ("weight", "bias"))
    x = conv2d(pixels.double()[None], weight, bias, stride=PATCH)[0].flatten(1).T
    x = torch.cat([s[f"{eye}.cls_token"][0], x]) + s[f"{eye}.pos_embed"][0]
    for k in range(DEEP):
        block = f"{eye}.blocks.{k}"
        q, key, v = linear(f"{block}.attn.qkv", norm(f"{block}.norm1", x, 1e-6)).chunk(3, 1)
        x = x + linear(f"{block}.attn.proj", attend(q, key, v))
        x = x + linear(f"{block}.mlp.fc2", gelu(linear(f"{block}.mlp.fc1", norm(f"{block}.norm2", x, 1e-6))))
    x = norm(f"{eye}.norm", x, 1e-6)

    h = s[f"{read}.embeddings.word_embeddings.weight"][words]
    h = h + s[f"{read}.embeddings.position_embeddings.weight"][: len(words)]
    h = norm(f"{read}.embeddings.LayerNorm", h, 1e-12)
    for k in range(DEEP):
        layer = f"{read}.encoder.layer.{k}"
        for kind in ("attention", "crossattention"):
            at = f"{layer}.{kind}"
            to = h if kind == "attention" else x
            seen = attend(linear(f"{at}.self.query", h), linear(f"{at}.self.key", to), linear(f"{at}.self.value", to))
            h = norm(f"{at}.output.LayerNorm", linear(f"{at}.output.dense", seen) + h, 1e-12)
        inner = linear(f"{layer}.output.dense", gelu(linear(f"{layer}.intermediate.dense", h)))
        h = norm(f"{layer}.output.LayerNorm", inner + h, 1e-12)
    answer = h[0]
    for k in (0, 2, 4, 6, 7):
        answer = linear(f"mlp.layers.{k}", answer)
    return (answer.item() - 0.16717362830052426) / 1.0333394966054072
