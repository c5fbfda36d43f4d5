"""A network of torch alone, so small that the processor takes longer to launch a layer than the GPU to run it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zigzag.sampling import Predictor
from zigzag.solvers import DDIM, Solver

__all__ = ["Plain", "build_plain"]


class Block(nn.Module):
    """Attention to itself and the prompt, and two layers, on tokens."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, h: Tensor) -> Tensor:
        """`(B, tokens, width)`."""
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.qkv(self.norm(h)).chunk(3, 2))
        h = h + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        out: Tensor = h + self.down(F.silu(self.up(self.norm_2(h))))
        return out


class Tokens(nn.Module):
    """A transformer on patches of two by two."""

    frequencies: Tensor

    def __init__(self, width: int = 128, *, depth: int) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(4, width, 2, stride=2), nn.ConvTranspose2d(width, 4, 2, stride=2)
        self.time = nn.Linear(width, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.register_buffer("frequencies", torch.exp(-torch.arange(width).float() / 16))

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """`x` `(B, 4, size, size)`, `t` `(B,)`, `cond` `(B, 8, width)`."""
        h = self.first(x)
        told = self.time(torch.cos(t.float()[:, None] * self.frequencies).to(x.dtype))
        tokens = torch.cat([h.flatten(2).mT + told[:, None], cond], 1)
        for block in self.blocks:
            tokens = block(tokens)
        out: Tensor = self.last(tokens[:, : -cond.shape[1]].mT.reshape(h.shape))
        return out


@dataclass(frozen=True)
class Plain:
    """The network with what `models.Network` has of one of diffusers."""

    module: Any
    size: int
    name: str = "plain"
    kind: str = "plain"

    def inputs(self, batch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Noise, `cond` and `uncond`: the same at every call."""
        random, like = torch.Generator().manual_seed(1), self.module.first.weight
        x = torch.randn(batch, 4, self.size, self.size, generator=random)
        cond, uncond = torch.randn(2, batch, 8, like.shape[0], generator=random)
        return x.to(like), cond.to(like), uncond.to(like)

    def predictor(self, module: Any = None) -> Predictor:
        """`eps_fn` over the module, or over another form of it."""
        fn: Predictor = self.module if module is None else module
        return fn

    def solver(self, steps: int) -> Solver:
        """On the times that the network is told."""
        return DDIM.stable_diffusion(steps)


def build_plain(
    size: int = 32, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32, depth: int = 16
) -> Plain:
    """The network with random weights, seeded."""
    torch.manual_seed(0)
    return Plain(Tokens(depth=depth).to(device, dtype).eval().requires_grad_(False), size)
