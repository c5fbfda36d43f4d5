"""What a model predicts, and how to say the same in another parametrisation."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from zigzag.solvers.affine import AffineStep, state_dtype
from zigzag.solvers.grids import Coefficient, Prediction, Said, check_prediction, check_said

if TYPE_CHECKING:
    from zigzag.solvers.solver import Solver

__all__ = [
    "MadeFor",
    "adapt_prediction",
    "conversion",
    "convert",
    "epsilon_form",
    "first_order",
    "form",
    "level_after",
    "made_for",
    "pair_form",
    "x0_form",
]

T = TypeVar("T", bound=Callable[..., Tensor])


class MadeFor(NamedTuple):
    """What a predictor knows of the solver that it can be sampled with: an attribute `made_for` of it.

    `walk` holds the solver against it; a predictor without one is taken as it is.

    Attributes:
        prediction: what it predicts. grid: the solver whose times it understands, and the levels that it takes them
            for; None where any time will do.
    """

    prediction: Prediction
    grid: Solver | None = None


def made_for(fn: T, prediction: Prediction, grid: Solver | None = None) -> T:
    """The same predictor, with what it was made for as its attribute `made_for`."""
    fn.made_for = MadeFor(prediction, grid)  # type: ignore[attr-defined]
    return fn


def made_for_of(fn: object) -> MadeFor | None:
    """What a predictor, or the object that it is a method of, says that it was made for."""
    made = getattr(fn, "made_for", None) or getattr(getattr(fn, "__self__", None), "made_for", None)
    return made if isinstance(made, MadeFor) else None


def epsilon_form(kind: Prediction, alpha: Coefficient, sigma: Coefficient) -> tuple[Coefficient, Coefficient]:
    """`(s, r)` with `ε = s·x + r·e` for a prediction `e` of that kind. Singular for "x0" at σ = 0."""
    match kind:
        case "epsilon":
            return 0.0, 1.0
        case "x0":
            return 1 / sigma, -alpha / sigma
        case "v":
            norm = alpha**2 + sigma**2
            return sigma / norm, alpha / norm
        case "flow":
            total = alpha + sigma
            return 1 / total, alpha / total


def x0_form(kind: Prediction, alpha: Coefficient, sigma: Coefficient) -> tuple[Coefficient, Coefficient]:
    """`(p, q)` with `x₀ = p·x + q·e` for a prediction `e` of that kind. Singular for "epsilon" at α = 0."""
    match kind:
        case "epsilon":
            return 1 / alpha, -sigma / alpha
        case "x0":
            return 0.0, 1.0
        case "v":
            norm = alpha**2 + sigma**2
            return alpha / norm, -sigma / norm
        case "flow":
            total = alpha + sigma
            return 1 / total, -sigma / total


def first_order(kind: Prediction, alpha_i: float, sigma_i: float, alpha_j: float, sigma_j: float) -> AffineStep:
    """The first-order step between two levels (`DDIM`), for a prediction of that kind.

    `a` is infinite where it says nothing of x₀ (ε at `α_i = 0`). Raises ValueError for an unknown prediction.
    """
    check_prediction("kind", kind)
    if kind == "epsilon":
        if alpha_i == 0:
            return AffineStep(math.inf, math.nan)
        a = alpha_j / alpha_i
        return AffineStep(a, sigma_j - a * sigma_i)
    if kind == "flow" and alpha_i + sigma_i == alpha_j + sigma_j == 1:
        return AffineStep(1.0, sigma_j - sigma_i)
    p, q = map(float, x0_form(kind, alpha_i, sigma_i))
    P = sigma_j / sigma_i
    Q = alpha_j - P * alpha_i
    return AffineStep(P + Q * p, Q * q)


def pair_form(kind: Prediction, alpha: float, sigma: float) -> tuple[float, float]:
    """`(u, v)` with which `u·x₀ + v·ε` is the true prediction of that kind at `α·x₀ + σ·ε`."""
    match kind:
        case "epsilon":
            return 0.0, 1.0
        case "x0":
            return 1.0, 0.0
        case "v":
            return -sigma, alpha
        case "flow":
            return -1.0, 1.0


def level_after(step: AffineStep, kind: Prediction, alpha: float, sigma: float) -> tuple[float, float]:
    """`(α, σ)` of the state that a step leads to from `(α, σ)`, where the prediction of that kind is the true one."""
    u, v = pair_form(kind, alpha, sigma)
    a, b = float(step.a), float(step.b)
    return a * alpha + b * u, a * sigma + b * v


def convert(x: Tensor, e: Tensor, alpha: Coefficient, sigma: Coefficient, source: Said, target: Said) -> Tensor:
    r"""The prediction `e` of kind `source` at the state `x`, said as kind `target`.

    With `x = α·x₀ + σ·ε` (nothing asks that α² + σ² = 1 or α + σ = 1):

    .. math::
        v = \alpha\,\varepsilon - \sigma\,x_0, \qquad u = \varepsilon - x_0 \;\text{("flow")}, \qquad
        -u \;\text{("flow\_to\_data")}, \qquad \nabla\log p = -\varepsilon/\sigma \;\text{("score")}

    Args:
        x, e: `(B, …)`.
        alpha, sigma: numbers or tensors `()` or `(B,)`. The coefficients of `x` and `e` are computed in their dtype
            (numbers in float64) and cast to `x.dtype`.
        source, target: "epsilon", "x0", "v", "flow", "flow_to_data" (that of models whose time 1 is data) or "score".

    Singular from "epsilon" and "score" at α = 0 (pure noise holds nothing of x₀), from "x0" at σ = 0 (data holds
    nothing of ε), and to "score" at σ = 0: what comes out there is not finite.

    Raises:
        ValueError: for an unknown prediction.

    Source: Salimans & Ho 2022, Appendix D (v); Lipman et al. 2023 (flow); Song et al. 2021 (score).
    """
    check_said("source", source)
    check_said("target", target)
    if source == target:
        return e
    if isinstance(alpha, Tensor) or isinstance(sigma, Tensor):
        return AffineStep(*conversion(alpha, sigma, source, target)).forward(x, e)
    return AffineStep(*form(alpha, sigma, source, target)).forward(x, e)


@lru_cache(maxsize=4096)
def form(alpha: float, sigma: float, source: Said, target: Said) -> tuple[float, float]:
    """`conversion` of numbers, on the host, where a division by zero is infinite as it is for tensors."""
    on_host = [torch.tensor(k, dtype=torch.float64, device="cpu") for k in (alpha, sigma)]
    a, b = conversion(on_host[0], on_host[1], source, target)
    return float(a), float(b)


def conversion(alpha: Coefficient, sigma: Coefficient, source: Said, target: Said) -> tuple[Coefficient, Coefficient]:
    """`(a, b)` with which `a·x + b·e` says a prediction `e` of kind `source` as kind `target`."""
    (given, k), (wanted, n) = _multiple(source, sigma), _multiple(target, sigma)
    if given == wanted:
        return 0.0, k / n
    a, b = _conversion(alpha, sigma, given, wanted)
    return a / n, b * k / n


def _multiple(kind: Said, sigma: Coefficient) -> tuple[Prediction, Coefficient]:
    """The prediction of a solver that a kind is a multiple of, and the factor that makes this of it."""
    match kind:
        case "score":
            return "epsilon", -sigma
        case "flow_to_data":
            return "flow", -1.0
    return kind, 1.0


def _conversion(
    alpha: Coefficient, sigma: Coefficient, source: Prediction, target: Prediction
) -> tuple[Coefficient, Coefficient]:
    forms = (epsilon_form(source, alpha, sigma), x0_form(source, alpha, sigma))
    targets: dict[str, tuple[Coefficient, Coefficient]] = {
        "epsilon": (1.0, 0.0),
        "x0": (0.0, 1.0),
        "v": (alpha, -sigma),
        "flow": (1.0, -1.0),
    }
    p, q = targets[target]
    a, b = (p * in_epsilon + q * in_x0 for in_epsilon, in_x0 in zip(*forms, strict=True))
    return a, b


def adapt_prediction(
    fn: Callable[[Tensor, Tensor, Any], Tensor], solver: Solver, source: Said
) -> Callable[[Tensor, Tensor, Any], Tensor]:
    """A predictor of what `solver` wants, from one that predicts `source` on the same grid of (α, σ).

    It returns at least float32, whatever the model's precision: guidance would multiply a rounding made here.

    The Shift of Z²-Sampling depends on the parametrisation: the solver's own prediction is the anchor. A v-model
    adapted to `DDIM` and the same model under `Spherical` agree under `Standard`, and differ under `Z2Sampling`.

    Args:
        fn: `fn(x, t, cond)`, the model. solver: on whose grid it is sampled; it tells the model `solver.times`.
        source: what the model predicts, as in `convert`. A score model is "score", with `DDIM` on `vp_grid` or
            `ve_grid`; a flow whose time 1 is data is "flow_to_data", with `FlowEuler.uniform(steps, rising=True)`.

    Raises:
        ValueError: for an unknown `source`, for one that is singular at a knot that the model is evaluated at, and for
            a grid on which two knots share a time, where the conversion depends on the knot: the time then does not
            tell which α and σ are meant.
    """
    check_said("source", source)
    given, target = _multiple(source, 1.0)[0], solver.prediction
    if given == "epsilon" != target and (solver.alphas[:-1] == 0).any():
        knot = int((solver.alphas[:-1] == 0).nonzero()[0])
        raise ValueError(f"source={source!r} says nothing of {target!r} at knot {knot} of {solver!r}")
    # By what the state and the prediction are multiplied at each knot.
    columns = [
        torch.as_tensor(k, dtype=torch.float64, device="cpu").expand(len(solver))
        for k in conversion(solver.alphas[:-1], solver.sigmas[:-1], source, target)
    ]
    everywhere = given == target and source != "score"
    if not everywhere:
        solver.check_times("adapt_prediction")
    sign = float(columns[1][0])

    def predict(x: Tensor, t: Tensor, cond: Any) -> Tensor:
        e, state = fn(x, t, cond), state_dtype(x.dtype)
        if everywhere:
            return e.to(state) if sign == 1 else sign * e.to(state)
        a, b = solver.at_times(t, f"{source} as {target}", lambda: tuple(columns), state)
        return AffineStep(a, b).forward(x.to(state), e.to(state))

    return made_for(predict, target, None if everywhere else solver)
