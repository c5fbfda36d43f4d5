"""The reversible schemes written out in straight lines, in float64, with a running bound on another's rounding."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from support.grids import Grid
from support.predictors import LIP, field
from support.sampling import COND, UNCOND
from zigzag.inversion import EDICT, OBELM, Rex, Scheme, ending_above
from zigzag.solvers import Solver

SCHEMES: dict[str, Scheme] = {"EDICT": EDICT(), "EDICT, p = 0.8": EDICT(0.8), "OBELM": OBELM(), "Rex": Rex(0.99)}


class Near(NamedTuple):
    """A float64 tensor, and how far the rounding of one who computes it in another dtype may take that one."""

    value: Tensor
    off: float

    @property
    def size(self) -> float:
        return float(self.value.abs().max())


Two = tuple[Near, Near]


def solver_of(name: str, grid: Grid) -> Solver:
    """That which the scheme runs on: Rex ends a knot above."""
    return ending_above(grid.solver) if name == "Rex" else grid.solver


class Straight:
    """The four lines of a scheme, or its one, and the same solved: no loop, no shared coefficients.

    Args:
        name: of `SCHEMES`. w: the guidance. eps: of the dtype of whoever is held against it.
    """

    def __init__(self, name: str, grid: Grid, w: float, eps: float) -> None:
        self.scheme, self.kind, self.w, self.eps = SCHEMES[name], grid.kind, w, eps
        self.solver = solver_of(name, grid)
        self.knots = grid.knots
        self.alphas, self.sigmas = grid.solver.alphas.tolist(), grid.solver.sigmas.tolist()
        self.times = [*grid.solver.times.tolist()]
        self.T, self.first = len(self.solver), int(name == "OBELM")

    def total(self, *terms: tuple[float, Near]) -> Near:
        """Σ k·v: each is off by |k| times what its value is, and by 8 roundings of its own."""
        value = sum(k * near.value for k, near in terms)
        assert isinstance(value, Tensor)
        return Near(value, sum(abs(k) * (near.off + 8 * self.eps * near.size) for k, near in terms))

    def e(self, x: Near, i: int) -> Near:
        """The field of `support.predictors` under CFG, told the time of knot `i`."""
        t = torch.tensor(self.times[i], dtype=torch.float64).expand(len(x.value))
        e_u, e_c = field(x.value, t, UNCOND), field(x.value, t, COND)
        value, spread = (e_c, 1.0) if self.w == 1 else (e_u + self.w * (e_c - e_u), abs(self.w) + abs(1 - self.w))
        return Near(value, spread * (LIP * x.off + 8 * self.eps * (1 + x.size)))

    def ab(self, i: int) -> tuple[float, float]:
        """Of the first-order step `i → i + 1`, by the formulas of its geometry."""
        if self.kind == "flow":
            return 1.0, self.knots[i + 1] - self.knots[i]
        if self.kind == "spherical":
            return math.cos(self.knots[i] - self.knots[i + 1]), -math.sin(self.knots[i] - self.knots[i + 1])
        a = self.alphas[i + 1] / self.alphas[i]
        return a, self.sigmas[i + 1] - a * self.sigmas[i]

    def down(self, i: int, x: Near, y: Near) -> Two:
        """The pair at knot `i + 1`."""
        a, b = self.ab(i)
        match self.scheme:
            case EDICT(p):
                if i % 2 == 0:
                    x1 = self.total((a, x), (b, self.e(y, i)))
                    y1 = self.total((a, y), (b, self.e(x1, i)))
                    x2 = self.total((p, x1), (1 - p, y1))
                    return x2, self.total((p, y1), (1 - p, x2))
                y1 = self.total((a, y), (b, self.e(x, i)))
                x1 = self.total((a, x), (b, self.e(y1, i)))
                y2 = self.total((p, y1), (1 - p, x1))
                return self.total((p, x1), (1 - p, y2)), y2
            case Rex(zeta):
                mixed = self.total((zeta, x), (1 - zeta, y))
                x1 = self.total((a, mixed), (b, self.e(y, i)))
                return x1, self.total((a, y), (b, self.said(x1, i)))
            case _:
                before, here, asked = self.weights(i)
                return self.total((before, y), (here, x), (asked, self.e(x, i))), x

    def up(self, i: int, x: Near, y: Near) -> Two:
        """The pair at knot `i`."""
        a, b = self.ab(i)
        match self.scheme:
            case EDICT(p):
                if i % 2 == 0:
                    y1 = self.total((1 / p, y), (-(1 - p) / p, x))
                    x1 = self.total((1 / p, x), (-(1 - p) / p, y1))
                    y0 = self.total((1 / a, y1), (-b / a, self.e(x1, i)))
                    return self.total((1 / a, x1), (-b / a, self.e(y0, i))), y0
                x1 = self.total((1 / p, x), (-(1 - p) / p, y))
                y1 = self.total((1 / p, y), (-(1 - p) / p, x1))
                x0 = self.total((1 / a, x1), (-b / a, self.e(y1, i)))
                return x0, self.total((1 / a, y1), (-b / a, self.e(x0, i)))
            case Rex(zeta):
                y0 = self.total((1 / a, y), (-b / a, self.said(x, i)))
                mixed = self.total((1 / a, x), (-b / a, self.e(y0, i)))
                return self.total((1 / zeta, mixed), (-(1 - zeta) / zeta, y0)), y0
            case _:
                before, here, asked = self.weights(i)
                return y, self.total((1 / before, x), (-here / before, y), (-asked / before, self.e(y, i)))

    def weights(self, i: int) -> tuple[float, float, float]:
        """Of O-BELM: those of `x_{i−1}`, `x_i` and the prediction in `x_{i+1}`.

        On ε the formula of the paper in `k = σ/α`; a flow's is the same one in σ; in v what is exact for constant data
        and noise, `x(θ) = cos θ·x + sin θ·v` at an angle θ from knot `i`.
        """
        if self.kind == "spherical":
            g, h = self.knots[i - 1] - self.knots[i], self.knots[i] - self.knots[i + 1]
            A = (1 - math.cos(h)) / (1 - math.cos(g))
            return A, math.cos(h) - A * math.cos(g), -math.sin(h) - A * math.sin(g)
        scale = [1.0] * len(self.knots) if self.kind == "flow" else self.alphas
        k = [sigma / c for sigma, c in zip(self.sigmas, scale, strict=True)]
        g, h = k[i - 1] - k[i], k[i] - k[i + 1]
        r = h**2 / g**2
        return (
            r * scale[i + 1] / scale[i - 1],
            (1 - r) * scale[i + 1] / scale[i],
            -h * (h + g) / g * scale[i + 1],
        )

    def said(self, x: Near, i: int) -> Near:
        """The prediction at knot `i + 1`, of the same x₀ and ε at knot `i`: v turns with its angle."""
        e = self.e(x, i + 1)
        if self.kind != "spherical":
            return e
        delta = self.knots[i] - self.knots[i + 1]
        return self.total((math.cos(delta), e), (-math.sin(delta), x))

    def enter(self, x: Near) -> Two:
        """The pair of the data."""
        if not self.first:
            return x, x
        a, b = self.ab(self.T - 1)
        return x, self.total((1 / a, x), (-b / a, self.e(x, self.T - 1)))

    def start(self, x: Near) -> Two:
        """The pair of a noise."""
        if not self.first:
            return x, x
        a, b = self.ab(0)
        return self.total((a, x), (b, self.e(x, 0))), x

    def all_up(self, x: Tensor) -> Iterator[Two]:
        """The pairs from the last knot up."""
        pair = self.enter(Near(x, 0.0))
        yield pair
        for i in reversed(range(self.first, self.T)):
            pair = self.up(i, *pair)
            yield pair

    def all_down(self, x: Tensor) -> Iterator[Two]:
        """The pairs from knot `first` down."""
        pair = self.start(Near(x, 0.0))
        yield pair
        for i in range(self.first, self.T):
            pair = self.down(i, *pair)
            yield pair

    def missed_data(self, x: Tensor) -> float:
        """How far from data `x` whoever goes up and comes down again may end.

        What was rounded on the way up over an interval is on the way down an error of that interval alone: the step
        down of the pair that the inverse gave, and all of it is carried down from there.
        """
        pairs = list(self.all_up(x))[::-1]
        off = (0.0, 0.0)
        for n, i in enumerate(range(self.first, self.T)):
            exact = tuple(Near(state.value, 0.0) for state in pairs[n + 1])
            rounded = self.up(i, *exact)
            begun = tuple(Near(r.value, r.off + o) for r, o in zip(rounded, off, strict=True))
            off = tuple(near.off for near in self.down(i, *begun))
        return off[0]

    def missed_noise(self, x: Tensor) -> float:
        """How far from the noise `x` whoever goes down and comes up again from the whole pair may end: the same, up."""
        pairs = list(self.all_down(x))
        off = (0.0, 0.0)
        for n, i in reversed(list(enumerate(range(self.first, self.T)))):
            exact = tuple(Near(state.value, 0.0) for state in pairs[n])
            rounded = self.down(i, *exact)
            begun = tuple(Near(r.value, r.off + o) for r, o in zip(rounded, off, strict=True))
            off = tuple(near.off for near in self.up(i, *begun))
        return off[self.first]
