"""A class-conditional Gaussian mixture, whose predictions are known in closed form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, get_args

import torch
from torch import Tensor

from zigzag.solvers import Solver
from zigzag.solvers.affine import wide
from zigzag.solvers.grids import Coefficient, Prediction
from zigzag.solvers.predictions import made_for

__all__ = ["GaussianMixture"]


class GaussianMixture:
    r"""Exact predictions for data drawn from `Σ_k π_k N(μ_k, s_k²)`, in any dimension.

    A noised sample `x = α·x₀ + σ·ε` then has the density `Σ_k π_k N(α·μ_k, v_k)`, `v_k = α²s_k² + σ²`, and with the
    responsibilities `r_k(x)` of its components

    .. math:: \mathbb E[\varepsilon \mid x] = \sum_k r_k\,\frac{\sigma}{v_k}(x - \alpha\mu_k), \qquad
              \mathbb E[x_0 \mid x] = \sum_k r_k\Big(\mu_k + \frac{\alpha s_k^2}{v_k}(x - \alpha\mu_k)\Big)

    A class condition keeps the components of that class only.

    Args:
        means: `(K, …)`, one mean per component; the rest is the shape of a sample.
        stds: `s_k`, a number or `(K,)`, positive.
        weights: `π_k`, `(K,)`, positive, normalised here; equal by default.
        labels: the class of each component, `(K,)` non-negative integers; by default each is a class of its own.

    Everything is computed in float64 (float32 on a device without it), and returned in the state's dtype, where it is.

    Raises:
        ValueError: for shapes that do not fit, stds or weights that are not positive, negative labels.
    """

    def __init__(
        self,
        means: Tensor,
        stds: Tensor | float,
        weights: Tensor | Sequence[float] | None = None,
        labels: Tensor | Sequence[int] | None = None,
    ) -> None:
        if means.ndim < 2:
            raise ValueError(f"means must be (K, ...) with at least one dimension of data, got {tuple(means.shape)}")
        K, device, dtype = len(means), means.device, wide(means.device)
        with torch.inference_mode(False):  # what is kept is ordinary, whatever mode it is made in
            self.means = means.to(dtype, copy=True)
            self.stds = torch.as_tensor(stds, dtype=dtype, device=device).clone()
            self.stds = self.stds.expand(K) if self.stds.ndim == 0 else self.stds
            self.weights = torch.as_tensor(
                [1.0] * K if weights is None else weights, dtype=dtype, device=device
            ).clone()
            self.labels = torch.as_tensor(range(K) if labels is None else labels, device=device).clone()
        for name, values in (("stds", self.stds), ("weights", self.weights), ("labels", self.labels)):
            if values.shape != (K,):
                raise ValueError(f"{name} must be ({K},) for {K} means, got {tuple(values.shape)}")
        for name, values in (("stds", self.stds), ("weights", self.weights)):
            if not ((values > 0) & values.isfinite()).all():
                raise ValueError(f"{name} must be positive and finite, got {values.tolist()}")
        if not self.means.isfinite().all():
            raise ValueError("means must be finite")
        if self.labels.is_floating_point() or (self.labels < 0).any():
            raise ValueError("labels must be non-negative integers")
        with torch.inference_mode(False):
            self.weights = self.weights / self.weights.sum()

    def predict(
        self,
        x: Tensor,
        alpha: Coefficient,
        sigma: Coefficient,
        labels: Tensor | None = None,
        prediction: Prediction = "epsilon",
    ) -> Tensor:
        """The exact prediction at `x` `(B, …)`, noised with `alpha` and `sigma` (numbers, `()` or `(B,)`).

        Args:
            labels: the classes asked for, `(B,)`; negative, or None for all, is unconditional.
            prediction: "epsilon", "x0", "v" or "flow".

        Raises:
            ValueError: for another prediction, and for labels on the host that no component has.
        """
        if prediction not in get_args(Prediction):
            raise ValueError(f"prediction must be one of {', '.join(get_args(Prediction))}, got {prediction!r}")
        B, dtype = len(x), wide(x.device)
        alpha, sigma = (torch.as_tensor(k, dtype=dtype, device=x.device).expand(B)[:, None] for k in (alpha, sigma))
        y = x.to(dtype).flatten(1)
        mu, s, weights = (part.to(dtype).to(x.device) for part in (self.means.flatten(1), self.stds, self.weights))
        v = alpha**2 * s**2 + sigma**2  # (B, K)

        # ‖x − αμ‖² without a (B, K, D) tensor; in float64 the cancellation is harmless.
        square = (y**2).sum(-1, keepdim=True) - 2 * alpha * (y @ mu.T) + alpha**2 * (mu**2).sum(-1)
        log_p = weights.log() - 0.5 * (square / v + y.shape[-1] * v.log())
        if labels is not None:
            self._check_labels(labels)
            other = (labels.to(x.device)[:, None] >= 0) & (labels.to(x.device)[:, None] != self.labels.to(x.device))
            log_p = log_p.masked_fill(other, -torch.inf)
        r = log_p.softmax(-1)

        # Both sums of the docstring are affine in y and in a weighted mean of the μ_k.
        epsilon = sigma * ((r / v).sum(-1, keepdim=True) * y - alpha * ((r / v) @ mu))
        x0 = (r * alpha * s**2 / v).sum(-1, keepdim=True) * y + (r * sigma**2 / v) @ mu
        e = {"epsilon": epsilon, "x0": x0, "v": alpha * epsilon - sigma * x0, "flow": epsilon - x0}[prediction]
        return e.to(x.dtype).reshape(x.shape)

    def _check_labels(self, labels: Tensor) -> None:
        # On the host only: elsewhere the look would wait for the device.
        if labels.device.type == "cpu" and not torch.isin(labels[labels >= 0], self.labels.cpu()).all():
            raise ValueError(f"labels must be classes of the mixture, or negative, got {labels.tolist()}")

    def predictor(self, solver: Solver) -> Callable[[Tensor, Tensor, Any], Tensor]:
        """`eps_fn(x, t, cond)` on the grid of `solver`, predicting what it wants; `cond` is `labels` of `predict`.

        Raises:
            ValueError: for a grid on which two knots share a time.
        """

        solver.check_times("GaussianMixture.predictor")

        def eps_fn(x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
            alpha, sigma = solver.alpha_sigma(t, wide(x.device))
            return self.predict(x, alpha, sigma, cond, solver.prediction)

        return made_for(eps_fn, solver.prediction, solver)

    def sample(self, n: int, label: int | None = None, generator: torch.Generator | None = None) -> Tensor:
        """`n` samples of the data, `(n, …)` in the dtype of `means`, of one class if a `label` is given.

        Raises:
            ValueError: if no component has that label.
        """
        weights = self.weights if label is None else self.weights * (self.labels == label)
        if not (weights > 0).any():
            raise ValueError(f"no component has label {label}")
        k = torch.multinomial(weights, n, replacement=True, generator=generator)
        z = torch.randn(n, *self.means.shape[1:], dtype=self.means.dtype, generator=generator, device=self.means.device)
        return self.means[k] + self.stds[k].reshape(-1, *[1] * (z.ndim - 1)) * z
