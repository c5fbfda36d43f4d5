"""POLARIS takes the scale at which the guided prediction changes least."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from support.guidance import BOTH, STEP
from support.tensors import noise
from zigzag import DDIM, Standard, ZSampling, count_rows, sample
from zigzag.guidance import Polaris

BRANCHES = [(noise(k, 4, 3, 2), noise(k + 50, 4, 3, 2)) for k in range(3)]


def changes(rule: Any) -> tuple[list[Tensor], list[Tensor]]:
    """The guided predictions of three evaluations, and by sample how much the last two of them differ from what the
    same scale makes of the evaluation before: `‖e_w(k) − e_w(k − 1)‖²` at one `w`."""
    rule.reset()
    guided = [rule(c, u, STEP) for c, u in BRANCHES]
    moved = []
    for k in (1, 2):
        (c, u), (c_before, u_before) = BRANCHES[k], BRANCHES[k - 1]
        w = scales(guided[k], c, u)[:, None, None]
        before = u_before + w * (c_before - u_before)
        moved.append(((guided[k] - before) ** 2).sum((1, 2)))
    return guided, moved


def scales(guided: Tensor, c: Tensor, u: Tensor) -> Tensor:
    return ((guided - u) * (c - u)).sum((1, 2)) / ((c - u) ** 2).sum((1, 2))


def test_no_other_scale_changes_the_prediction_less() -> None:
    """By search over scales, sample by sample, with the clamp out of the way."""
    rule = Polaris(1e6)
    guided, moved = changes(rule)
    torch.testing.assert_close(guided[0], BRANCHES[0][0])
    for k in (1, 2):
        (c, u), (c_before, u_before) = BRANCHES[k], BRANCHES[k - 1]
        w = scales(guided[k], c, u)
        free = w > 0  # at 0 it may be the clamp that is felt
        assert free.any()
        for w_other in torch.linspace(0, 5, 501, dtype=torch.float64):
            change = (u - u_before) + w_other * ((c - c_before) - (u - u_before))
            assert ((change**2).sum((1, 2)) >= moved[k - 1] * (1 - 1e-12)).all()


def test_the_scale_of_a_sample_is_its_own_and_is_clamped() -> None:
    guided, _ = changes(Polaris(0.5))
    for k in (1, 2):
        w = scales(guided[k], *BRANCHES[k])
        assert (w >= -1e-12).all() and (w <= 0.5 + 1e-12).all() and len(w.unique()) > 1
    rule, alone = Polaris(), []
    for b in range(4):
        rule.reset()
        alone.append([rule(c[b : b + 1], u[b : b + 1], STEP) for c, u in BRANCHES][-1])
    torch.testing.assert_close(torch.cat(alone), changes(rule)[0][-1])


def test_without_a_change_of_the_gap_the_scale_is_one() -> None:
    (c, u), rule = BRANCHES[0], Polaris()
    for _ in range(2):
        torch.testing.assert_close(rule(c, u, STEP), c)


def test_a_walk_begins_from_nothing_and_pays_for_both_branches() -> None:
    def field(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return torch.sin(3 * x + cond)

    x, cond, solver, rule = noise(7, 2, 5), noise(8, 2, 5), DDIM.stable_diffusion(6), Polaris()
    first, second = (
        sample(field, x, solver, ZSampling(), cond=cond, uncond=-cond, strong=3.0, weak=rule) for _ in range(2)
    )
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    plain = sample(field, x, solver, Standard(), cond=cond, uncond=-cond, strong=3.0)
    assert not torch.allclose(first, plain)
    assert rule.branches(STEP) == BOTH
    assert count_rows(ZSampling(), solver, 3.0, rule) == count_rows(ZSampling(), solver, 3.0, 2.0)


@pytest.mark.parametrize(
    ("most", "error"), [(0.0, ValueError), (-1.0, ValueError), ("2", TypeError), (1e999, ValueError)]
)
def test_a_bad_clamp_is_refused(most: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="most"):
        Polaris(most)
    with pytest.raises(ValueError, match="both branches"):
        Polaris()(None, BRANCHES[0][1], STEP)
