"""Every inversion scheme on a solver that suits it, and what it finds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from support.held import make
from support.predictors import field
from support.sampling import COND, UNCOND, X
from zigzag import DDIM, FlowEuler
from zigzag.inversion import (
    EDICT,
    OBELM,
    FixedPoint,
    Inverted,
    Recorded,
    Rex,
    Scheme,
    ending_above,
    invert,
    telling_last,
)
from zigzag.solvers import Solver

OPTIONS: dict[str, Any] = {"cond": COND, "uncond": UNCOND}
DDIM5 = DDIM.stable_diffusion(5)
EVERY: dict[str, tuple[Scheme, Solver]] = {
    "FixedPoint": (FixedPoint(1e-8), DDIM5),
    "FixedPoint, 2M": (FixedPoint(1e-8), make("2M", "leading", 5)),
    "FixedPoint, eta": (FixedPoint(1e-8), DDIM.stable_diffusion(5, eta=1.0)),
    "EDICT": (EDICT(), DDIM5),
    "OBELM": (OBELM(), DDIM5),
    "Rex": (Rex(), telling_last(DDIM5, 0)),
    "Rex, eta": (Rex(0.99), ending_above(DDIM.stable_diffusion(6, eta=1.0))),
    "Recorded": (Recorded(), make("SDE-2M", "leading", 5)),
    "Recorded, independent": (Recorded("independent"), FlowEuler.uniform(5)),
}
every = pytest.mark.parametrize(("scheme", "solver"), EVERY.values(), ids=list(EVERY))


def seed(n: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(n)


def inverted_by(scheme: Scheme, solver: Solver, x: Tensor = X, **options: Any) -> Inverted:
    given: dict[str, Any] = {**OPTIONS, "guidance": 2.0, "generator": seed(), **options}
    return invert(field, x, solver, scheme, **given)
