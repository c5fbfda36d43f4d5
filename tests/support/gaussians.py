"""A mixture of five Gaussians in three classes, its true predictions, and how far rounding may take them."""

from typing import Any

import torch
from torch import Tensor

from zigzag.testing.steps import of_samples
from zigzag.zoo import GaussianMixture

EPS = torch.finfo(torch.float64).eps
KINDS = ("epsilon", "x0", "v", "flow")
K = 5
MEANS = torch.tensor([[1.0, 0.5], [-1.5, 0.2], [0.3, -2.0], [2.0, 2.0], [-0.4, 1.1]], dtype=torch.float64)
STDS = torch.tensor([0.3, 0.5, 0.2, 0.8, 0.4], dtype=torch.float64)
WEIGHTS = torch.tensor([0.1, 0.3, 0.2, 0.25, 0.15], dtype=torch.float64)
LABELS = torch.tensor([0, 1, 0, 2, 1])


def mixture() -> GaussianMixture:
    return GaussianMixture(MEANS, STDS, WEIGHTS, LABELS)


def of_class(label: int | None) -> list[int]:
    """The components of a class; all of them for None and for a negative label."""
    return [k for k in range(K) if label is None or label < 0 or LABELS[k] == label]


def log_density(x: Tensor, alpha: float, sigma: float, label: int | None) -> Tensor:
    """log Σ_k w_k·N(x; α·μ_k, (α²s_k² + σ²)·I) of one state x, over the components of its class."""
    terms = []
    for k in of_class(label):
        normal = torch.distributions.Normal(alpha * MEANS[k], (alpha**2 * STDS[k] ** 2 + sigma**2).sqrt())
        terms.append(WEIGHTS[k].log() + normal.log_prob(x).sum())
    return torch.stack(terms).logsumexp(0)


def truth(x: Tensor, alpha: Any, sigma: Any, labels: list[int | None]) -> dict[str, Tensor]:
    """ε = −σ·∇log p, x₀ = (x + σ²·∇log p)/α, v = α·ε − σ·x₀, u = ε − x₀ (α > 0)."""
    a, s = of_samples(alpha, x).expand(len(x), 1), of_samples(sigma, x).expand(len(x), 1)
    scores = []
    for row, al, si, label in zip(x, a.flatten().tolist(), s.flatten().tolist(), labels, strict=True):
        point = row.clone().requires_grad_()
        scores.append(torch.autograd.grad(log_density(point, al, si, label), point)[0])
    score = torch.stack(scores)
    eps, x0 = -s * score, (x + s**2 * score) / a
    return {"epsilon": eps, "x0": x0, "v": a * eps - s * x0, "flow": eps - x0}


def rounding(x: Tensor, alpha: Any, sigma: Any) -> Tensor:
    """A bound on the rounding of any of the four predictions of either side, per sample.

    A log-weight is rounded at L = (|x| + α|μ|)²/min var + the rest, so a responsibility is good to L·eps, and
    it weighs terms no larger than σ·(|x| + α|μ|)/var; x₀ and u divide ε by α once, of which 1 + 1/α.
    """
    a, s = of_samples(alpha, x).expand(len(x), 1), of_samples(sigma, x).expand(len(x), 1)
    variance = a**2 * STDS.min() ** 2 + s**2
    reach = x.norm(dim=1, keepdim=True) + a * MEANS.norm(dim=1).max()
    logits = reach**2 / variance + 10
    return 16 * EPS * logits * (1 + s * reach / variance + x.abs()) * (1 + s / a) * (1 + 1 / a)
