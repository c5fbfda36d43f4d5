"""What the tests of the loop on tables share: a batch, a model, how near two results must be, a watch for syncs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

X = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(2, 2, 3)
COND, UNCOND = torch.tensor([1.0, 0.5], dtype=torch.float64), torch.zeros(2, dtype=torch.float64)


def eps_fn(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
    """Contracting, so that rounding is not amplified on the way."""
    return 0.3 * torch.tanh(x) + 0.1 * torch.cos(t).reshape(-1, 1, 1) + 0.2 * cond.reshape(-1, 1, 1)


def other_fn(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
    return 0.9 * eps_fn(x, t, cond)


def generator(n: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(n)


def check_same(ours: Tensor, theirs: Tensor) -> None:
    """Equal to rounding: the coefficients are joined in float64 before they meet the latents, in place of after."""
    assert (ours - theirs).abs().max() <= 1e4 * torch.finfo(torch.float64).eps * (1 + theirs.abs().max())


class NoSync(TorchDispatchMode):
    """Forbids what makes the host wait for a device: reading a value, and shapes that depend on one."""

    FORBIDDEN = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique", "item")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.overloadpacket.__name__ not in self.FORBIDDEN, func
        if func is torch.ops.aten.index.Tensor:
            assert not any(k is not None and k.dtype == torch.bool for k in args[1]), "a mask is a nonzero in disguise"
        return func(*args, **(kwargs or {}))
