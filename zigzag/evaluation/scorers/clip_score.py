"""CLIP score: how well CLIP finds that image and prompt go together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from zigzag.evaluation.scorers.base import checked
from zigzag.evaluation.scorers.clip import load_clip

__all__ = ["ClipScore"]


class ClipScore:
    r"""A hundred times the cosine of a CLIP's image and text, not below 0.

    .. math:: s = 100 \max\big(0,\; \cos(f(\text{prompt}), g(\text{image}))\big)

    Hessel et al. have 2.5 for 100, a ViT-B/32, and prompts that begin with "A photo depicts"; the 100, and the prompt
    as it is, are those of torchmetrics. Papers often do not say of which CLIP theirs is.

    Source: Hessel et al. 2021, equation 1.

    Args:
        device: where it runs, in single precision. weights: a name on the hub, or a folder.

    Raises:
        NotLoaded: if the weights are not to be had.
        ImportError: without transformers, naming the extra that brings it.
    """

    name = "clip"

    def __init__(self, device: torch.device | str = "cpu", weights: str = "openai/clip-vit-large-patch14") -> None:
        self.clip = load_clip(self.name, weights, device)

    def weights(self) -> str:
        """The CLIP's id and hash."""
        return self.clip.weights

    def __call__(self, prompts: Sequence[str], images: Tensor) -> Tensor:
        """The scores `(B,)`, in 0 to 100."""
        return self.clip.cosines(prompts, checked(prompts, images)).clamp(min=0).mul(100).cpu()
