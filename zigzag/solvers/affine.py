"""The affine step that every first-order deterministic solver takes, and the grid of knots it is taken on."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

__all__ = [
    "AffineStep",
    "Coefficient",
    "Grid",
    "Prediction",
    "Solver",
    "StepInfo",
    "StepTable",
    "check_steps",
    "descending",
    "grid",
    "model_times",
    "per_sample",
    "state_dtype",
]

Coefficient: TypeAlias = "float | Tensor"
Prediction: TypeAlias = Literal["epsilon", "x0", "v", "flow"]
Grid: TypeAlias = "Tensor | Sequence[float]"

# Below this the way back multiplies rounding errors by 1e12 and more: there is no inverse worth the name.
SMALLEST_A = 1e-12


def per_sample(k: Coefficient, x: Tensor) -> Coefficient:
    """A coefficient as it meets the state: `(B,)` broadcast from the left, in the state's dtype."""
    if not isinstance(k, Tensor):
        return k
    return k.to(x.dtype).reshape(k.shape + (1,) * (x.ndim - k.ndim))


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that a state passed in `dtype` is carried in: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def _combine(p: Coefficient, x: Tensor, q: Coefficient, y: Tensor) -> Tensor:
    """`p·x + q·y`: for numbers in one pass over memory less than the formula as it stands."""
    if isinstance(p, Tensor) or isinstance(q, Tensor):
        return per_sample(p, x) * x + per_sample(q, x) * y
    return torch.add(x if p == 1 else p * x, y, alpha=q)


@dataclass(frozen=True, slots=True)
class AffineStep:
    r"""One solver step from knot `i` to knot `j`, and its exact algebraic inverse.

    .. math:: x_j = a\,x_i + b\,e, \qquad x_i = c\,x_j + d\,e, \qquad c = 1/a,\; d = -b/a

    Both directions share one pair of coefficients, so that the dualities of Z²-Sampling's Lemma 1,
    `a·c = 1`, `b·c + d = 0`, `a·d + b = 0`, hold by construction.

    Args:
        a, b: numbers, or tensors of shape `()` or `(B,)` (one step per sample), which are broadcast from the left
            and cast to the state's dtype before use.

    Singular where `a = 0`: then there is no inverse, and `c`, `d` are infinite (for numbers: `ZeroDivisionError`).
    Nothing is checked here; `Solver` and `walk` check.
    """

    a: Coefficient
    b: Coefficient

    @property
    def c(self) -> Coefficient:
        """`1 / a`."""
        return 1 / self.a

    @property
    def d(self) -> Coefficient:
        """`-b / a`."""
        return -self.b / self.a

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """Φ: `a·x + b·e`. `x`, `e` and the result are `(B, …)`."""
        return _combine(self.a, x, self.b, e)

    def inverse(self, x: Tensor, e: Tensor) -> Tensor:
        """Ψ: `c·x + d·e`, the exact inverse of `forward` for the same `e`."""
        return _combine(self.c, x, self.d, e)

    def shift(self, x: Tensor, gap: Tensor) -> Tensor:
        """`x − d·gap = x + (b/a)·gap`: Ψ under `e` after Φ under `e + gap` (Z²-Sampling, Theorem 1).

        `gap` is a difference of two predictions *of this solver*. The same model state gives another shift in
        another parametrisation, because `d` differs.
        """
        return _combine(1.0, x, -self.d, gap)


class StepInfo(NamedTuple):
    """What a guidance rule may know of a step `i → j`: host numbers, `t` being the time told to the model at `i`."""

    i: int
    j: int
    t: float
    alpha_i: float
    sigma_i: float
    alpha_j: float
    sigma_j: float


class StepTable(NamedTuple):
    """The coefficients of the steps `i → i + 1` and the times of the knots, each `(T,)`, on one device."""

    a: Tensor
    b: Tensor
    c: Tensor
    d: Tensor
    times: Tensor


class Solver(ABC):
    """`T + 1` knots from noise (0) to data (T), and the affine step between any two of them.

    Attributes:
        alphas, sigmas: float64 host tensors `(T + 1,)`; a noised sample at knot `i` is `alphas[i]·x₀ + sigmas[i]·ε`.
        times: host tensor `(T,)`, int64 or float64: what the model is told at knot `i < T`.
        prediction: what the solver says the model predicts.

    Raises:
        ValueError: for grids that are short, not finite or not monotone from noise to data.
    """

    prediction: Prediction

    def __init__(self, alphas: Tensor, sigmas: Tensor, times: Tensor) -> None:
        _check_grid(type(self).__name__, alphas, sigmas, times)
        self.alphas, self.sigmas, self.times = alphas, sigmas, times
        # Filled by `alpha_sigma`: the grid on each device it was asked for on, so that no step copies from the host.
        self._lookup: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor, Tensor]] = {}
        # A grid never changes: each step is computed and checked once.
        self._steps: dict[tuple[int, int], AffineStep] = {}
        self._infos: dict[tuple[int, int], StepInfo] = {}

    def __len__(self) -> int:
        return len(self.times)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(T={len(self)}, prediction={self.prediction!r})"

    @abstractmethod
    def _coefficients(self, i: int, j: int) -> tuple[float, float]:
        """`(a, b)` of the step `i → j`, in float64; not finite where the step does not exist."""

    @cached_property
    def _knots(self) -> tuple[list[float], list[float], list[float]]:
        # Host numbers, read once: indexing a tensor at every step would cost more than the step.
        return self.alphas.tolist(), self.sigmas.tolist(), self.times.tolist()

    def step(self, i: int, j: int | None = None) -> AffineStep:
        """The step from knot `i` to knot `j` (default `i + 1`), as host numbers.

        Raises:
            ValueError: unless `0 ≤ i < j ≤ T`, or where the step does not exist (`a` not finite: a zero-SNR knot
                under an ε-prediction). The way back is `step(i, j).inverse`, never `step(j, i)`.
        """
        j = i + 1 if j is None else j
        if (i, j) in self._steps:
            return self._steps[i, j]
        self._check_interval(i, j)
        a, b = self._coefficients(i, j)
        if not math.isfinite(a):
            raise ValueError(
                f"{self!r} has no step from knot {i} to {j}: alpha is {self._knots[0][i]:g} at knot {i}, where "
                f"{self.prediction!r} says nothing of the data; begin at a later knot, or use Spherical on v"
            )
        self._steps[i, j] = AffineStep(a, b)
        return self._steps[i, j]

    def invertible_step(self, i: int, j: int | None = None) -> AffineStep:
        """`step(i, j)`, checked to have an inverse.

        Raises:
            ValueError: where `|a| < 1e-12`, naming the knots.
        """
        j = i + 1 if j is None else j
        step = self.step(i, j)
        if abs(float(step.a)) < SMALLEST_A:
            raise ValueError(
                f"the step of {self!r} from knot {i} to {j} has no inverse: a = {step.a:.3g}, "
                f"so knot {j} keeps nothing of knot {i}"
            )
        return step

    def noise_step(self, j: int, i: int) -> AffineStep:
        r"""From knot `j` up to the noisier knot `i` by fresh noise: `forward(x_j, z)` with `z` standard normal.

        .. math:: x_i = r\,x_j + \sqrt{\sigma_i^2 - r^2\sigma_j^2}\;z, \qquad r = \alpha_i/\alpha_j
        """
        self._check_interval(i, j)
        alphas, sigmas, _ = self._knots
        r = alphas[i] / alphas[j]
        return AffineStep(r, math.sqrt((sigmas[i] - r * sigmas[j]) * (sigmas[i] + r * sigmas[j])))

    def info(self, i: int, j: int | None = None) -> StepInfo:
        """The step `i → j` as guidance rules see it: host numbers."""
        j = i + 1 if j is None else j
        if (i, j) not in self._infos:
            self._check_interval(i, j)
            alphas, sigmas, times = self._knots
            self._infos[i, j] = StepInfo(i, j, times[i], alphas[i], sigmas[i], alphas[j], sigmas[j])
        return self._infos[i, j]

    def table(self, device: torch.device | str | None = None, dtype: torch.dtype = torch.float64) -> StepTable:
        """The coefficients of all steps `i → i + 1`, computed in float64 and cast once, for captured loops.

        Raises:
            ValueError: where a step has no inverse, naming its knots.
        """
        steps = [self.invertible_step(i) for i in range(len(self))]
        columns = ([s.a for s in steps], [s.b for s in steps], [s.c for s in steps], [s.d for s in steps])
        a, b, c, d = (torch.tensor(k, dtype=torch.float64).to(device, dtype) for k in columns)
        return StepTable(a, b, c, d, self.model_times(device, dtype))

    def model_times(self, device: torch.device | str | None, dtype: torch.dtype) -> Tensor:
        """`times` as the model is told them: int64 stays int64, anything else takes the state's `dtype`."""
        return self.times.to(device, dtype if self.times.is_floating_point() else torch.int64)

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """`(α, σ)` at model times `t` `(B,)` of this grid, float64 `(B,)` on `t`'s device: for wrapping predictors.

        `t` is matched to the nearest knot's time, without a host sync: a time off the grid is not noticed.
        """
        key = (t.device, t.dtype)
        if key not in self._lookup:
            times = self.model_times(*key).double()
            self._lookup[key] = (times, self.alphas.to(t.device), self.sigmas.to(t.device))
        times, alphas, sigmas = self._lookup[key]
        knot = (t.double().unsqueeze(-1) - times).abs().argmin(-1)
        return alphas[knot], sigmas[knot]

    def _check_interval(self, i: int, j: int) -> None:
        if not 0 <= i < j <= len(self):
            raise ValueError(
                f"no step from knot {i} to {j}: a step runs toward the data, 0 <= i < j <= T = {len(self)}; "
                "the way back is step(i, j).inverse"
            )


def grid(name: str, values: Grid) -> Tensor:
    """A user's grid as a float64 host tensor.

    Raises:
        TypeError: for what is not a tensor or a sequence of numbers.
        ValueError: unless it is one-dimensional with at least two knots, and finite.
    """
    try:
        g = torch.as_tensor(values, dtype=torch.float64).detach().cpu().clone()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} must be a tensor or a sequence of numbers, got {type(values).__name__}") from error
    if g.ndim != 1 or len(g) < 2:
        raise ValueError(f"{name} must be one-dimensional with at least two knots, got shape {tuple(g.shape)}")
    if not torch.isfinite(g).all():
        raise ValueError(f"{name} must be finite, got {g.tolist()}")
    return g


def descending(name: str, values: Grid, top: float, top_name: str) -> Tensor:
    """A user's grid that falls strictly from at most `top` to at least 0, as a float64 host tensor.

    Raises:
        TypeError, ValueError: as `grid`, and where it leaves `[0, top]` or does not descend, naming the knot. An
            ascending grid is not sorted silently.
    """
    g = grid(name, values)
    if (g < 0).any() or (g > top).any():
        raise ValueError(f"{name} must lie in [0, {top_name}], got {g.min():g} to {g.max():g}")
    if not (g[1:] < g[:-1]).all():
        i = int((g[1:] >= g[:-1]).nonzero()[0])
        raise ValueError(
            f"{name} must descend strictly, noise to data, got {g[i]:.6g} at knot {i} and {g[i + 1]:.6g} at {i + 1}"
        )
    return g


def model_times(values: Grid) -> Tensor:
    """The times told to the model: int64 where integers came, float64 otherwise."""
    t = torch.as_tensor(values).detach().cpu().clone()
    return t.to(torch.float64 if t.is_floating_point() else torch.int64)


def check_steps(steps: int, most: int | None = None) -> None:
    """Raises TypeError or ValueError unless `steps` is an integer from 1 (to `most`)."""
    if not isinstance(steps, int):
        raise TypeError(f"steps must be an integer, got {steps!r}")
    if steps < 1 or (most is not None and steps > most):
        raise ValueError(f"steps must be at least 1{f' and at most {most}' if most else ''}, got {steps}")


def _check_grid(name: str, alphas: Tensor, sigmas: Tensor, times: Tensor) -> None:
    knots = len(alphas)
    if sigmas.shape != alphas.shape:
        raise ValueError(f"{name}: alphas and sigmas differ in length, {knots} and {len(sigmas)}")
    if times.shape != (knots - 1,):
        raise ValueError(
            f"{name}: times must have {knots - 1} entries for {knots} knots, got shape {tuple(times.shape)}; "
            "the model is never evaluated at the last knot, which is data"
        )
    if not torch.isfinite(times).all():
        raise ValueError(f"{name}: times must be finite, got {times.tolist()}")
    if (alphas < 0).any() or (sigmas < 0).any():
        raise ValueError(f"{name}: alphas and sigmas must not be negative")
    # alpha_j·sigma_i − alpha_i·sigma_j > 0 says that the signal-to-noise ratio rises, without dividing by zero.
    rises = alphas[1:] * sigmas[:-1] - alphas[:-1] * sigmas[1:] > 0
    if not rises.all():
        i = int((~rises).nonzero()[0])
        raise ValueError(
            f"{name}: the knots must be strictly monotone from noise to data, but alpha/sigma does not rise from knot "
            f"{i} ({alphas[i]:.6g}/{sigmas[i]:.6g}) to {i + 1} ({alphas[i + 1]:.6g}/{sigmas[i + 1]:.6g})"
        )
