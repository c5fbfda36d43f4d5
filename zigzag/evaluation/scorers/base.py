"""What a score is, and the batch that it is given."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor

from zigzag.support.commands import one_line

__all__ = ["NotLoaded", "Scorer", "checked", "hashed_file", "not_loaded"]


class Scorer(Protocol):
    """A number for each image, the higher the better.

    Whatever is missing is said when it is made, before anything is sampled; there its weights are loaded.
    """

    @property
    def name(self) -> str:
        """Of its column in a table, and in the names of files."""
        ...

    def weights(self) -> str:
        """What the score depends on besides prompt and image, by id and hash: a kept score is good while it is this."""
        ...

    def __call__(self, prompts: Sequence[str], images: Tensor) -> Tensor:
        """The scores `(B,)` of images `(B, 3, H, W)` in [0, 1], each under its own prompt."""
        ...


def checked(prompts: Sequence[str], images: Tensor) -> Tensor:
    """The images in single precision, if they are a batch that can be scored.

    Raises:
        ValueError: unless they are `(B, 3, H, W)`, floating, in [0, 1], and as many as the prompts.
    """
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(f"images must be floats (B, 3, H, W), got {tuple(images.shape)} {images.dtype}")
    if len(prompts) != len(images):
        raise ValueError(f"prompts must be one an image, got {len(prompts)} prompts and {len(images)} images")
    low, high = (images.amin().item(), images.amax().item()) if images.numel() else (0.0, 0.0)
    if not (low >= -1e-3 and high <= 1 + 1e-3):  # not: a NaN is out of it
        raise ValueError(f"images must be in [0, 1], got {low:.4g} to {high:.4g}; decode them first")
    return images.float()


class NotLoaded(OSError):
    """Weights that a score cannot do without are not to be had."""


def not_loaded(score: str, weights: str | Path, error: BaseException | str, fetch: str) -> NotLoaded:
    """The error that says which score lacks which weights, why, and what to do.

    Args:
        fetch: what brings the weights, or names others.
    """
    why = error if isinstance(error, str) else one_line(error)
    return NotLoaded(f"{score}: the weights {weights} are not to be had: {why}; {fetch}")


def hashed_file(path: Path) -> str:
    """The SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
