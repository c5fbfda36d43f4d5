"""The checker of the world of shapes as a score."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from zigzag.evaluation.prompts import Prompt
from zigzag.evaluation.scorers.base import checked
from zigzag.zoo.shapes import check, detect, parse
from zigzag.zoo.shapes.scenes import SIDE

__all__ = ["Checker"]

VERSION = 1  # to be raised by whoever changes what detector or checker say of an image


class Checker:
    """1 where an image of the world of shapes shows exactly what its prompt says, else 0.

    Args:
        prompts: those that will be scored: one that is no caption of this world is refused now.

    Raises:
        ValueError: for a prompt that is no caption.
        ImportError: without scipy, naming the extra that brings it.
    """

    name = "shapes"

    def __init__(self, prompts: Sequence[Prompt] = ()) -> None:
        for prompt in prompts:
            parse(prompt.text)
        detect(torch.zeros(1, 3, SIDE, SIDE, device="cpu"))

    def weights(self) -> str:
        """It has none; what it depends on is the version of its code."""
        return f"zigzag.zoo.shapes {VERSION}"

    def __call__(self, prompts: Sequence[str], images: Tensor) -> Tensor:
        """The verdicts `(B,)`, of images `(B, 3, 32, 32)`."""
        return torch.tensor(check(prompts, checked(prompts, images)), dtype=torch.float32, device="cpu")
