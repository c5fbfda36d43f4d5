"""Steps of two evaluations: Heun and DPM-Solver-2 (DPM2), on predictions of ε, v, x₀ or the flow."""

from __future__ import annotations

from typing import Any, TypeVar

import torch

from zigzag.solvers.affine import AffineStep, Inner
from zigzag.solvers.between import midway
from zigzag.solvers.ddim import DDIM
from zigzag.solvers.grids import Grid, Prediction, check_prediction, grid, host, model_times
from zigzag.solvers.predictions import epsilon_form, first_order
from zigzag.solvers.solver import SMALLEST_A, Solver

__all__ = ["DPM2", "Heun"]

S = TypeVar("S", bound="Heun")


class _TwoStage(Solver):
    r"""A step that asks the model twice: at `x_i`, and at the state `y` of a first-order step to an inner level `s`.

    With `k = σ/α` and a share `θ` of the second prediction, in ε:

    .. math:: y = A\,x_i + B\,e_1, \qquad
              \frac{x_j}{\alpha_j} = \frac{x_i}{\alpha_i} + (k_j - k_i)\big((1 - \theta)\,\varepsilon_1
              + \theta\,\varepsilon_2\big)

    With `ε = s·x + r·e` at each of the two states this is `a·x_i + b_1·e_1 + b_2·e_2`, and so the one step
    `a·x_i + b·e` with `b = b_1 + b_2` and `e = (b_1·e_1 + b_2·e_2)/b`. For a flow (`α + σ = 1`) it is the velocity
    that is averaged: `x_j = x_i + (σ_j − σ_i)·((1 − θ)·u_1 + θ·u_2)`. A step from pure
    noise (`α_i = 0`, where `k = ∞`) is `DDIM`'s, of one evaluation.

    A Denoise over it takes the rows of two evaluations. An Invert takes one, at the state it begins from, and undoes
    the whole step with it.
    """

    theta: float

    def _level(self, i: int, j: int) -> tuple[float, float, int] | None:
        """`(α, σ)` of the inner state, and which of `all_times` the model is told; None: the step is of first order."""
        raise NotImplementedError

    def _second(self, i: int, j: int) -> tuple[float, float, int] | None:
        level, (alphas, sigmas, _) = self._level(i, j), self.knots
        return level if self._is_flow or alphas[i] > SMALLEST_A * sigmas[i] else None

    def coefficients(self, i: int, j: int, remembered: tuple[int, ...]) -> AffineStep:
        """`a` and `b = b_1 + b_2` of the whole."""
        a, b_1, b_2 = self._whole(i, j)
        return AffineStep(a, b_1 + b_2)

    def inner(self, i: int, j: int) -> Inner | None:
        """The second evaluation."""
        level = self._second(i, j)
        if level is None:
            return None
        alphas, sigmas, _ = self.knots
        alpha, sigma, told = level
        _, b_1, b_2 = self._whole(i, j)
        first = first_order(self.prediction, alphas[i], sigmas[i], alpha, sigma)
        return Inner(first, told, b_2 / (b_1 + b_2))

    def _whole(self, i: int, j: int) -> tuple[float, float, float]:
        alphas, sigmas, _ = self.knots
        level = self._second(i, j)
        if level is None:
            step = first_order(self.prediction, alphas[i], sigmas[i], alphas[j], sigmas[j])
            return float(step.a), float(step.b), 0.0
        alpha, sigma, _ = level
        if self._is_flow:
            h = sigmas[j] - sigmas[i]
            return 1.0, (1 - self.theta) * h, self.theta * h
        first = first_order(self.prediction, alphas[i], sigmas[i], alpha, sigma)
        A, B = float(first.a), float(first.b)
        h = alphas[j] * (sigmas[j] / alphas[j] - sigmas[i] / alphas[i])
        s_1, r_1 = map(float, epsilon_form(self.prediction, alphas[i], sigmas[i]))
        s_2, r_2 = map(float, epsilon_form(self.prediction, alpha, sigma))
        one, two = (1 - self.theta) * h, self.theta * h
        return alphas[j] / alphas[i] + one * s_1 + two * s_2 * A, one * r_1 + two * s_2 * B, two * r_2

    @property
    def _is_flow(self) -> bool:
        return self.prediction == "flow" and bool(
            torch.allclose(self.alphas + self.sigmas, torch.ones_like(self.alphas))
        )


class Heun(_TwoStage):
    r"""Heun's method, the trapezoidal rule: `s = j`, `θ = 1/2`. The last knot is never asked at: that step is Euler's.

    Args:
        alphas, sigmas: `(T + 1,)` from noise to data. times: `(T,)`, what the model is told at knot `i < T`.
        prediction: what the model predicts: "epsilon", "x0", "v" or "flow".

    See `Spherical` and `DDIM` for the ODE, and the class above for `a`, `b`. `2T − 1` evaluations.

    Raises:
        ValueError, TypeError: for grids as in `DDIM`, and an unknown prediction.

    Source: Karras et al. 2022 (EDM), Algorithm 1.
    """

    theta = 0.5

    def __init__(self, alphas: Grid, sigmas: Grid, times: Grid, *, prediction: Prediction = "epsilon") -> None:
        self.prediction = check_prediction("prediction", prediction)
        super().__init__(grid("alphas", alphas), grid("sigmas", sigmas), model_times(times))

    @classmethod
    def on(cls: type[S], other: Solver, **options: Any) -> S:
        """This solver on the knots, times and prediction of another: `Heun.on(DDIM.karras(18))`."""
        return cls(other.alphas, other.sigmas, other.times, prediction=other.prediction, **options)

    def _level(self, i: int, j: int) -> tuple[float, float, int] | None:
        alphas, sigmas, _ = self.knots
        return (alphas[j], sigmas[j], j) if j < len(self) else None


class DPM2(_TwoStage):
    r"""DPM-Solver-2, the midpoint rule in `log k`: the second prediction alone (`θ = 1`), at a level between the knots.

    Args:
        alphas, sigmas: `(T + 1,)` from noise to data. times: `(T,)`, what the model is told at knot `i < T`.
        inner_alphas, inner_sigmas, inner_times: `(T − 1,)` or `(T,)`, the levels between knot `i` and `i + 1`, the
            geometric means of their `k`, and what the model is told there. A step onto clean data is Euler's.
        prediction: what the model predicts.

    It steps from knot to next knot only.

    Raises:
        ValueError, TypeError: for levels of another number, or that are not between their knots, for times that are
            not integers beside some that are; as `Heun`.

    Source: Lu et al. 2022 (DPM-Solver), Algorithm 1; Karras et al. 2022.
    """

    theta = 1.0

    def __init__(
        self,
        alphas: Grid,
        sigmas: Grid,
        times: Grid,
        inner_alphas: Grid,
        inner_sigmas: Grid,
        inner_times: Grid,
        *,
        prediction: Prediction = "epsilon",
    ) -> None:
        self.prediction = check_prediction("prediction", prediction)
        inner = [host(values, torch.float64).tolist() for values in (inner_alphas, inner_sigmas)]
        told, told_inside = model_times(times), model_times(inner_times)
        if told_inside.is_floating_point() and not told.is_floating_point():
            raise ValueError(
                "inner_times are not integers but times are; a model is told one kind: pass times as floats"
            )
        if not torch.isfinite(told_inside).all():
            raise ValueError(f"inner_times must be finite, got {told_inside.tolist()}")
        super().__init__(grid("alphas", alphas), grid("sigmas", sigmas), told, told_inside)
        if any(len(values) != len(self.inner_times) for values in inner) or len(self.inner_times) not in (
            len(self),
            len(self) - 1,
        ):
            raise ValueError(f"the inner levels and times must be {len(self) - 1} or {len(self)}, one a step")
        self._levels = list(zip(*inner, strict=True))
        outer = self.sigmas / self.alphas
        for i, (alpha, sigma) in enumerate(self._levels):
            if alpha <= 0 or not outer[i + 1] < sigma / alpha < outer[i]:
                raise ValueError(
                    f"the inner level {i}, {alpha:g}/{sigma:g}, does not lie between knots {i} and {i + 1}"
                )

    @classmethod
    def karras(cls, steps: int, *, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> DPM2:
        """On the grid of `DDIM.karras`, with the geometric means of σ between its knots; the model is told σ."""
        plain = DDIM.karras(steps, sigma_min=sigma_min, sigma_max=sigma_max, rho=rho)
        inner = (plain.sigmas[:-2] * plain.sigmas[1:-1]).sqrt()
        return cls(plain.alphas, plain.sigmas, plain.times, torch.ones_like(inner), inner, inner)

    @classmethod
    def on(cls, other: Solver) -> DPM2:
        """This solver on the knots, times and prediction of another, which tell the levels and times between them.

        The levels are the geometric means of k where the times follow the level (σ, σ/α, its logarithm or the angle:
        `DPM2.on(DDIM.karras(18))` is `DPM2.karras(18)`) or the schedule of `vp_grid` or `cosine_grid`, as those of
        `KDPM2DiscreteScheduler` are; from the pure noise of a flow the mean of σ. On a grid of a training table
        (`DDIM.stable_diffusion`), which a model is told by integers, they are the table's nearest.

        Raises:
            ValueError: where the grid does not tell them.
        """
        alphas, sigmas, told = midway(other, "DPM2.on")
        times = other.times.double() if told.is_floating_point() else other.times  # what is told is of one kind
        return cls(other.alphas, other.sigmas, times, alphas, sigmas, told, prediction=other.prediction)

    def _level(self, i: int, j: int) -> tuple[float, float, int] | None:
        if j != i + 1:
            raise ValueError(f"DPM2 has no step from knot {i} to {j}: its inner levels lie between neighbours")
        if i >= len(self._levels) or self.knots[1][j] == 0:
            return None
        return (*self._levels[i], len(self) + i)
