"""Anderson's acceleration of a fixed-point iteration, for each sample of a batch its own."""

from __future__ import annotations

import math
from collections import deque

import torch
from torch import Tensor

from zigzag.solvers.affine import flat, norms, wide

__all__ = ["Anderson", "by_sample", "relative", "stretch"]


def by_sample(mask: Tensor, x: Tensor) -> Tensor:
    """A mask `(B,)` as it meets `x`."""
    return mask.reshape(-1, *[1] * (x.ndim - 1))


def relative(f: Tensor, g: Tensor) -> Tensor:
    """`‖f‖/‖g‖` by sample: `(B,)`, infinite where it is not a number."""
    return torch.nan_to_num(norms(f) / norms(g).clamp_min(torch.finfo(g.dtype).tiny), nan=math.inf)


def stretch(moved: Tensor, followed: Tensor, x: Tensor) -> Tensor:
    """`‖followed‖/‖moved‖` by sample, at most a map's Lipschitz constant; 0 where rounding of `x` would show."""
    far = norms(moved) > math.sqrt(torch.finfo(x.dtype).eps) * norms(x)
    ratio = norms(followed) / norms(moved)
    return torch.where(far & ratio.isfinite(), ratio, torch.zeros_like(ratio))


class Anderson:
    r"""The next iterate of `x = g(x)`, from the residuals `f = g(x) − x` of the latest ones.

    .. math:: x_{n+1} = x_n + \beta f_n - (\Delta X + \beta\,\Delta F)\,\gamma, \qquad
              \gamma = \arg\min \lVert f_n - \Delta F\,\gamma\rVert

    with the latest differences of iterates and residuals as the columns of `ΔX` and `ΔF`. Without memory it is the
    damped iteration `x + β·f`.

    Args:
        memory: how many differences it keeps. damping: `β`.

    Source: Anderson 1965; Walker & Ni 2011, eq. 2.2 and section 2.
    """

    def __init__(self, memory: int, damping: float) -> None:
        self.damping = damping
        self._differences: deque[tuple[Tensor, Tensor]] = deque(maxlen=memory)
        self._latest: tuple[Tensor, Tensor] | None = None

    def __call__(self, x: Tensor, f: Tensor) -> Tensor:
        """The iterate after `x`, both `(B, …)`."""
        if self._latest is not None and self._differences.maxlen:
            self._differences.append((x - self._latest[0], f - self._latest[1]))
        self._latest = x, f
        plain = x + self.damping * f
        if not self._differences:
            return plain
        X, F = (torch.stack([flat(pair[k]) for pair in self._differences], 2) for k in (0, 1))
        gamma = _least_squares(F, flat(f))
        turned = plain - ((X + self.damping * F) @ gamma[..., None]).reshape(x.shape)
        # A sample whose residuals ceased to be finite has no least squares.
        return torch.where(by_sample(torch.isfinite(norms(turned)), x), turned, plain)


def _least_squares(F: Tensor, f: Tensor) -> Tensor:
    """`γ` `(B, m)` by the normal equations, a little damped: the columns may be parallel. There is no host sync."""
    G, h = ((F.mT @ other).to(wide(F.device)) for other in (F, f[..., None]))
    G, h = torch.nan_to_num(G, posinf=0.0, neginf=0.0), torch.nan_to_num(h, posinf=0.0, neginf=0.0)
    scale = G.diagonal(dim1=1, dim2=2).sum(1).clamp_min(torch.finfo(F.dtype).tiny)[:, None, None]
    ridge = 1e-10 * torch.eye(G.shape[1], dtype=G.dtype, device=G.device)
    gamma: Tensor = torch.linalg.solve_ex(G / scale + ridge, h / scale)[0]
    return gamma[..., 0].to(F.dtype)
