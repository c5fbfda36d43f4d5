"""APG: plain guidance of the data, without the part of the gap along it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from support.gaussians import KINDS
from support.guidance import E_C, E_U, STEP, X, guided, shown
from support.tensors import assert_within
from zigzag import APG, CFG

EPS = torch.finfo(torch.float64).eps


def projected(c: Tensor, u: Tensor, w: float, eta: float, norm: float | None, before: Tensor | float = 0.0) -> Tensor:
    """Algorithm 1 on data, a sample at a time."""
    rows = []
    for k in range(len(c)):
        delta = c[k] - u[k] + (before[k] if isinstance(before, Tensor) else before)
        if norm is not None and float(delta.norm()) > norm:
            delta = delta / delta.norm() * norm
        axis = c[k] / c[k].norm()
        along = (delta * axis).sum() * axis
        rows.append(c[k] + (w - 1) * (delta - along + eta * along))
    return torch.stack(rows)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("eta", "norm"), [(0.0, None), (0.0, 1.5), (0.4, 2.0), (1.0, None)])
def test_apg_is_its_algorithm_on_the_data_whatever_is_predicted(kind: Any, eta: float, norm: float | None) -> None:
    out = guided(APG(4.0, eta=eta, norm=norm), kind)
    want = projected(E_C, E_U, 4.0, eta, norm)
    assert_within(out, want, 256 * EPS * (1 + want.abs() + X.abs()))


def test_apg_with_its_parallel_part_whole_and_nothing_clipped_is_cfg() -> None:
    for kind in KINDS:
        assert_within(APG(3.0, eta=1.0)(E_C, E_U, STEP, shown(kind)), CFG(3.0)(E_C, E_U, STEP), 64 * EPS * 20)


def test_the_update_of_apg_is_orthogonal_to_the_data_of_the_condition() -> None:
    moved = guided(APG(5.0), "epsilon") - E_C
    inner = (moved * E_C).flatten(1).sum(1)
    assert_within(inner, torch.zeros(3).double(), 1e3 * EPS)
    assert moved.flatten(1).norm(dim=1).min() > 0.1  # and not nothing


def test_the_momentum_of_apg_gathers_and_is_forgotten_by_a_walk() -> None:
    rule = APG(3.0, norm=2.0, momentum=-0.5)
    first, second = guided(rule, "v"), guided(rule, "v", c=E_U, u=E_C)
    assert_within(first, projected(E_C, E_U, 3.0, 0.0, 2.0), 256 * EPS * 10)
    assert_within(second, projected(E_U, E_C, 3.0, 0.0, 2.0, before=-0.5 * (E_C - E_U)), 256 * EPS * 10)
    rule.reset()
    assert torch.equal(guided(rule, "v"), first)
    assert not hasattr(APG(3.0), "reset")  # without a momentum nothing is kept, and inversions may have it


def test_apg_is_that_of_diffusers_on_predictions_of_the_data() -> None:
    guiders = pytest.importorskip("diffusers.guiders")
    theirs = guiders.AdaptiveProjectedGuidance(
        guidance_scale=2.5, adaptive_projected_guidance_momentum=-0.75, adaptive_projected_guidance_rescale=1.5,
        eta=0.3, use_original_formulation=True,
    )  # fmt: skip
    theirs.set_state(step=0, num_inference_steps=4, timestep=torch.tensor(0))
    theirs.prepare_inputs({})
    ours = APG(3.5, eta=0.3, norm=1.5, momentum=-0.75)
    for c, u in ((E_C, E_U), (E_U, E_C), (E_C, -E_U)):
        assert_within(ours(c, u, STEP, shown("x0")), theirs.forward(c, u).pred, 64 * EPS * 10)
