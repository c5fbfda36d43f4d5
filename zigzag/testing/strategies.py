"""Hypothesis strategies of grids and steps, for those who have it (extra `testing`)."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Any

import torch

from zigzag.solvers import DDIM, FlowEuler, Solver, Spherical
from zigzag.support.extras import require

st = require("hypothesis.strategies", "zigzag.testing.strategies needs hypothesis", "testing")

__all__ = ["falling", "solvers", "steps"]


@st.composite  # type: ignore[untyped-decorator]
def falling(draw: Any, high: float, low: float = 0.0) -> list[float]:
    """Three to eight numbers that fall strictly from `high` to `low`, unevenly."""
    gaps = draw(st.lists(st.floats(0.05, 1.0), min_size=2, max_size=7))
    total = math.fsum(gaps)
    inner = [high - (high - low) * s / total for s in accumulate(gaps[:-1])]
    return [high, *inner, low]


@st.composite  # type: ignore[untyped-decorator]
def solvers(draw: Any) -> Solver:
    """A solver of first order on a random grid: variance-preserving, of α = 1, a flow, or spherical."""
    kind = draw(st.sampled_from(["vp", "ve", "flow", "spherical"]))
    top = {"ve": 20.0, "flow": 1.0}.get(kind, 1.45)
    knots = torch.tensor(draw(falling(top)), dtype=torch.float64, device="cpu")
    match kind:
        case "vp":
            return DDIM(knots.cos(), knots.sin(), torch.arange(len(knots) - 1, 0, -1, device="cpu"))
        case "ve":
            return DDIM(torch.ones_like(knots), knots, knots[:-1])
    return FlowEuler(knots) if kind == "flow" else Spherical(knots)


@st.composite  # type: ignore[untyped-decorator]
def steps(draw: Any) -> tuple[Solver, int, int]:
    """A solver, and the knots `i < j` of a step on it."""
    solver = draw(solvers())
    i = draw(st.integers(0, len(solver) - 1))
    return solver, i, draw(st.integers(i + 1, len(solver)))
