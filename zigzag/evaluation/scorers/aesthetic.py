"""LAION's aesthetic predictor: what people would rate an image, whatever its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zigzag.evaluation.scorers.base import checked, hashed_file, not_loaded
from zigzag.evaluation.scorers.clip import load_clip

__all__ = ["Aesthetic"]

NAME = "sac+logos+ava1-l14-linearMSE.pth"
SHA256 = "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0"
URL = "https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/main/" + NAME.replace("+", "%2B")


class Aesthetic:
    r"""LAION's aesthetic predictor, version 2: five linear layers on the unit image vector of CLIP ViT-L/14.

    .. math:: s = A_5(A_4(A_3(A_2(A_1(g/‖g‖))))), \qquad g = g(\text{image})

    There is nothing between the layers, so that the score is linear in the vector. The prompt has no say.

    Source: Schuhmann 2022, "improved-aesthetic-predictor", `simple_inference.py`.

    Args:
        device: where it runs, in single precision.
        weights: the file of the layers; by default the published one, fetched once into torch's hub folder and held to
            its SHA-256.
        clip: of the CLIP, a name on the hub or a folder.

    Raises:
        NotLoaded: if the weights are not to be had, or are of other layers.
        ImportError: without transformers, naming the extra that brings it.
    """

    name = "aesthetic"

    def __init__(
        self, device: torch.device | str = "cpu", weights: str = "", clip: str = "openai/clip-vit-large-patch14"
    ) -> None:
        path = Path(weights) if weights else _published()
        try:
            # The published file was saved on a GPU.
            saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            self.layers = layers(saved["layers.0.weight"].shape[1])
            self.layers.load_state_dict({key.removeprefix("layers."): value for key, value in saved.items()})
        except Exception as error:  # what torch.load raises depends on where a file is broken
            raise not_loaded(self.name, path, error, _FETCH) from error
        self.layers.to(device).eval().requires_grad_(False)
        self.file = f"{path.name} {hashed_file(path)[:16]}"
        self.clip = load_clip(self.name, clip, device, option="clip")
        width = self.clip.model.config.projection_dim
        if width != self.layers[0].in_features:
            why = f"its layers are on {self.layers[0].in_features} numbers, and {clip} gives {width}"
            raise not_loaded(self.name, path, why, "name the CLIP that they were taught on by aesthetic:clip=FOLDER")

    def weights(self) -> str:
        """The file and the CLIP, each with its hash."""
        return f"{self.file} on {self.clip.weights}"

    def __call__(self, prompts: Sequence[str], images: Tensor) -> Tensor:
        """The ratings `(B,)`; those that it was taught with are from 1 to 10."""
        score: Tensor = self.layers(self.clip.images(checked(prompts, images)))
        return score.squeeze(1).cpu()


def layers(width: int) -> nn.Sequential:
    """The layers, numbered as published: 1, 3 and 5 are dropouts, which do nothing once it is taught."""
    return nn.Sequential(
        nn.Linear(width, 1024), nn.Identity(), nn.Linear(1024, 128), nn.Identity(), nn.Linear(128, 64), nn.Identity(),
        nn.Linear(64, 16), nn.Linear(16, 1),
    )  # fmt: skip


_FETCH = f"fetch them by `curl -L -o '{NAME}' {URL}`, and name the file by aesthetic:weights=FILE"


def _published() -> Path:
    path = Path(torch.hub.get_dir()) / "checkpoints" / NAME
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(URL, str(path), hash_prefix=SHA256, progress=False)
        except (OSError, RuntimeError) as error:
            raise not_loaded("aesthetic", NAME, error, _FETCH) from error
    return path
