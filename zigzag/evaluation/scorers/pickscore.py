"""PickScore: a CLIP taught by what users chose of two images of one prompt."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from zigzag.evaluation.scorers.base import checked
from zigzag.evaluation.scorers.clip import load_clip

__all__ = ["PickScore"]


class PickScore:
    r"""PickScore, the logit of a CLIP ViT-H/14: `exp` of a difference is the odds by which one image is preferred.

    .. math:: s = e^{τ}\, \frac{⟨f(\text{prompt}), g(\text{image})⟩}{‖f‖\,‖g‖}

    Source: Kirstain et al. 2023, equation 1, and the released weights.

    Args:
        device: where it runs, in single precision. weights: a name on the hub, or a folder.
        tokenizer: the same; the published weights are without one.

    Raises:
        NotLoaded: if the weights are not to be had.
        ImportError: without transformers, naming the extra that brings it.
    """

    name = "pickscore"

    def __init__(
        self,
        device: torch.device | str = "cpu",
        weights: str = "yuvalkirstain/PickScore_v1",
        tokenizer: str = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
    ) -> None:
        self.clip = load_clip(self.name, weights, device, tokenizer)

    def weights(self) -> str:
        """The CLIP's id and hash."""
        return self.clip.weights

    def __call__(self, prompts: Sequence[str], images: Tensor) -> Tensor:
        """The logits `(B,)`."""
        return (self.clip.scale * self.clip.cosines(prompts, checked(prompts, images))).cpu()
