"""POLARIS: the scale that keeps the guided prediction where it was at the step before."""

from __future__ import annotations

import torch
from torch import Tensor

from zigzag.guidance.base import finite
from zigzag.solvers import StepInfo
from zigzag.solvers.affine import flat, per_sample

__all__ = ["Polaris"]


class Polaris:
    r"""The scale at which the guided prediction changes least from one evaluation to the next, per sample.

    .. math:: w = \arg\min_w \lVert \Delta e_\varnothing + w\,(\Delta e_c - \Delta e_\varnothing)\rVert^2
                = \frac{\langle \Delta e_\varnothing,\; \Delta e_\varnothing - \Delta e_c\rangle}
                       {\lVert \Delta e_\varnothing - \Delta e_c\rVert^2},

    clamped to `[0, most]`, with `Δ` the difference to the branches at the evaluation before; 1 where there is none, or
    both branches changed alike. It was made for inversions, whose error is the change of the prediction over a step: in
    a zigzag it is a weak guidance. It needs both branches, also for an inversion, where a fixed scale of 0 or 1 needs
    one. Not linear in the gap (the scale depends on the state): it has no matched scale, and is not captured.

    Args:
        most: the largest scale, above 0; the paper's code has 15.

    Raises:
        TypeError, ValueError: for a `most` that is not a finite number above 0.

    Source: Chen et al. 2025, POLARIS (arXiv 2512.00369), and its released code; there one scale for the batch.
    """

    def __init__(self, most: float = 15.0) -> None:
        self.most = finite("most", most)
        if self.most <= 0:
            raise ValueError(f"most must be above 0, got {most!r}")
        self.reset()

    def __repr__(self) -> str:
        return "Polaris()" if self.most == 15 else f"Polaris({self.most:g})"

    def reset(self) -> None:
        """Forgets the evaluation before: the next scale is 1."""
        self._before: tuple[Tensor, Tensor] | None = None

    def branches(self, step: StepInfo) -> tuple[bool, bool]:
        """`(cond, uncond)`: both."""
        return True, True

    def __call__(self, e_c: Tensor | None, e_u: Tensor | None, step: StepInfo) -> Tensor:
        """The guided prediction, in the shape of the branches."""
        if e_c is None or e_u is None:
            raise ValueError(f"Polaris needs both branches, got {'no conditional' if e_c is None else 'one'}")
        before, self._before = self._before, (e_c.detach(), e_u.detach())
        if before is None:
            return e_c
        d_c, d_u = (flat(e.detach() - e_before) for e, e_before in zip((e_c, e_u), before, strict=True))
        w = (d_u * (d_u - d_c)).sum(1) / ((d_u - d_c) ** 2).sum(1)
        return e_u + per_sample(torch.nan_to_num(w, nan=1.0).clamp(0, self.most), e_u) * (e_c - e_u)
