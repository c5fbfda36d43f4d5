"""What a model predicts, and how to say the same in another parametrisation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor

from zigzag.solvers.affine import AffineStep, Coefficient, Prediction, state_dtype

if TYPE_CHECKING:
    from zigzag.solvers.affine import Solver

__all__ = ["adapt_prediction", "convert"]


def convert(
    x: Tensor, e: Tensor, alpha: Coefficient, sigma: Coefficient, source: Prediction, target: Prediction
) -> Tensor:
    r"""The prediction `e` of kind `source` at the state `x`, said as kind `target`.

    With `x = α·x₀ + σ·ε` (nothing asks that α² + σ² = 1 or α + σ = 1):

    .. math::
        v = \alpha\,\varepsilon - \sigma\,x_0, \qquad u = \varepsilon - x_0 \;\text{("flow")}

    Args:
        x, e: `(B, …)`.
        alpha, sigma: numbers or tensors `()` or `(B,)`. The coefficients of `x` and `e` are computed in their dtype
            (numbers in float64) and cast to `x.dtype`.
        source, target: "epsilon", "x0", "v" or "flow".

    Singular from "epsilon" at α = 0 (pure noise holds nothing of x₀) and from "x0" at σ = 0 (data holds nothing of ε).

    Raises:
        ValueError: for an unknown prediction.

    Source: Salimans & Ho 2022, Appendix D (v); Lipman et al. 2023 (flow).
    """
    for name, kind in (("source", source), ("target", target)):
        if kind not in get_args(Prediction):
            raise ValueError(f"{name} must be one of {', '.join(get_args(Prediction))}, got {kind!r}")
    if source == target:
        return e
    alpha, sigma = (k if isinstance(k, Tensor) else x.new_tensor(k, dtype=torch.float64) for k in (alpha, sigma))
    zero, one = torch.zeros_like(alpha), torch.ones_like(alpha)
    # ε and x₀ as (coefficient of x, coefficient of e)
    if source == "epsilon":
        epsilon, x0 = (zero, one), (1 / alpha, -sigma / alpha)
    elif source == "x0":
        epsilon, x0 = (1 / sigma, -alpha / sigma), (zero, one)
    elif source == "v":
        norm = alpha**2 + sigma**2
        epsilon, x0 = (sigma / norm, alpha / norm), (alpha / norm, -sigma / norm)
    else:
        total = alpha + sigma
        epsilon, x0 = (1 / total, alpha / total), (1 / total, -sigma / total)
    p, q = {"epsilon": (one, zero), "x0": (zero, one), "v": (alpha, -sigma), "flow": (one, -one)}[target]
    return AffineStep(*(p * in_epsilon + q * in_x0 for in_epsilon, in_x0 in zip(epsilon, x0, strict=True))).forward(
        x, e
    )


def adapt_prediction(
    fn: Callable[[Tensor, Tensor, Any], Tensor], solver: Solver, source: Prediction
) -> Callable[[Tensor, Tensor, Any], Tensor]:
    """A predictor of what `solver` wants, from one that predicts `source` on the same grid of (α, σ).

    It returns at least float32, whatever the model's precision: guidance would multiply a rounding made here.

    The Shift of Z²-Sampling depends on the parametrisation: the solver's own prediction is the anchor. A v-model
    adapted to `DDIM` and the same model under `Spherical` agree under `Standard`, and differ under `Z2Sampling`.

    Raises:
        ValueError: for an unknown `source`, and for one that is singular at a knot that the model is evaluated at.
    """
    if source not in get_args(Prediction):
        raise ValueError(f"source must be one of {', '.join(get_args(Prediction))}, got {source!r}")
    singular = {"epsilon": solver.alphas[:-1] == 0, "x0": solver.sigmas[:-1] == 0}.get(source)
    if source != solver.prediction and singular is not None and singular.any():
        knot = int(singular.nonzero()[0])
        raise ValueError(f"source={source!r} says nothing of {solver.prediction!r} at knot {knot} of {solver!r}")

    def predict(x: Tensor, t: Tensor, cond: Any) -> Tensor:
        alpha, sigma = solver.alpha_sigma(t)
        e, state = fn(x, t, cond), state_dtype(x.dtype)
        return convert(x.to(state), e.to(state), alpha, sigma, source, solver.prediction)

    return predict
