"""What tests of an attached pipeline's roles share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor

from zigzag import ImplicitZ, Z2Sampling, ZSampling, count_rows
from zigzag.adapters.diffusers import attach

Tiny: TypeAlias = Callable[..., Any]
TOKENS = 5
METHODS = [ZSampling(steps=3, refine=1), ImplicitZ(steps=4), Z2Sampling(warmup=2)]


def named(method: Any) -> str:
    return type(method).__name__


def check_same(x: Tensor, y: Tensor) -> None:
    assert x.shape == y.shape and float((x - y).norm() / y.norm()) <= 1e-5


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def shaken(model: Any) -> Any:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def check_role(case: Any, method: Any, weak: Any, weak_cond: dict[str, Any], batch: int) -> None:
    """What the pipeline makes is what `zigzag.sample` makes with that condition, and another than without; rows too."""
    plain = case.run()
    with attach(case.pipe, method, weak=weak) as run, case.counted() as rows:
        x = case.run()
    check_same(x, case.sampled(method, weak=1.0, weak_cond=weak_cond))
    own = count_rows(method, case.solver(), strong=1.0, weak=1.0, own_weak=("cond",))
    assert run.rows == sum(rows) / batch == own
    with pytest.raises(AssertionError):  # the mutant that does nothing
        check_same(plain, x)
    assert torch.equal(case.run(), plain)
