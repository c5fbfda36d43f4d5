"""Adams–Bashforth in noise form: DEIS, linear multistep (LMS) and PLMS, on predictions of ε, v, x₀ or the flow."""

from __future__ import annotations

import math
from typing import Any, Literal, TypeVar, get_args

from torch import Tensor

from zigzag.solvers.affine import AffineStep, combine
from zigzag.solvers.grids import Grid, Prediction, check_prediction, grid, model_times
from zigzag.solvers.predictions import epsilon_form, first_order
from zigzag.solvers.solver import Solver

__all__ = ["AdamsBashforth", "Weights"]

Weights = Literal["exponential", "lagrange", "uniform"]
S = TypeVar("S", bound="AdamsBashforth")

# The classical coefficients, exact for polynomials on evenly spaced nodes, by order.
UNIFORM = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


class AdamsBashforth(Solver):
    r"""Adams–Bashforth of order 1 to 4 on the noise `ε`: with `k = σ/α`, the ODE is `d(x/α) = ε dk`.

    .. math:: \frac{x_j}{\alpha_j} = \frac{x_i}{\alpha_i} + \sum_n w_n\,\varepsilon_n,
              \qquad w_n = \int_{k_i}^{k_j} \ell_n\,dk

    `ε_0` is that of the prediction at `i`, the others are remembered. `ℓ_n` is the polynomial that is 1 at knot `n` and
    0 at the others:

    - "exponential": in `log k` (DEIS, tAB with log-ρ);
    - "lagrange": in `k` (linear multistep, LMS);
    - "uniform": as if the knots were evenly spaced, the classical coefficients (PLMS, IPNDM).

    With `ε = s·x + r·e`: `a = α_j/α_i + α_j·w_0·s`, `b = α_j·w_0·r`. Order 1 is `DDIM`.

    Args:
        alphas, sigmas: `(T + 1,)` from noise to data. times: `(T,)`, what the model is told at knot `i < T`.
        prediction: what the model predicts: "epsilon", "x0", "v" or "flow".
        order: 1 to 4: one more than the earlier predictions that a step reads.
        weights: how they are weighed.
        lower_order_final: take the last step at order 1, the one before it at order 2 at most, and so on. By default
            False: as diffusers' LMS and IPNDM. (Its DEIS does so where the grid has fewer than 15 steps.)

    Where the path has not left the memory that a step wants, its lower order is used. A knot of pure noise (`α = 0`,
    `k = ∞`) is never read by the first two: no polynomial goes through it.

    Raises:
        ValueError, TypeError: for an order or weights that there are not, and for grids as in `DDIM`.

    Source: Zhang & Chen 2022 (DEIS), eq. 15 and Appendix; Liu et al. 2022 (PNDM), eq. 12; Katherine Crowson's
    k-diffusion (LMS).
    """

    def __init__(
        self,
        alphas: Grid,
        sigmas: Grid,
        times: Grid,
        *,
        prediction: Prediction = "epsilon",
        order: int = 2,
        weights: Weights = "exponential",
        lower_order_final: bool = False,
    ) -> None:
        if not isinstance(order, int) or order not in (1, 2, 3, 4):
            raise ValueError(f"order must be 1, 2, 3 or 4, got {order!r}")
        if weights not in get_args(Weights):
            raise ValueError(f"weights must be one of {', '.join(get_args(Weights))}, got {weights!r}")
        self.prediction = check_prediction("prediction", prediction)
        super().__init__(grid("alphas", alphas), grid("sigmas", sigmas), model_times(times))
        self.order, self.weights, self.lower_order_final = order, weights, lower_order_final
        self.memory = order - 1

    @classmethod
    def on(cls: type[S], other: Solver, **options: Any) -> S:
        """This solver on the knots, times and prediction of another."""
        return cls(other.alphas, other.sigmas, other.times, prediction=other.prediction, **options)

    def __repr__(self) -> str:
        return f"AdamsBashforth(T={len(self)}, prediction={self.prediction!r}, order={self.order}, {self.weights!r})"

    def coefficients(self, i: int, j: int, remembered: tuple[int, ...]) -> AffineStep:
        """The step at the order that what is remembered, and the grid's end, allow."""
        alphas, sigmas, _ = self.knots
        if self.lower_order_final:
            remembered = remembered[: len(self) - j]
        if self.weights != "uniform":
            remembered = tuple(n for n in remembered if alphas[n] > 0)
        if not remembered:
            return first_order(self.prediction, alphas[i], sigmas[i], alphas[j], sigmas[j])
        nodes = [sigmas[n] / alphas[n] if alphas[n] else math.inf for n in (i, *remembered)]
        w_0, *w = self._weights(nodes, sigmas[j] / alphas[j])
        s, r = epsilon_form(self.prediction, alphas[i], sigmas[i])
        a = alphas[j] / alphas[i] + alphas[j] * w_0 * s
        return AffineStep(a, alphas[j] * w_0 * r, tuple(alphas[j] * w_n for w_n in w))

    def remember(self, i: int, x: Tensor, e: Tensor) -> Tensor:
        """`ε = s·x + r·e`."""
        alphas, sigmas, _ = self.knots
        s, r = epsilon_form(self.prediction, alphas[i], sigmas[i])
        return e if (s, r) == (0, 1) else combine(s, x, r, e)

    def _weights(self, nodes: list[float], end: float) -> list[float]:
        """`w_n = ∫ ℓ_n dk` from the first of the nodes (the latest) to `end`."""
        if self.weights == "uniform":
            return [w * (end - nodes[0]) for w in UNIFORM[len(nodes) - 1]]
        # In units of the latest node: u = k/k_i − 1 or log(k/k_i), both 0 there.
        powers = len(nodes)
        if self.weights == "lagrange":
            us = [k / nodes[0] - 1 for k in nodes]
            to = end / nodes[0] - 1
            integrals = [to ** (p + 1) / (p + 1) for p in range(powers)]  # ∫ u^p du
        else:
            us = [math.log(k / nodes[0]) for k in nodes]
            integrals = _log_integrals(end / nodes[0], powers)
        return [
            nodes[0] * sum(c * integral for c, integral in zip(_lagrange(us, n), integrals, strict=True))
            for n in range(powers)
        ]


def _lagrange(us: list[float], n: int) -> list[float]:
    """The coefficients, lowest power first, of the polynomial that is 1 at `us[n]` and 0 at the others."""
    poly = [1.0]
    for m, u in enumerate(us):
        if m != n:
            scale = us[n] - u
            shifted, kept = [0.0, *poly], [*(c * -u for c in poly), 0.0]
            poly = [(x + y) / scale for x, y in zip(shifted, kept, strict=True)]
    return poly


def _log_integrals(ratio: float, powers: int) -> list[float]:
    r"""`I_p = ∫_1^ratio (log k)^p dk`, by parts: `I_p = k·(log k)^p − p·I_{p−1}`; at k = 0 the first term is 0.

    Over a short interval the two terms cancel, so that the series `∫_0^L u^p e^u du = Σ_m L^{p+1+m}/(m!·(p + 1 + m))`
    stands in their place.
    """
    log = math.log(ratio) if ratio > 0 else 0.0
    if ratio > 0 and abs(log) < 1:
        return [
            sum(log ** (n + 1) / (math.factorial(n - p) * (n + 1)) for n in range(p, p + 20)) for p in range(powers)
        ]
    integrals = [ratio - 1]
    for p in range(1, powers):
        integrals.append(ratio * log**p - p * integrals[-1])
    return integrals
