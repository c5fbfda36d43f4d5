"""CFG-Zero*: the unconditional velocity at its best scale, and first steps of no velocity."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from support.gaussians import KINDS
from support.guidance import E_C, E_U, LEVEL, STEP, X, guided, shown
from support.tensors import assert_within
from zigzag import DDIM, CFGZeroStar, FlowEuler, Spherical, Standard, Trace, convert, count_rows, sample

EPS = torch.finfo(torch.float64).eps


@pytest.mark.parametrize("kind", KINDS)
def test_cfg_zero_star_scales_the_unconditional_velocity_to_its_best(kind: Any) -> None:
    """By its definition: no other scale of u_∅ is nearer to u_c; and then plain guidance of the two."""
    u_c, u_u = (convert(X, m, *LEVEL, "x0", "flow") for m in (E_C, E_U))
    out = convert(X, guided(CFGZeroStar(2.0, zero_init=0), kind), *LEVEL, "x0", "flow")
    scaled = 2.0 * u_c - out  # w = 2: u = 2·u_c − s·u_∅
    s = (scaled / u_u).flatten(1)
    assert_within(s, s[:, :1].expand_as(s), 1e5 * EPS * (1 + s.abs()))
    off = (u_c - scaled).flatten(1).norm(dim=1)
    for other in torch.linspace(-2, 2, 81, dtype=torch.float64):
        assert ((u_c - other * u_u).flatten(1).norm(dim=1) >= off * (1 - 1e-9)).all()


def test_cfg_zero_star_is_that_of_diffusers_on_a_flow() -> None:
    guiders = pytest.importorskip("diffusers.guiders")
    theirs, ours = guiders.ClassifierFreeZeroStarGuidance(guidance_scale=3.0, zero_init_steps=2), CFGZeroStar(3.0, 2)
    for step in range(4):
        theirs.set_state(step=step, num_inference_steps=4, timestep=torch.tensor(0))
        branches = (E_C, E_U) if ours.branches(STEP._replace(i=step)) == (True, True) else (None, None)
        out = ours(*branches, STEP._replace(i=step), shown("flow"))
        assert_within(out, theirs.forward(E_C, E_U).pred, 1e-5)  # theirs has s* in float32
        assert (branches[0] is None) == (step < 2)


@pytest.mark.parametrize("solver", [FlowEuler.uniform(4), Spherical.cosine(4), DDIM.stable_diffusion(4)], ids=repr)
def test_a_step_of_no_velocity_leaves_the_state_where_it_is_and_asks_nothing(solver: Any) -> None:
    """x/(α + σ) stays; the rows are those of the steps after."""
    asked = []

    def model(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        asked.append(len(x))
        return torch.sin(x)

    visits: list[Any] = []
    x = solver.noise((2, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    c = torch.ones(2).double()
    trace = Trace()
    sample(
        model, x, solver, Standard(), cond=c, uncond=-c, strong=CFGZeroStar(3.0, 2), callback=visits.append, trace=trace
    )
    total = solver.alphas + solver.sigmas
    for k in (0, 1):
        assert_within(visits[k].state / total[k + 1], x / total[0], 64 * EPS * (1 + x.abs()))
        assert visits[k].rows == 0
    assert asked == [4, 4] and trace.rows == 4 == count_rows(Standard(), solver, CFGZeroStar(3.0, 2))
