"""Multistep and stochastic solvers in data form: DPM-Solver++, its SDE, on predictions of ε, v, x₀ or the flow."""

from __future__ import annotations

import math
from abc import abstractmethod
from itertools import pairwise
from typing import Any, Literal, NamedTuple, TypeVar

from torch import Tensor

from zigzag.solvers.affine import AffineStep, combine
from zigzag.solvers.grids import Grid, Prediction, check_prediction, grid, model_times
from zigzag.solvers.predictions import x0_form
from zigzag.solvers.solver import Solver

__all__ = ["DPMSolver", "DataForm", "DataStep"]

S = TypeVar("S", bound="DataForm")


class DataStep(NamedTuple):
    r"""A step said of x₀: `x_j = P·x_i + Q·m_i + Σ memory_k·m_k + noise·z`, with `m` the x₀ that a prediction says."""

    P: float
    Q: float
    memory: tuple[float, ...] = ()
    noise: float = 0.0


class DataForm(Solver):
    r"""A solver that is written on `m`, the x₀ that the prediction says, whatever the model predicts.

    .. math:: x_j = P\,x_i + Q\,m_i + \sum_k Q_k\,m_k + n\,z, \qquad m = p\,x + q\,e
              \quad\Rightarrow\quad a = P + Q\,p, \quad b = Q\,q

    `(p, q)` is `(1/α, −σ/α)` for ε, `(0, 1)` for x₀, `(α, −σ)/(α² + σ²)` for v, `(1, −σ)/(α + σ)` for a flow. What is
    remembered is `m`.

    Args:
        alphas, sigmas: `(T + 1,)` from noise to data.
        times: `(T,)`, what the model is told at knot `i < T`; integers stay integers.
        prediction: what the model predicts: "epsilon", "x0", "v" or "flow".

    Raises:
        ValueError, TypeError: for grids as in `DDIM`, and an unknown prediction.
    """

    def __init__(self, alphas: Grid, sigmas: Grid, times: Grid, *, prediction: Prediction = "epsilon") -> None:
        self.prediction = check_prediction("prediction", prediction)
        super().__init__(grid("alphas", alphas), grid("sigmas", sigmas), model_times(times))

    @classmethod
    def on(cls: type[S], other: Solver, **options: Any) -> S:
        """This solver on the knots, times and prediction of another: `DPMSolver.on(FlowEuler.uniform(20), order=2)`."""
        return cls(other.alphas, other.sigmas, other.times, prediction=other.prediction, **options)

    @abstractmethod
    def data_step(self, i: int, j: int, remembered: tuple[int, ...]) -> DataStep:
        """The step `i → j` said of x₀; `remembered` as in `coefficients`."""

    def coefficients(self, i: int, j: int, remembered: tuple[int, ...]) -> AffineStep:
        """`a = P + Q·p`, `b = Q·q`; `a` is infinite where ε says nothing of x₀ (`α_i = 0`)."""
        alphas, sigmas, _ = self.knots
        if alphas[i] == 0 and self.prediction == "epsilon":
            return AffineStep(math.inf, math.nan)
        P, Q, memory, noise = self.data_step(i, j, remembered)
        p, q = x0_form(self.prediction, alphas[i], sigmas[i])
        return AffineStep(P + Q * p, Q * q, memory, noise)

    def remember(self, i: int, x: Tensor, e: Tensor) -> Tensor:
        """`m = p·x + q·e`, the x₀ that the prediction says."""
        alphas, sigmas, _ = self.knots
        p, q = x0_form(self.prediction, alphas[i], sigmas[i])
        return e if (p, q) == (0, 1) else combine(p, x, q, e)


class DPMSolver(DataForm):
    r"""DPM-Solver++ of order 1, 2 or 3, multistep, and its SDE.

    With `λ = log(α/σ)`, `h = λ_j − λ_i`, `h_0 = λ_i − λ_{i−1}`, `h_1 = λ_{i−1} − λ_{i−2}`, `r_k = h_k/h` and
    `m_0, m_1, m_2` the x₀ predictions at `i, i − 1, i − 2`:

    .. math::
        D_1 = (m_0 - m_1)/r_0, \qquad
        \text{order 3: } D_{1}' = (m_1 - m_2)/r_1,\;
        D_1 \leftarrow D_1 + \tfrac{r_0}{r_0 + r_1}(D_1 - D_1'),\; D_2 = 2\,(D_1 - D_1')/(r_0 + r_1)

    .. math::
        x_j = \frac{\sigma_j}{\sigma_i}x_i + \alpha_j(1 - e^{-h})\,m_0
              + \alpha_j\varphi_1 D_1 - \alpha_j\varphi_2 D_2

    (`D_2` with the first `D_1`), where `φ₁ = (1 − e^{−h})/2` ("midpoint") or `(e^{−h} − 1)/h + 1` ("heun", and at order
    3), `φ₂ = (e^{−h} − 1 + h)/h² − 1/2`. With `sde`, `H = 2h` stands in the place of `h` there, and noise is added:

    .. math::
        x_j = \frac{\sigma_j}{\sigma_i}e^{-h}x_i + \alpha_j(1 - e^{-2h})\,m_0 + \dots + \sigma_j\sqrt{1 - e^{-2h}}\,z

    Order 1 is `DDIM`; with `sde` it is DDIM with η = 1.

    Args:
        alphas, sigmas, times, prediction: as in `DataForm`.
        order: 1, 2 or 3: one more than the earlier predictions that a step reads.
        sde: the SDE solver, which holds the noise of each interval.
        form: of the second-order term, "midpoint" or "heun".
        lower_order_final: take the last step at order 1 and the one before it at order 2 at most. By default where the
            grid has fewer than 15 steps, as diffusers does.
        released: of order 3, take half of `D_2`, as all released code of DPM-Solver++ 3M does. Its error then falls
            with the square of the step only (`tests/solvers/test_order.py`): `D_2` stands for `h²·m''`, of which the
            difference quotient is a half.
        euler_at_final: take the last step at order 1 on any grid. A step onto clean data (`σ = 0`) always is.
        fresh_noise: as in `Solver`.

    Where the path has not left the memory that a step wants, its lower order is used.

    Raises:
        ValueError, TypeError: for an order or a form that there is not, and as in `DataForm`.

    Source: Lu et al. 2022 (DPM-Solver++), Algorithm 2 and Appendix; the third order as in its authors' code.
    """

    def __init__(
        self,
        alphas: Grid,
        sigmas: Grid,
        times: Grid,
        *,
        prediction: Prediction = "epsilon",
        order: int = 2,
        sde: bool = False,
        form: Literal["midpoint", "heun"] = "midpoint",
        lower_order_final: bool | None = None,
        euler_at_final: bool = False,
        released: bool = False,
        fresh_noise: bool = False,
    ) -> None:
        if not isinstance(order, int) or order not in (1, 2, 3):
            raise ValueError(f"order must be 1, 2 or 3, got {order!r}")
        if form not in ("midpoint", "heun"):
            raise ValueError(f"form must be 'midpoint' or 'heun', got {form!r}")
        if fresh_noise and not sde:
            raise ValueError("fresh_noise=True means nothing without sde=True: there is no noise")
        if released and order != 3:
            raise ValueError(f"released=True means something at order 3 only, got order {order}")
        super().__init__(alphas, sigmas, times, prediction=prediction)
        self.released = released
        self.order, self.sde, self.form, self.fresh_noise = order, sde, form, fresh_noise
        self.memory = order - 1
        self.euler_at_final = euler_at_final
        self.lower_order_final = len(self) < 15 if lower_order_final is None else lower_order_final

    def __repr__(self) -> str:
        sde = ", sde=True" if self.sde else ""
        return f"DPMSolver(T={len(self)}, prediction={self.prediction!r}, order={self.order}{sde})"

    def data_step(self, i: int, j: int, remembered: tuple[int, ...]) -> DataStep:
        """The step at the order that the grid's end and what is remembered allow."""
        alphas, sigmas, _ = self.knots
        remembered = remembered[: self._highest_order(j) - 1]
        decay = sigmas[j] * alphas[i] / (alphas[j] * sigmas[i])  # e^{−h}
        h = -math.log(decay) if decay > 0 else math.inf
        inner = decay**2 if self.sde else decay  # e^{−H}
        H = 2 * h if self.sde else h
        P = sigmas[j] / sigmas[i] * (decay if self.sde else 1)
        noise = sigmas[j] * math.sqrt(1 - inner) if self.sde else 0.0
        weights = [1 - inner, 0.0, 0.0]  # of m_0, m_1, m_2, over α_j
        if remembered:
            midpoint = self.form == "midpoint" and len(remembered) == 1
            phi_1 = (1 - inner) / 2 if midpoint else 1 - (1 - inner) / H
            phi_2 = (inner - 1 + H) / H**2 - 0.5
            D_1, D_2 = self._differences(i, h, remembered)
            weights = [w + phi_1 * d_1 - phi_2 * d_2 for w, d_1, d_2 in zip(weights, D_1, D_2, strict=True)]
        Q, *memory = (alphas[j] * w for w in weights)
        return DataStep(P, Q, tuple(memory[: len(remembered)]), noise)

    def _highest_order(self, j: int) -> int:
        left = len(self) - j
        if self.knots[1][j] == 0 or (left == 0 and (self.euler_at_final or self.lower_order_final)):
            return 1
        return min(self.order, 2) if left == 1 and self.lower_order_final else self.order

    def _differences(self, i: int, h: float, remembered: tuple[int, ...]) -> tuple[list[float], list[float]]:
        """`D_1` and `D_2` as weights of `m_0, m_1, m_2`."""
        knots = (i, *remembered)
        r = [(self._lambda(a) - self._lambda(b)) / h for a, b in pairwise(knots)]
        D = [1 / r[0], -1 / r[0], 0.0]
        if len(r) == 1:
            return D, [0.0] * 3
        before = [0.0, 1 / r[1], -1 / r[1]]
        twice = 1 if self.released else 2
        turn = [d - d_before for d, d_before in zip(D, before, strict=True)]
        return [d + r[0] / (r[0] + r[1]) * t for d, t in zip(D, turn, strict=True)], [
            twice * t / (r[0] + r[1]) for t in turn
        ]

    def _lambda(self, i: int) -> float:
        alphas, sigmas, _ = self.knots
        return math.log(alphas[i] / sigmas[i]) if alphas[i] > 0 else -math.inf
