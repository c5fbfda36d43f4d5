"""HPSv2.1, by open_clip: a CLIP taught by what people preferred among the images of many models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from zigzag.evaluation.scorers.base import checked, hashed_file, not_loaded
from zigzag.evaluation.scorers.pixels import padded_pixels
from zigzag.support.extras import require

__all__ = ["HPSv2"]

REPO, FILE = "xswu/HPSv2", "HPS_v2.1_compressed.pt"
ARCHITECTURE = "ViT-H-14"
_FETCH = f"fetch them by `hf download {REPO} {FILE}`, or name the file by hpsv2:weights=FILE"


class HPSv2:
    r"""HPS version 2.1, the cosine of a CLIP ViT-H/14's image and text, without CLIP's scale.

    .. math:: s = \cos(f(\text{prompt}), g(\text{image}))

    The released code runs it in half precision on a GPU; here it is in single precision.

    Source: Wu et al. 2023, section 5, and the released code.

    Args:
        device: where it runs. weights: the file of the weights; by default the published one, from the hub.
        architecture: of open_clip.

    Raises:
        NotLoaded: if the weights are not to be had, or are of another architecture.
        ImportError: without open_clip, naming the extra that brings it.
    """

    name = "hpsv2"

    def __init__(self, device: torch.device | str = "cpu", weights: str = "", architecture: str = ARCHITECTURE) -> None:
        open_clip = require("open_clip", "the score hpsv2 needs open_clip", "hpsv2")
        path = Path(weights) if weights else _published()
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
            # Without open_clip's own weights: those of the file are all there are.
            model = open_clip.create_model(architecture, pretrained=None, output_dict=True)
            model.load_state_dict(state)
        except Exception as error:  # what torch.load raises depends on where a file is broken
            raise not_loaded(self.name, path, error, _FETCH) from error
        self.file, self.device = f"{path.name} {hashed_file(path)[:16]}", torch.device(device)
        self.model = model.float().to(device).eval().requires_grad_(False)
        self.tokenizer = open_clip.get_tokenizer(architecture)
        side = self.model.visual.image_size
        self.side: int = side if isinstance(side, int) else side[0]

    def weights(self) -> str:
        """The file and its hash."""
        return self.file

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str], images: Tensor) -> Tensor:
        """The cosines `(B,)`; papers print a hundred times them."""
        shown = padded_pixels(checked(prompts, images).to(self.device), self.side)
        said = self.model(shown, self.tokenizer(list(prompts)).to(self.device))
        cosines: Tensor = (said["image_features"] * said["text_features"]).sum(1)
        return cosines.cpu()


def _published() -> Path:
    hub = require("huggingface_hub", "the weights of hpsv2 need huggingface_hub", "hpsv2")
    try:
        return Path(hub.hf_hub_download(REPO, FILE))
    except (OSError, ValueError) as error:
        raise not_loaded("hpsv2", f"{REPO} {FILE}", error, _FETCH) from error
