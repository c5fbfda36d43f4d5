"""Random grids of every solver, beside the numbers that they were built from."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

from zigzag.solvers import (
    DDIM,
    FlowEuler,
    Solver,
    Spherical,
    ddim_inverse,
    ddim_step,
    flow_inverse,
    flow_step,
    spherical_inverse,
    spherical_step,
)
from zigzag.testing.strategies import falling

ACP = torch.linspace(0.99, 0.01, 10, dtype=torch.float64)


class Grid(NamedTuple):
    """A solver beside the numbers that it was built from."""

    kind: str
    solver: Solver
    knots: list[float]


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    """A random grid of each solver, with α_0 >= cos 1.45 ≈ 0.12, so that every 1/a stays finite in fp16."""
    kind = draw(st.sampled_from(["vp", "edm", "flow", "spherical"]))
    if kind == "vp":
        knots = draw(falling(1.45))
        alphas, sigmas = [math.cos(p) for p in knots], [math.sin(p) for p in knots]
        times = torch.arange(len(knots) - 1, 0, -1)
        return Grid(kind, DDIM(torch.tensor(alphas).double(), torch.tensor(sigmas).double(), times), knots)
    if kind == "edm":
        sigma = torch.tensor(draw(falling(20.0)), dtype=torch.float64)
        return Grid(kind, DDIM(torch.ones_like(sigma), sigma, sigma[:-1]), sigma.tolist())
    knots = draw(falling(1.0)) if kind == "flow" else draw(falling(1.45))
    tensor = torch.tensor(knots, dtype=torch.float64)
    return Grid(kind, FlowEuler(tensor) if kind == "flow" else Spherical(tensor), knots)


@st.composite
def spans(draw: st.DrawFn) -> tuple[Grid, int, int]:
    grid = draw(grids())
    i = draw(st.integers(0, len(grid.solver) - 1))
    return grid, i, draw(st.integers(i + 1, len(grid.solver)))


def pure(grid: Grid, i: Any, j: Any) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """The pure step and inverse i -> j of a grid, knots numbers or index tensors."""
    knots = torch.tensor(grid.knots, dtype=torch.float64)
    alphas, sigmas = grid.solver.alphas, grid.solver.sigmas
    if grid.kind == "flow":
        args = [knots[i], knots[j]]
        pair: Any = (flow_step, flow_inverse)
    elif grid.kind == "spherical":
        args = [knots[i], knots[j]]
        pair = (spherical_step, spherical_inverse)
    else:
        args = [alphas[i], sigmas[i], alphas[j], sigmas[j]]
        pair = (ddim_step, ddim_inverse)
    return tuple(lambda x, e, f=f: f(x, e, *args) for f in pair)  # type: ignore[return-value]
