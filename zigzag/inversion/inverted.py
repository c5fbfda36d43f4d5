"""What an inversion leaves: the states that the way down begins with, and a report of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from zigzag.inversion.scheme import Scheme
from zigzag.solvers import Solver

__all__ = ["GridMark", "Inverted", "Report", "deviation"]


@dataclass(frozen=True)
class Report:
    """How an inversion went.

    Attributes:
        rows: model rows per sample that ran.
        growth: the factor by which the way up multiplies rounding, from the grid; None for a scheme without one.
        deviation: `(B,)`, the root mean square of the noise that came out, over `σ₀`. Exact is not Gaussian: under
            guidance it is larger than 1.
        residual: `(T, B)`, by interval and sample what is left of the equation solved, relative to the state.
        contraction: `(T, B)`, at least, what each iteration multiplied a distance by: `|d|·Lip(e)`, which has to be
            below 1 for the plain iteration.
        converged: `(B,)`, whether every interval came below the tolerance. The three are of `FixedPoint` alone.
        round_trip: `(B,)`, `‖x̂ − x‖/‖x‖` of the data that came back, where it was asked for.
    """

    rows: int
    deviation: Tensor
    growth: float | None = None
    residual: Tensor | None = None
    contraction: Tensor | None = None
    converged: Tensor | None = None
    round_trip: Tensor | None = None

    def __str__(self) -> str:
        parts = [f"{self.rows} rows", f"deviation of the noise {_range(self.deviation)}"]
        if self.growth is not None:
            parts.append(f"growth of rounding {self.growth:.3g}")
        if self.residual is not None and self.converged is not None and self.contraction is not None:
            parts.append(f"residual {float(self.residual.max()):.2g}, |d|·Lip {float(self.contraction.max()):.2g}")
            parts.append(f"{int(self.converged.sum())} of {len(self.converged)} converged")
        if self.round_trip is not None:
            parts.append(f"round trip {float(self.round_trip.max()):.2g}")
        return "; ".join(parts)


@dataclass(frozen=True)
class GridMark:
    """What tells one solver from another: its levels, times and the coefficients of a walk straight down.

    Attributes:
        name: of the solver, as it prints. prediction: of it.
        alphas, sigmas: `(T + 1,)`. times: `(T,)`. steps: `(T, 3)`, `a`, `b` and the coefficient of the noise.
    """

    name: str
    prediction: str
    alphas: Tensor
    sigmas: Tensor
    times: Tensor
    steps: Tensor

    @classmethod
    def of(cls, solver: Solver) -> GridMark:
        """That of a solver."""
        steps = [solver.step(i, None, range(i)) for i in range(len(solver))]
        rows = [[float(step.a), float(step.b), float(step.noise)] for step in steps]
        return cls(
            repr(solver), solver.prediction, solver.alphas, solver.sigmas, solver.times.double(),
            torch.tensor(rows, dtype=torch.float64, device="cpu"),
        )  # fmt: skip

    def check(self, solver: Solver) -> None:
        """Raises ValueError unless `solver` makes the steps that this one made, saying where they part."""
        other = GridMark.of(solver)
        said = f"the inversion was made on {self.name}, and this is {other.name}"
        if self.prediction != other.prediction:
            raise ValueError(f"{said}: the one is of {self.prediction!r}, the other of {other.prediction!r}")
        if len(self.times) != len(other.times):
            raise ValueError(f"{said}: the one has {len(self.times)} steps, the other {len(other.times)}")
        for name in ("alphas", "sigmas", "times", "steps"):
            mine, others = getattr(self, name), getattr(other, name)
            differs = ~torch.isclose(mine, others, rtol=1e-9, atol=1e-12)
            if differs.any():
                at = differs.nonzero()[0].tolist()
                what = "the step from knot" if name == "steps" else f"{name} at knot"
                raise ValueError(f"{said}: {what} {at[0]} is {mine[at[0]].tolist()} and {others[at[0]].tolist()}")


@dataclass(frozen=True)
class Inverted:
    """The result of `invert`: what `reconstruct` begins with. `Inverted.of_noise` makes one of fresh noise.

    Attributes:
        scheme: that made it. grid: what tells its solver.
        states: in at least float32: the state at knot 0, or the pair that the scheme carries, the state at knot 0
            first.
        residuals, noises: `(T, B, …)`, what the way down holds at each interval; None where it holds none.
        dtype: that of the data, in which the model is asked.
        report: how it went; None of a fresh noise.
    """

    scheme: Scheme
    grid: GridMark
    states: tuple[Tensor, ...]
    dtype: torch.dtype
    residuals: Tensor | None = None
    noises: Tensor | None = None
    report: Report | None = None

    @property
    def noise(self) -> Tensor:
        """The state at knot 0, `(B, …)`."""
        return self.states[0]

    def to(self, device: torch.device | str) -> Inverted:
        """The same, its tensors on another device."""
        return replace(
            self,
            states=tuple(state.to(device) for state in self.states),
            residuals=None if self.residuals is None else self.residuals.to(device),
            noises=None if self.noises is None else self.noises.to(device),
        )


def deviation(x: Tensor, sigma: float) -> Tensor:
    """`‖x‖/√D` of each sample over `σ`, the deviation from zero: `(B,)`."""
    return x.reshape(len(x), -1).square().mean(1).sqrt() / sigma


def _range(values: Tensor) -> str:
    low, high = float(values.min()), float(values.max())
    return f"{low:.3f}" if f"{low:.3f}" == f"{high:.3f}" else f"{low:.3f} to {high:.3f}"
