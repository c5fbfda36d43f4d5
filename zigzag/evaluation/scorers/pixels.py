"""What image models are shown of an image, in torch: resized as Pillow does, cropped, and normalised.

The published scores are of image files: an image is shown as it would be once it is written and read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

__all__ = ["CLIP_MEAN", "CLIP_STD", "clip_pixels", "normalised", "padded_pixels", "resized", "written"]

CLIP_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Final = (0.26862954, 0.26130258, 0.27577711)


def written(images: Tensor) -> Tensor:
    """Images in [0, 1] with the 256 levels that an image file keeps."""
    return images.mul(255).round().clamp(0, 255).div(255)


def resized(images: Tensor, height: int, width: int, mode: str = "bicubic") -> Tensor:
    """Images in [0, 1] as Pillow resizes them: first across, then down, each time to the 256 levels of a byte.

    Pillow adds up in integers: where a sum falls between two levels it may take the other one, so that a value differs
    by 1/255 at most. (Pillow 13 goes down first at some sizes.)

    Args:
        images: `(B, 3, H, W)`. mode: "bicubic" or "bilinear", with Pillow's filters.
    """
    images = written(images)
    for size in ((images.shape[-2], width), (height, width)):
        images = written(interpolate(images, size, mode=mode, antialias=True))
    return images


def normalised(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """`(images − mean)/std`, by channel."""
    mu, sigma = (torch.tensor(v, dtype=images.dtype, device=images.device)[:, None, None] for v in (mean, std))
    return (images - mu) / sigma


def clip_pixels(images: Tensor, side: int) -> Tensor:
    """What CLIP is shown: the shorter side resized to `side`, the middle of the longer, normalised.

    Source: Radford et al. 2021, as the processor of transformers does it.
    """
    h, w = images.shape[-2:]
    height, width = (side, int(side * w / h)) if h <= w else (int(side * h / w), side)
    top, left = (height - side) // 2, (width - side) // 2
    shown = resized(images, height, width)[..., top : top + side, left : left + side]
    return normalised(shown, CLIP_MEAN, CLIP_STD)


def padded_pixels(images: Tensor, side: int) -> Tensor:
    """What HPSv2 is shown: the longer side resized to `side`, black beside the shorter, normalised.

    Resized as tensors are in its published code: bicubic, and neither rounded nor cut to [0, 1].

    Source: Wu et al. 2023, `ResizeMaxSize` of the released code.
    """
    h, w = images.shape[-2:]
    height, width = round(h * side / max(h, w)), round(w * side / max(h, w))
    images = written(images)
    if (height, width) != (h, w):
        images = interpolate(images, (height, width), mode="bicubic", antialias=True)
    down, across = side - height, side - width
    shown = pad(images, (across // 2, across - across // 2, down // 2, down - down // 2))
    return normalised(shown, CLIP_MEAN, CLIP_STD)
