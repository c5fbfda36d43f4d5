"""CFG++: Tweedie with the guided, renoising with the unconditional prediction."""

from __future__ import annotations

from torch import Tensor

from zigzag.guidance.base import finite
from zigzag.guidance.cfg import guided, needed
from zigzag.solvers import StepInfo

__all__ = ["CFGPlusPlus"]


class CFGPlusPlus:
    r"""CFG++ with interpolation `λ`, said as a scale of plain guidance at each step.

    Its definition for ε-predictions, with `ε_λ = ε_∅ + λ(ε_c − ε_∅)`:

    .. math:: \hat x_0 = (x_i - \sigma_i\,\varepsilon_\lambda)/\alpha_i, \qquad
              x_j = \alpha_j\,\hat x_0 + \sigma_j\,\varepsilon_\varnothing

    Collecting the gap `ε_c − ε_∅` in `x_j` gives plain guidance with the scale

    .. math:: w = \lambda\,\frac{\alpha_j\sigma_i}{\alpha_j\sigma_i - \alpha_i\sigma_j},

    the same in every parametrisation: at one state the gaps in ε, v and flow differ by a factor only. `w` is `λ` where
    the step ends on data (`σ_j = 0`), and grows as the step shrinks.

    Args:
        lam: `λ`, a finite number, usually in [0, 1].

    Raises:
        TypeError, ValueError: for a `λ` that is not a finite number.

    Source: Chung et al. 2024, Algorithm 2.
    """

    def __init__(self, lam: float) -> None:
        self.lam = finite("lam", lam)

    def __repr__(self) -> str:
        return f"CFGPlusPlus({self.lam:g})"

    def at(self, step: StepInfo) -> float:
        """The scale `w` at this step."""
        kept = step.alpha_j * step.sigma_i
        return self.lam * (kept / (kept - step.alpha_i * step.sigma_j))

    def branches(self, step: StepInfo) -> tuple[bool, bool]:
        """`(cond, uncond)`: both, unless `w` is 0 or 1."""
        return needed(self.at(step))

    def __call__(self, e_c: Tensor | None, e_u: Tensor | None, step: StepInfo) -> Tensor:
        """The guided prediction, in the shape of the branches."""
        return guided(e_c, e_u, self.at(step))
