"""What the tests of the trace share: a model on each grid, and a traced walk of it."""

from __future__ import annotations

import pytest
import torch

from support.mixtures import COND, MIXTURE, NOISE, UNCOND
from zigzag import DDIM, FlowEuler, Spherical, Trace, Visit, walk

T, B = 6, 2
EPS = torch.finfo(torch.float64).eps
SOLVERS = {
    "ddim": DDIM.stable_diffusion(T),
    "flow": FlowEuler.uniform(T, shift=2.0),
    "spherical": Spherical([1.5, 1.3, 1.0, 0.6, 0.3, 0.1, 0.0]),
}
each_solver = pytest.mark.parametrize("name", list(SOLVERS))


class Model:
    """The mixture on the grid of a solver, with its rows counted."""

    def __init__(self, name: str) -> None:
        self.solver, self.rows = SOLVERS[name], 0.0
        self.fn = MIXTURE.predictor(self.solver)

    def __call__(self, x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        self.rows += x.shape[0] / B
        return self.fn(x, t, cond)

    def guided(self, x: torch.Tensor, i: int, w: float) -> torch.Tensor:
        t = self.solver.times[i].expand(B)
        e_u = self.fn(x, t, UNCOND)
        return e_u + w * (self.fn(x, t, COND) - e_u)


def traced(
    model: Model, method: object, strong: object = 3.0, weak: object = 0.0, **more: object
) -> tuple[list[Visit], Trace]:
    trace = Trace()
    args = {"cond": COND, "uncond": UNCOND, "generator": torch.Generator().manual_seed(0)} | more
    return list(walk(model, NOISE, model.solver, method, strong=strong, weak=weak, trace=trace, **args)), trace


def norm(v: torch.Tensor) -> torch.Tensor:
    return v.flatten(1).norm(dim=1)
