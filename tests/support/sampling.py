"""What the tests of the one loop share: a batch, its conditions, the grids and the methods."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from zigzag import DDIM, EndToEnd, FlowEuler, ImplicitZ, Resampling, Spherical, Standard, Z2Sampling, ZSampling

T, B = 4, 2
EPS = torch.finfo(torch.float64).eps
INTEGER, FLOAT = DDIM.stable_diffusion(T), FlowEuler.uniform(T)
SOLVERS = {"ddim": INTEGER, "flow": FLOAT, "spherical": Spherical.cosine(T)}
METHODS = [Standard(), Resampling(), EndToEnd(), ZSampling(refine=1), ImplicitZ(), Z2Sampling(warmup=1)]
each_solver = pytest.mark.parametrize("solver", list(SOLVERS.values()), ids=list(SOLVERS))
each_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
both = pytest.mark.parametrize("batched", [True, False])

X = torch.linspace(-1.2, 1.2, 6, dtype=torch.float64).reshape(B, 3)
COND, UNCOND = torch.tensor([0.5, -0.7]).double(), torch.tensor([0.1, 0.2]).double()
KNOWN: dict[str, Any] = {"cond": COND, "uncond": UNCOND}


def seed(n: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(n)
