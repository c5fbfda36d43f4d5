"""Images as tensors and as pictures of eight bits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zigzag.support.extras import require

__all__ = ["pillow", "to_picture", "to_tensor"]


def pillow() -> Any:
    """Pillow's `Image`.

    Raises:
        ImportError: if it is missing, naming the extra that brings it.
    """
    return require("PIL.Image", "images need Pillow", "shapes")


def to_tensor(picture: Any) -> Tensor:
    """A picture as `(1, 3, H, W)` in [0, 1]."""
    pixels = torch.frombuffer(bytearray(picture.convert("RGB").tobytes()), dtype=torch.uint8)
    return pixels.reshape(1, picture.height, picture.width, 3).movedim(3, 1).float() / 255


def to_picture(image: Tensor) -> Any:
    """One image `(3, H, W)` in [0, 1] as a picture.

    Raises:
        ValueError: for one that is not finite, as a VAE in half precision may leave it.
    """
    if not bool(image.isfinite().all()):
        raise ValueError("the image is not finite: the pipeline's VAE overflows in this dtype; pass another one")
    pixels = (255 * image.clamp(0, 1)).round().byte().permute(1, 2, 0).contiguous().cpu()
    return pillow().fromarray(pixels.numpy())
