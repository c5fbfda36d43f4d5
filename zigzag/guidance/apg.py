"""Adaptive projected guidance, against the saturation of large scales."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from zigzag.guidance.base import Scale, State, finite, reading
from zigzag.guidance.cfg import CFG
from zigzag.solvers import StepInfo
from zigzag.solvers.affine import combine, flat, norms, per_sample

__all__ = ["APG"]


class APG:
    r"""Guidance along what is orthogonal to the conditional data, in x₀ space.

    With `m_c`, `m_∅` the data that the two branches say, at the state `x`:

    .. math:: \Delta \leftarrow (m_c - m_\varnothing) + \beta\,\Delta, \qquad
              \Delta' = \Delta\,\min(1, r/\lVert\Delta\rVert), \qquad
              \Delta_\parallel = \frac{\langle \Delta', m_c\rangle}{\langle m_c, m_c\rangle}\,m_c

    .. math:: m = m_c + (w - 1)\,\big(\Delta' - \Delta_\parallel + \eta\,\Delta_\parallel\big)

    said again as what the solver predicts. Norms and products are taken per sample. With `η = 1`, `β = 0` and no `r`
    it is `CFG`. Not linear in the gap: it has no matched scale, and is not captured. With a momentum it has state,
    which gathers over all evaluations of its role, at knots that a path comes back to as well.

    Args:
        scale: `w`, as in `CFG`; 1 is conditional, of one row.
        eta: `η`, the share of the parallel part that is kept.
        norm: `r`, what the norm of the update is clipped to; None for no clipping. (It goes with the size of the data:
            the paper has 15 for SDXL.)
        momentum: `β`, below 0 in the paper (−0.5 or −0.75).

    Raises:
        TypeError, ValueError: for a scale as in `CFG`, an `η` or `β` that is not finite, and an `r` not above 0.

    Source: Sadat et al. 2024 (APG, arXiv 2410.02416), Algorithm 1.
    """

    needs_state = True

    def __init__(
        self,
        scale: Scale | Callable[[StepInfo], Scale],
        eta: float = 0.0,
        norm: float | None = None,
        momentum: float = 0.0,
    ) -> None:
        self.cfg, self.eta, self.momentum = CFG(scale), finite("eta", eta), finite("momentum", momentum)
        self.batch = self.cfg.batch
        self.norm = None if norm is None else finite("norm", norm)
        if self.norm is not None and self.norm <= 0:
            raise ValueError(f"norm must be above 0, or None, got {norm!r}")
        self._before: Tensor | None = None
        if self.momentum:
            self.reset = self._forget  # without one there is no state, which inversions refuse

    def __repr__(self) -> str:
        clipped = "" if self.norm is None else f", norm={self.norm:g}"
        return f"APG({self.cfg!r}, eta={self.eta:g}{clipped}, momentum={self.momentum:g})"

    def _forget(self) -> None:
        """Forgets the updates so far."""
        self._before = None

    def branches(self, step: StepInfo) -> tuple[bool, bool]:
        """`(cond, uncond)`: the conditional one always, the other unless `w` is 1."""
        return True, self.cfg.branches(step) != (True, False)

    def __call__(self, e_c: Tensor | None, e_u: Tensor | None, step: StepInfo, state: State | None = None) -> Tensor:
        """The guided prediction, in the shape of the branches."""
        state = reading(self, state)
        if e_c is None:
            raise ValueError("APG needs the conditional branch, got None")
        if e_u is None:
            return e_c
        p, q = state.form("x0")
        m_c, delta = combine(p, state.x, q, e_c), q * (e_c - e_u)
        if self.momentum:
            delta = delta if self._before is None else delta + self.momentum * self._before
            self._before = delta.detach()
        if self.norm is not None:
            delta = per_sample(self.norm / norms(delta).clamp(min=self.norm), delta) * delta
        share = (flat(delta) * flat(m_c)).sum(1) / (flat(m_c) ** 2).sum(1)
        along = per_sample(share.nan_to_num(0.0), delta) * m_c  # data of 0 has no direction
        w = per_sample(self.cfg.at(step), e_c)
        return e_c + ((w - 1) / q) * (delta + (self.eta - 1) * along)
