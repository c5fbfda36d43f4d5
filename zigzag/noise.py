"""Noise like a state: from one generator, or one a sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from zigzag.held import Draw

__all__ = ["Generators", "noise_like", "noise_of"]

Generators: TypeAlias = "torch.Generator | Sequence[torch.Generator] | None"


def noise_of(generator: Generators) -> Draw:
    """The noise of a walk: every interval's, and every Renoise's, from one generator, or one a sample."""
    return lambda x, interval: noise_like(x, generator)


def noise_like(x: Tensor, generator: Generators) -> Tensor:
    """Standard normal noise like `x`, drawn where the generator is; by a list of them, each its own sample's."""
    if isinstance(generator, Sequence):
        return torch.stack([noise_like(sample, g) for sample, g in zip(x, generator, strict=True)])
    device = x.device if generator is None else generator.device
    return torch.randn(x.shape, generator=generator, device=device, dtype=x.dtype).to(x.device)
