"""MPS, HPSv3 and other scores, by the package imscore where the user has it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import torch
from torch import Tensor

from zigzag.evaluation.evaluation import fingerprint
from zigzag.evaluation.scorers.base import checked, not_loaded
from zigzag.evaluation.scorers.pixels import written

__all__ = ["MODELS", "Imscore"]

MODELS: Final = {
    "ImageReward": ("imreward", "RE-N-Y/ImageReward"),
    "MPS": ("mps", "RE-N-Y/mpsv1"),
    "CycleReward": ("cyclereward", "NagaSaiAbhinay/CycleReward-Combo"),
    "EvalMuse": ("evalmuse", "RE-N-Y/evalmuse"),
    "VQAScore": ("vqascore", "RE-N-Y/clip-t5-xxl"),
    "HPSv3": ("hpsv3", "RE-N-Y/hpsv3"),
}
"""The classes of imscore 0.0.11: the package that each is in, and its weights on the hub."""


class Imscore:
    """A score of imscore, as that package computes it: its own preprocessing, near the published one and not the same.

    Source: imscore 0.0.11, whose README says by how much each is off.

    Args:
        device: where it runs. model: one of `MODELS`, to be named. weights: a name on the hub, or a folder.

    Raises:
        ValueError: for another model, and without one.
        ImportError: without imscore, saying which versions go together.
        NotLoaded: if the weights are not to be had, or the model does not run on this transformers.
    """

    def __init__(self, device: torch.device | str = "cpu", model: str = "", weights: str = "") -> None:
        if model not in MODELS:
            raise ValueError(f"imscore: model must be one of {', '.join(MODELS)}, got {model!r}")
        package, published = MODELS[model]
        self.name, self.source, self.device = f"imscore-{model.lower()}", weights or published, torch.device(device)
        try:
            kind = getattr(import_module(f"imscore.{package}.model"), model)
        except ImportError as error:
            raise ImportError(f"the score {self.name} needs imscore, which brings torchvision: {_PINS}") from error
        try:
            self.model: Any = kind.from_pretrained(self.source).float().to(device).eval().requires_grad_(False)
            # Some fail on transformers 5 only when they are asked.
            self(["a"], torch.zeros(1, 3, 64, 64, device="cpu"))
        except Exception as error:  # whatever its code raises on another version
            about = f"{_PINS} (transformers here is {_version('transformers')}, imscore {_version('imscore')})"
            raise not_loaded(self.name, self.source, error, about) from error

    def weights(self) -> str:
        """The id and the hash, and the version of imscore."""
        return f"{self.source} {fingerprint(self.model)} by imscore {_version('imscore')}"

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str], images: Tensor) -> Tensor:
        """The scores `(B,)`."""
        score: Tensor = self.model.score(written(checked(prompts, images)).to(self.device), list(prompts))
        return score.reshape(len(prompts)).float().cpu()


_PINS: Final = (
    "in an environment of its own, without diffusers, `pip install imscore==0.0.11 'transformers>=4.53,<5'`, and score "
    "the images there from Python: several of its models do not run on transformers 5"
)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"
