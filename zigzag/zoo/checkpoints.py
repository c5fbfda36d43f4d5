"""Tensors on disk, as safetensors files that are replaced in one go."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zigzag.support.files import replacing
from zigzag.zoo.learned import parse_weights, require_safetensors

__all__ = ["read_state", "write_state", "write_weights"]


def write_state(path: Path, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> None:
    """Writes the state of a run with its settings."""
    _write(path, tensors, {"settings": json.dumps(settings)})


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write_state` wrote.

    Raises:
        ValueError: if it is no such file.
    """
    tensors, metadata = parse_weights(path.read_bytes())
    if "settings" not in metadata:
        raise ValueError(f"{path} is no checkpoint of a training run")
    return tensors, json.loads(metadata["settings"])


def write_weights(path: Path, name: str, step: int, tensors: Mapping[str, Tensor], kind: str = "weights") -> None:
    """Writes weights to sample with, or a LoRA, in float16."""
    halves = {key: value.to(torch.float16) for key, value in tensors.items()}
    _write(path, halves, {"name": name, "step": str(step), "kind": kind})


def _write(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    with replacing(path) as temporary:
        temporary.write_bytes(require_safetensors().save(plain, metadata))
