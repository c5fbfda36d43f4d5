"""Rows counted ahead are the rows that run."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from zigzag import DDIM, EndToEnd, ImplicitZ, Resampling, Standard, Z2Sampling, ZSampling, sample
from zigzag.rows import count_rows

METHODS = [Standard(), Resampling(rounds=2), EndToEnd(), ZSampling(span=2, refine=1), ImplicitZ(), Z2Sampling(warmup=1)]


@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("scales", [(5.5, 0.0), (1.0, 0.0), (3.0, 2.0)])
def test_count_rows_is_what_a_real_walk_runs(method: Standard, scales: tuple[float, float]) -> None:
    ran = 0

    def eps_fn(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        nonlocal ran
        ran += len(x)
        return 0.1 * x + cond.reshape(-1, 1)

    x, (strong, weak) = torch.randn(1, 3), scales
    grid = DDIM.stable_diffusion(6)
    sample(eps_fn, x, grid, method, cond=torch.ones(1), uncond=torch.zeros(1), strong=strong, weak=weak)
    assert count_rows(method, 6, strong, weak) == ran
