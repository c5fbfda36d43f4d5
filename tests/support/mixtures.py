"""A mixture of three Gaussians in two classes, a noise to draw from, and its conditions."""

from __future__ import annotations

import torch

from zigzag.zoo import GaussianMixture

MIXTURE = GaussianMixture(
    torch.tensor([[-1.0, 0.0], [1.0, 0.5], [0.0, 1.5]], dtype=torch.float64),
    0.5,
    labels=torch.tensor([0, 1, 1]),
)
NOISE = torch.tensor([[0.3, -1.1], [-0.8, 0.6]], dtype=torch.float64)
COND, UNCOND = torch.tensor([0, 1]), torch.tensor([-1, -1])
