"""A denoiser of k-diffusion, and one that guides it; and the same network as the kernel samples it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from zigzag import DDIM, sample
from zigzag.adapters.k_diffusion import sampler

B, T = 2, 5
SIGMAS = torch.tensor([14.6, 6.0, 2.5, 1.1, 0.4, 0.0], dtype=torch.float64)
X = 14.6 * torch.randn(B, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
COND, UNCOND = torch.tensor([[0.7], [1.1]]).double(), torch.tensor([[-0.4]]).double().expand(B, 1)


class Denoiser(nn.Module):
    """An external denoiser of ε, with its input scale and the calls that it got."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.calls = 0, []

    def get_scalings(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        return -sigma, 1 / (sigma**2 + 1).sqrt()

    def forward(self, x: Tensor, sigma: Tensor, cond: Tensor) -> Tensor:
        self.rows += len(x) // B
        self.calls.append(len(x) // B)
        out, scale = (k[:, None] for k in self.get_scalings(sigma))
        return x + out * (torch.sin(scale * x + cond) + 0.1 * torch.log1p(sigma)[:, None])


class Guided(nn.Module):
    """CFGDenoiser, in one doubled call by name or by place, or in two."""

    def __init__(self, how: str = "named", order: tuple[str, str] = ("uncond", "cond")) -> None:
        super().__init__()
        self.inner_model, self.how, self.order = Denoiser(), how, order

    def forward(self, x: Tensor, sigma: Tensor, uncond: Tensor, cond: Tensor, cond_scale: float, **more: Any) -> Tensor:
        each = {"uncond": uncond, "cond": cond}
        if self.how == "two calls":
            found = {name: self.inner_model(x, sigma, each[name]) for name in self.order}
        else:
            both = torch.cat([each[name] for name in self.order])
            asked = torch.cat([x] * 2), torch.cat([sigma] * 2)
            out = self.inner_model(*asked, both) if self.how == "placed" else self.inner_model(*asked, cond=both)
            found = dict(zip(self.order, out.chunk(2), strict=True))
        return found["uncond"] + cond_scale * (found["cond"] - found["uncond"])


def extra(**changes: Any) -> dict[str, Any]:
    return {"cond": COND, "uncond": UNCOND, "cond_scale": 4.0} | changes


def published(method: Any, weak: Any = 0.0, cfg: float = 4.0) -> Tensor:
    """`zigzag.sample` on the states that preserve variance, which is what the network is shown."""
    size, net = (SIGMAS**2 + 1).sqrt(), Denoiser()

    def eps_fn(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        x = x * (t[0] ** 2 + 1).sqrt()
        return (x - net(x, t, cond)) / t[:, None]

    solver = DDIM(1 / size, SIGMAS / size, SIGMAS[:-1])
    return sample(
        eps_fn, X / size[0], solver, method, cond=COND, uncond=UNCOND, strong=cfg, weak=weak, batched=False,
        generator=torch.Generator().manual_seed(1),
    )  # fmt: skip


def run(model: Callable[..., Tensor], method: Any, args: dict[str, Any] | None = None, **options: Any) -> Tensor:
    options = {"generator": torch.Generator().manual_seed(1), **options}
    return sampler(method, **options)(model, X, SIGMAS, extra_args=extra() if args is None else args, disable=True)
