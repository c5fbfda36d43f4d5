"""Rows of a predictor over the ranks of a group: what each rank makes, and ends with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from support.devices import MODES
from support.ranks import failures
from zigzag import DDIM, Standard, ZSampling, sample
from zigzag.parallel import rows_over
from zigzag.solvers import adapt_prediction

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="needs torch.distributed")


def test_on_two_and_four_ranks() -> None:
    """The checks of on_ranks.py, in one start of their processes, of which the last rank is killed in the end."""
    found = failures(Path(__file__).with_name("on_ranks.py"), [2, 4])
    assert not found, "\n".join(f"{name}: {error}" for name, error in found.items())


def test_what_a_predictor_was_made_for_is_still_known(alone: Any) -> None:
    """And a solver that does not fit is refused."""
    solver = DDIM.stable_diffusion(4)
    split = rows_over(adapt_prediction(lambda x, t, c: x, solver, "v"), alone)
    x = torch.rand(1, 2)
    with pytest.raises(ValueError, match="eps_fn was made for"):
        sample(split, x, DDIM.stable_diffusion(4, spacing="trailing"), Standard(), cond=x, strong=1.0)
    assert sample(split, x, solver, Standard(), cond=x, strong=1.0).shape == x.shape


def test_a_predictor_of_another_shape_is_told(alone: Any) -> None:
    split, x = rows_over(lambda x, t, c: x[:, :1], alone), torch.rand(1, 2)
    with pytest.raises(ValueError, match="eps_fn must return the shape of x"):
        sample(split, x, DDIM.stable_diffusion(4), Standard(), cond=x, strong=1.0)


@pytest.mark.parametrize("mode", MODES)
def test_what_is_used_in_a_mode_leaves_nothing_of_it_behind(mode: str, alone: Any) -> None:
    x, solver = torch.rand(2, 3), DDIM.stable_diffusion(4)
    given: dict[str, Any] = {"cond": x, "uncond": 0 * x, "batched": False}

    def predict(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return torch.tanh(x) + 0.1 * cond

    wanted, split = sample(predict, x, solver, ZSampling(), **given), rows_over(predict, alone)
    with MODES[mode]():
        inside = sample(split, x, solver, ZSampling(), **given)
    assert torch.equal(inside.clone(), wanted)
    after = sample(split, x, solver, ZSampling(), **given)
    assert torch.equal(after, wanted) and not after.is_inference()
