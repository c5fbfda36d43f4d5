"""Tiny scores, as a user would write them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Red:
    """How much redder than green an image is, and a little for the length of the prompt; it counts its calls."""

    name = "red"
    version = "1"
    images = 0

    def weights(self) -> str:
        return f"red {self.version}"

    def __call__(self, prompts: Sequence[str], images: Tensor) -> Tensor:
        type(self).images += len(images)
        lengths = torch.tensor([len(prompt) * 1e-4 for prompt in prompts])
        return (images[:, 0] - images[:, 1]).mean((1, 2)) + lengths


class Redder(Red):
    """Another of the same name."""


class Bright:
    """The mean of an image."""

    name = "bright"

    def weights(self) -> str:
        return "bright"

    def __call__(self, prompts: Sequence[str], images: Tensor) -> Tensor:
        return images.mean((1, 2, 3))


class Nan(Bright):
    """No number."""

    name = "nan"

    def __call__(self, prompts: Sequence[str], images: Tensor) -> Tensor:
        return torch.full((len(images),), torch.nan)


class Missing:
    """A score whose weights are not to be had."""

    name = "missing"

    def __init__(self) -> None:
        raise OSError("the weights of missing are not to be had: fetch them first")
