"""O-BELM: a two-step scheme of second order, which asks the model once a step and is solved for either end."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor

from zigzag.guided import Asking
from zigzag.inversion.scheme import Pair, Reversible, Run, need_one_step
from zigzag.solvers import AffineStep, Solver
from zigzag.solvers.grids import Prediction
from zigzag.solvers.predictions import first_order

__all__ = ["OBELM"]


@dataclass(frozen=True)
class OBELM(Reversible):
    r"""Bidirectional explicit linear multistep of the smallest local error: one evaluation a step, order 2.

    With `Φ⁺` and `Φ⁻` the first-order steps of one prediction `e(x_i, t_i)`, down to knot `i + 1` and up to `i − 1`:

    .. math:: x_{i+1} = \Phi^+ + A\,(x_{i-1} - \Phi^-), \qquad x_{i-1} = \Phi^- + (x_{i+1} - \Phi^+)/A

    What `Φ⁻` lacks of `x_{i−1}` is half of `g²` times a curvature of which `Φ⁺` lacks half of `h²` times. In the
    variables of the prediction, `d(x/c) = e dτ` with `h = τ_i − τ_{i+1}` and `g = τ_{i−1} − τ_i`,

    .. math:: A = \frac{h^2}{g^2}\,\frac{c_{i+1}}{c_{i-1}}, \qquad
              (\tau, c) = (\sigma/\alpha,\; \alpha)\text{ for ε},\quad
              (\sigma/(\alpha + \sigma),\; \alpha + \sigma)\text{ for flow and x₀}

    and for v, in angles, `A = (sin(h/2)/sin(g/2))²·c_{i+1}/c_{i−1}` with `(τ, c) = (φ, √(α² + σ²))`, exact on constant
    data and noise. On ε that is

    .. math:: \frac{x_{i+1}}{\alpha_{i+1}} = \frac{h^2}{g^2}\frac{x_{i-1}}{\alpha_{i-1}}
              + \Big(1 - \frac{h^2}{g^2}\Big)\frac{x_i}{\alpha_i} - \frac{h(h + g)}{g}\,\varepsilon(x_i, t_i)

    The pair is that of two neighbouring knots. The way down begins with a first-order step, the way up with one
    undone by the prediction at the data. It takes the grid, times and prediction of a first-order solver, on every
    prediction, and never asks at the last knot. Rounding grows by `(max h/min h)²`: `(h_first/h_last)²` where the
    steps become smaller toward the data.

    Source: Wang et al. 2024 (BELM), the O-BELM sampler, for ε; as a step down corrected by one up,
    Zhang et al. 2023 (BDIA); the other predictions by their own variables.
    """

    first: ClassVar[int] = 1

    def check(self, solver: Solver) -> None:
        """Raises ValueError unless the solver is of first order, deterministic and invertible."""
        need_one_step(self, solver)
        alphas, sigmas, _ = solver.knots
        for i in range(len(solver)):
            own = solver.step(i)
            plain = first_order(solver.prediction, alphas[i], sigmas[i], alphas[i + 1], sigmas[i + 1])
            if not all(
                math.isclose(float(p), float(q), rel_tol=1e-6, abs_tol=1e-9)
                for p, q in ((own.a, plain.a), (own.b, plain.b))
            ):
                raise ValueError(
                    f"OBELM is a solver of its own, on the grid of a first-order one; the step {i} -> {i + 1} of "
                    f"{solver!r} is another: take DDIM, FlowEuler or Spherical"
                )

    def growth(self, solver: Solver) -> float:
        """`(max h/min h)²`."""
        kind, (alphas, sigmas, _) = solver.prediction, solver.knots
        taus = [_variables(kind, alpha, sigma)[0] for alpha, sigma in zip(alphas, sigmas, strict=True)]
        h = [_measure(kind, tau_i - tau_j) for tau_i, tau_j in pairwise(taus)]
        return (max(h) / min(h)) ** 2

    def enter(self, run: Run, x: Tensor) -> Asking[Pair]:
        """`(x_T, x_{T−1})`, the second by the step undone with the prediction at `x_T`."""
        last = len(run.solver) - 1
        return x, run.step(last).inverse(x, (yield from run.predict(x, last)))

    def start(self, run: Run, x: Tensor) -> Asking[Pair]:
        """`(x_1, x_0)`, the first by the first-order step."""
        return run.step(0).forward(x, (yield from run.predict(x, 0))), x

    def noise_first(self, x: Tensor, y: Tensor) -> Pair:
        """`(x_0, x_1)` of `(x_1, x_0)`, and back."""
        return y, x

    def forward(self, run: Run, i: int, x: Tensor, y: Tensor) -> Asking[Pair]:
        """`(x_{i+1}, x_i)` of `(x_i, x_{i−1})`."""
        down, up, A = _coefficients(run.solver, i)
        e = yield from run.predict(x, i)
        return down.forward(x, e) + A * (y - up.forward(x, e)), x

    def inverse(self, run: Run, i: int, x: Tensor, y: Tensor) -> Asking[Pair]:
        """`(x_i, x_{i−1})` of `(x_{i+1}, x_i)`."""
        down, up, A = _coefficients(run.solver, i)
        e = yield from run.predict(y, i)
        return y, up.forward(y, e) + (x - down.forward(y, e)) / A


def _coefficients(solver: Solver, i: int) -> tuple[AffineStep, AffineStep, float]:
    """`Φ⁺`, `Φ⁻` and `A` at knot `i`."""
    kind, (alphas, sigmas, _) = solver.prediction, solver.knots
    up = first_order(kind, alphas[i], sigmas[i], alphas[i - 1], sigmas[i - 1])
    (tau_before, c_before), (tau, _), (tau_after, c_after) = (
        _variables(kind, alphas[n], sigmas[n]) for n in (i - 1, i, i + 1)
    )
    h, g = _measure(kind, tau - tau_after), _measure(kind, tau_before - tau)
    return solver.step(i), up, (h / g) ** 2 * c_after / c_before


def _variables(kind: Prediction, alpha: float, sigma: float) -> tuple[float, float]:
    """`(τ, c)` at a level, with `d(x/c) = e dτ` for the prediction `e`; for x₀ those of the flow."""
    match kind:
        case "epsilon":
            return sigma / alpha, alpha
        case "v":
            return math.atan2(sigma, alpha), math.hypot(alpha, sigma)
        case "x0" | "flow":
            return sigma / (alpha + sigma), alpha + sigma


def _measure(kind: Prediction, h: float) -> float:
    return math.sin(h / 2) if kind == "v" else h
