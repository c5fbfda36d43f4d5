"""Rescaled CFG, against overexposure at large scales."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from zigzag.guidance.base import Scale, finite
from zigzag.guidance.cfg import CFG
from zigzag.solvers import StepInfo

__all__ = ["RescaledCFG"]


class RescaledCFG:
    r"""Classifier-free guidance brought back to the spread of the conditional prediction, by a share `φ`.

    .. math:: e = \varphi\,\frac{\mathrm{std}(e_c)}{\mathrm{std}(e_w)}\,e_w + (1 - \varphi)\,e_w

    `std` is taken per sample, over all dimensions but the first, unbiased. It needs the conditional branch also at
    `w = 0`, for its spread. Not linear in the gap: it has no matched scale.

    Args:
        scale: `w`, as in `CFG`.
        phi: `φ` in [0, 1]; 0 is `CFG`, the paper uses 0.7.

    Raises:
        TypeError, ValueError: for a scale as in `CFG`, a `φ` outside [0, 1]; when called, for samples of one element.

    Source: Lin et al. 2023, eqs. 14–16.
    """

    def __init__(self, scale: Scale | Callable[[StepInfo], Scale], phi: float = 0.7) -> None:
        self.cfg, self.phi = CFG(scale), finite("phi", phi)
        self.batch = self.cfg.batch
        if not 0 <= self.phi <= 1:
            raise ValueError(f"phi must lie in [0, 1], got {phi!r}")

    def __repr__(self) -> str:
        return f"RescaledCFG({self.cfg!r}, phi={self.phi:g})"

    def branches(self, step: StepInfo) -> tuple[bool, bool]:
        """`(cond, uncond)`: the conditional one always, unless `φ = 0`."""
        cond, uncond = self.cfg.branches(step)
        return cond or self.phi > 0, uncond

    def __call__(self, e_c: Tensor | None, e_u: Tensor | None, step: StepInfo) -> Tensor:
        """The guided prediction, in the shape of the branches."""
        e_w = self.cfg(e_c, e_u, step)
        if e_w is e_c or self.phi == 0:
            return e_w
        if e_c is None:
            raise ValueError("RescaledCFG needs the conditional branch for its spread, got None")
        if e_w[:1].numel() < 2:
            raise ValueError(f"RescaledCFG needs two elements a sample for a spread, got shape {tuple(e_w.shape)}")
        dims = tuple(range(1, e_w.ndim))
        s_c, s_w = e_c.std(dims, keepdim=True), e_w.std(dims, keepdim=True)
        ratio = torch.where(s_w > 0, s_c / s_w, 1)  # a constant prediction has no spread to bring back
        return e_w * (self.phi * ratio + (1 - self.phi))
