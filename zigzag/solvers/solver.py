"""What a solver is: a grid of knots, and the step between any two of them, with what it remembers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from zigzag.solvers.affine import AffineStep, Inner, StepInfo, StepTable, combine
from zigzag.solvers.grids import Grid, Prediction, check_grid, check_prediction, grid, host
from zigzag.solvers.steps import by_sample, check_remembered, checked

__all__ = ["Solver"]

# Below this the way back multiplies rounding errors by 1e12 and more: there is no inverse worth the name.
SMALLEST_A = 1e-12


class Solver(ABC):
    """`T + 1` knots from noise (0) to data (T), and the affine step between any two of them.

    A solver of one's own gives `coefficients`, and with memory also `memory` and `remember`. Its constructor leads to
    this one, which checks the grid; what `coefficients` gives is checked where a step is first asked for, which a walk
    does before the first model call.

    Attributes:
        alphas, sigmas: float64 host tensors `(T + 1,)`; a noised sample at knot `i` is `alphas[i]·x₀ + sigmas[i]·ε`.
        times: host tensor `(T,)`, int64 or float64: what the model is told at knot `i < T`.
        inner_times: `(M,)`, those of evaluations between knots, which only `Inner` names.
        prediction: what the solver says the model predicts.
        memory: how many noisier knots a step remembers at most; 0 for a one-step solver.
        fresh_noise: of a stochastic solver, whether the Denoise that leaves a knot for good draws new noise, in place
            of that which the interval holds. (The papers' ancestral zigzags do.)

    Raises:
        ValueError: for grids that are short, not finite or not monotone from noise to data.
    """

    prediction: Prediction
    memory: int = 0
    fresh_noise: bool = False

    def __init__(self, alphas: Grid, sigmas: Grid, times: Grid, inner_times: Grid | None = None) -> None:
        name = type(self).__name__
        check_prediction(f"{name}.prediction", getattr(self, "prediction", None))
        self.alphas, self.sigmas = grid(f"{name}.alphas", alphas), grid(f"{name}.sigmas", sigmas)
        self.times = host(times)
        check_grid(name, self.alphas, self.sigmas, self.times)
        self.inner_times = host(self.times[:0] if inner_times is None else inner_times, self.times.dtype)
        # Filled by `at_times`: columns on each device they were asked for on, so that no step copies from the host.
        self._lookup: dict[tuple[Any, ...], tuple[Tensor, ...]] = {}
        # A grid never changes: each step is computed and checked once.
        self._steps: dict[tuple[Any, Any, tuple[int, ...]], AffineStep] = {}
        self._infos: dict[tuple[int, int], StepInfo] = {}

    def __len__(self) -> int:
        return len(self.times)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(T={len(self)}, prediction={self.prediction!r})"

    @abstractmethod
    def coefficients(self, i: int, j: int, remembered: tuple[int, ...]) -> AffineStep:
        """The step `i → j` as host numbers, in float64; `a` is not finite where the step does not exist.

        Args:
            i, j: knots, `0 ≤ i < j ≤ T`.
            remembered: at most `memory` noisier knots whose predictions are at hand, the latest (least noisy) first.
                The step may read fewer, and has a coefficient in `memory` for each that it does, in this order.

        Returns:
            `AffineStep(a, b, memory, noise)`: `noise` is the coefficient on standard normal noise of the interval,
            drawn once and held; `memory` those on what `remember` left at the knots.
        """

    def remember(self, i: int, x: Tensor, e: Tensor) -> Tensor:
        """What a Denoise that leaves knot `i`, from state `x` with prediction `e`, leaves for later steps: here `e`.

        It is linear in `x` and `e`, and `(B, …)`. Of a step of two evaluations `e` is the first, that at `x`.
        """
        return e

    def inner(self, i: int, j: int) -> Inner | None:
        """The second evaluation of the step `i → j`; None where it makes one, as almost every solver does."""
        return None

    @cached_property
    def knots(self) -> tuple[list[float], list[float], list[float]]:
        """Alphas, sigmas and times as host numbers, read once: indexing a tensor at every step would cost more."""
        return self.alphas.tolist(), self.sigmas.tolist(), self.times.tolist()

    @cached_property
    def all_times(self) -> list[float]:
        """The times of the knots, and behind them those of evaluations between knots, as host numbers."""
        return [*self.times.tolist(), *self.inner_times.tolist()]

    @property
    def asked_between(self) -> list[float]:
        """The times of the evaluations that steps make between the knots."""
        return list(self.inner_times.tolist())

    @cached_property
    def plans(self) -> dict[Any, Any]:
        """What `zigzag.paths` has planned on this grid."""
        return {}

    def step(
        self,
        i: int | Tensor,
        j: int | Tensor | None = None,
        remembered: Sequence[int] = (),
        dtype: torch.dtype = torch.float64,
    ) -> AffineStep:
        """The step from knot `i` to knot `j` (default `i + 1`), as host numbers, or as tensors of one step a sample.

        Args:
            i, j: knots: numbers, or integer tensors `(B,)`. Tensors are read on the host, which waits for their device.
            remembered: the noisier knots whose predictions are at hand, from noise to data. The latest of them, at
                most `memory`, decide the order of the step and so its `a` and `b`; without any it is the first.
            dtype: of the coefficients `(B,)`, where `i` is a tensor; they are on its device.

        Raises:
            TypeError: for knots that are not integers, and coefficients that `coefficients` may not give.
            ValueError: unless `0 ≤ i < j ≤ T`, or where the step does not exist (`a` not finite: a zero-SNR knot
                under an ε-prediction). The way back is `step(i, j).inverse`, never `step(j, i)`.
        """
        j = i + 1 if j is None else j
        latest = tuple(remembered[: -self.memory - 1 : -1]) if self.memory else ()
        if (known := self._steps.get((i, j, latest))) is not None:
            return known
        if isinstance(i, Tensor) or isinstance(j, Tensor):
            i = i if isinstance(i, Tensor) else torch.full_like(torch.as_tensor(j), i)
            each = j if isinstance(j, Tensor) else torch.full_like(i, j)
            return by_sample(lambda i, j: self.step(i, j, remembered), i, each, dtype)
        self._check_interval(i, j)
        check_remembered(i, latest, remembered)
        who = f"{self!r}, step {i} -> {j}"
        step = checked(self.coefficients(i, j, latest), who, self.memory, latest)
        if not math.isfinite(float(step.a)):
            raise ValueError(
                f"{self!r} has no step from knot {i} to {j}: alpha is {self.knots[0][i]:g} at knot {i}, where "
                f"{self.prediction!r} says nothing of the data; begin at a later knot, or use Spherical on v"
            )
        self._steps[i, j, latest] = step
        return step

    def invertible_step(self, i: int, j: int | None = None, remembered: Sequence[int] = ()) -> AffineStep:
        """`step(i, j, remembered)`, checked to have an inverse.

        Raises:
            ValueError: where `|a| < 1e-12`, naming the knots.
        """
        j = i + 1 if j is None else j
        step = self.step(i, j, remembered)
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
        alphas, sigmas, _ = self.knots
        r = alphas[i] / alphas[j]
        return AffineStep(r, math.sqrt((sigmas[i] - r * sigmas[j]) * (sigmas[i] + r * sigmas[j])))

    def info(self, i: int, j: int | None = None) -> StepInfo:
        """The step `i → j` as guidance rules see it: host numbers."""
        j = i + 1 if j is None else j
        if (known := self._infos.get((i, j))) is None:
            self._check_interval(i, j)
            alphas, sigmas, times = self.knots
            known = self._infos[i, j] = StepInfo(i, j, times[i], alphas[i], sigmas[i], alphas[j], sigmas[j])
        return known

    def noise(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """The noise that a sample begins with: `σ₀·z`, `(B, …)`, with `z` standard normal.

        On variance-preserving grids and flows `σ₀` is 1 or nearly so; on `DDIM.karras` it is 80.

        Args:
            shape: `(B, …)`. generator: drawn from where it is. device, dtype: of the result.
        """
        home = device if generator is None else generator.device
        z = torch.randn(tuple(shape), generator=generator, device=home, dtype=torch.promote_types(dtype, torch.float32))
        return (self.knots[1][0] * z).to(device=device, dtype=dtype)

    def add_noise(self, x0: Tensor, noise: Tensor, knot: int) -> Tensor:
        """Data `x0` noised to a knot: `α·x₀ + σ·z`, in their dtype, where a path from that knot begins.

        Args:
            x0, noise: `(B, …)`, the noise standard normal. knot: from 0, the noisiest, to T.

        Raises:
            ValueError: for a knot that the grid does not have.
        """
        if not 0 <= knot <= len(self):
            raise ValueError(f"knot must lie in [0, {len(self)}], got {knot}")
        alphas, sigmas, _ = self.knots
        return combine(alphas[knot], x0, sigmas[knot], noise)

    def table(self, device: torch.device | str | None = None, dtype: torch.dtype = torch.float64) -> StepTable:
        """`a, b, c, d` of all steps `i → i + 1` of a walk straight down, computed in float64 and cast once.

        Raises:
            ValueError: where a step has no inverse, naming its knots.
        """
        steps = [self.invertible_step(i, None, range(i)) for i in range(len(self))]
        columns = ([s.a for s in steps], [s.b for s in steps], [s.c for s in steps], [s.d for s in steps])
        a, b, c, d = (torch.tensor(k, dtype=torch.float64, device="cpu").to(device, dtype) for k in columns)
        return StepTable(a, b, c, d, self.model_times(device, dtype))

    def model_times(self, device: torch.device | str | None, dtype: torch.dtype) -> Tensor:
        """`times` as the model is told them: int64 stays int64, anything else takes the state's `dtype`."""
        return self._told(self.times, device, dtype)

    def told_times(self, device: torch.device | str | None, dtype: torch.dtype) -> Tensor:
        """`model_times`, and behind them those of evaluations between knots: `all_times` on a device."""
        times = self.times if not len(self.inner_times) else torch.cat([self.times, self.inner_times])
        return self._told(times, device, dtype)

    @staticmethod
    def _told(times: Tensor, device: torch.device | str | None, dtype: torch.dtype) -> Tensor:
        return times.to(device, dtype if times.is_floating_point() else torch.int64)

    def alpha_sigma(self, t: Tensor, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
        """`(α, σ)` at model times `t` `(B,)` of this grid, `(B,)` on `t`'s device in `dtype`: for wrapping predictors.

        `t` is matched to the nearest knot's time, without a host sync: a time off the grid is not noticed, and of two
        knots that share a time the first is taken (`check_times`).
        """
        alphas, sigmas = self.at_times(t, "levels", lambda: (self.alphas[:-1], self.sigmas[:-1]), dtype)
        return alphas, sigmas

    def at_times(
        self, t: Tensor, name: str, columns: Callable[[], tuple[Tensor, ...]], dtype: torch.dtype
    ) -> tuple[Tensor, ...]:
        """Columns `(T,)` of numbers by knot, at model times `t` `(B,)`, on `t`'s device in `dtype`.

        Args:
            t: times of this grid, as in `alpha_sigma`.
            name: of the columns: they are asked for and brought to a device once.
            columns: gives them, float64 on the host. Only what is cast to `dtype` goes to the device, so that one
                without float64 will do.
        """
        key = (name, t.device, t.dtype, dtype)
        if key not in self._lookup:
            # They are kept: ordinary tensors, whatever mode they are first asked for in.
            with torch.inference_mode(False):
                values = tuple(column.to(dtype).to(t.device) for column in columns())
                self._lookup[key] = (self.model_times(t.device, t.dtype), *values)
        times, *known = self._lookup[key]
        knot = (t.unsqueeze(-1) - times).abs().argmin(-1)
        return tuple(column[knot] for column in known)

    def check_times(self, who: str) -> None:
        """Says whether the time tells the knot, as whoever finds α and σ by the time has to know.

        Raises:
            ValueError: where two knots share a time, naming `who` needs it and what to do; for steps that ask the model
                between knots, at times that are no knot's.
        """
        times = self.knots[2]
        if any(t not in times for t in self.asked_between):
            raise ValueError(
                f"{who} finds the knot by its time, but {self!r} also asks the model between its knots; use Heun, or a "
                "solver of the model's own prediction, which needs no conversion"
            )
        for i, t in enumerate(times):
            if t in times[:i]:
                raise ValueError(
                    f"{who} finds the knot by its time, but knots {times.index(t)} and {i} of {self!r} share the time "
                    f"{t:g}; take fewer steps or another spacing, or a solver of the model's own prediction, which "
                    "needs no conversion: DPMSolver(..., prediction='x0'), say"
                )

    def _check_interval(self, i: int, j: int) -> None:
        if not 0 <= i < j <= len(self):
            raise ValueError(
                f"no step from knot {i} to {j}: a step runs toward the data, 0 <= i < j <= T = {len(self)}; "
                "the way back is step(i, j).inverse"
            )
