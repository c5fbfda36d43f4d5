"""The exact predictor of real data: one narrow Gaussian on each of 1,797 handwritten digits."""

from __future__ import annotations

import gzip
from importlib.resources import files

import torch
from torch import Tensor

from zigzag.solvers.affine import wide
from zigzag.zoo.mixture import GaussianMixture

__all__ = ["Digits"]

COUNT, SIDE, WHITE = 1797, 8, 16


class Digits(GaussianMixture):
    """A Gaussian mixture on the handwritten digits that scikit-learn ships, conditional on the class 0 to 9.

    No training and no download: the 1,797 images of 8×8 pixels lie in the package. They are the test set of the
    "Optical Recognition of Handwritten Digits" data (E. Alpaydin and C. Kaynak, UCI 1998, CC BY 4.0).

    Args:
        std: the width of each Gaussian, in units where the pixels run from −1 (paper) to 1 (ink).

    Attributes:
        images: float32 `(1797, 1, 8, 8)` in [−1, 1]. labels: int64 `(1797,)`.
    """

    def __init__(self, std: float = 0.1) -> None:
        raw = gzip.decompress(files("zigzag.zoo").joinpath("data/digits.gz").read_bytes())
        data = torch.frombuffer(bytearray(raw), dtype=torch.uint8)
        labels, pixels = data[:COUNT].long(), data[COUNT:].reshape(COUNT, 1, SIDE, SIDE)
        self.images = pixels.float() * (2 / WHITE) - 1
        super().__init__(self.images, std, labels=labels)

    def classify(self, x: Tensor) -> Tensor:
        """The class of the nearest real digit, `(B,)`."""
        return self.labels.to(x.device)[self._distances(x).argmin(-1)]

    def distance(self, x: Tensor, labels: Tensor) -> Tensor:
        """The Euclidean distance to the nearest real digit of the class asked for, `(B,)`."""
        other = labels.to(x.device)[:, None] != self.labels.to(x.device)
        return self._distances(x).masked_fill(other, torch.inf).amin(-1).to(x.dtype)

    def _distances(self, x: Tensor) -> Tensor:
        # The direct form: the one by matrix product loses digits just where a sample lies on a real image.
        return torch.cdist(
            x.to(wide(x.device)).flatten(1),
            self.means.to(wide(x.device)).to(x.device).flatten(1),
            compute_mode="donot_use_mm_for_euclid_dist",
        )
