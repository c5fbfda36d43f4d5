"""Ancestral steps on predictions of ε, v, x₀ or the flow: DDIM's η, DDPM's variances, and the η of flows."""

from __future__ import annotations

import math

import torch

from zigzag.solvers.ddim import Variance, check_eta, check_variance, kept_and_added, large_noise
from zigzag.solvers.grids import Grid, Prediction
from zigzag.solvers.multistep import DataForm, DataStep

__all__ = ["Ancestral", "FlowAncestral"]


class Ancestral(DataForm):
    r"""`DDIM` with η, and `DDPM`, whatever the model predicts: what a step takes from the noise, it adds anew.

    .. math:: x_j = P\,x_i + Q\,m_i + s\,z, \qquad P = \sqrt{\sigma_j^2 - s^2}/\sigma_i, \qquad
              Q = \alpha_j - P\,\alpha_i

    .. math:: s = \eta\,\sigma_j\sqrt{1 - (k_j/k_i)^2}, \qquad k = \sigma/\alpha

    With η = 0 it is the first-order step without noise, with η = 1 that of `DPMSolver(order=1, sde=True)`, which is
    DDPM's with its small variance. The large one is `s² = σ_i² − (α_i/α_j)²σ_j²` beside the `P` and `Q` of η = 1, and
    nothing onto clean data.

    Args:
        alphas, sigmas, times, prediction: as in `DataForm`.
        eta: `η` in [0, 1].
        variance: "small" or "large", as in `DDPM`.
        fresh_noise: as in `Solver`.

    Raises:
        ValueError, TypeError: for an η outside [0, 1], another variance, a large one where η is not 1, and as in
            `DataForm`.

    Source: Song et al. 2020 (DDIM), eqs. 12 and 16; Ho et al. 2020 (DDPM), section 3.2.
    """

    def __init__(
        self,
        alphas: Grid,
        sigmas: Grid,
        times: Grid,
        *,
        prediction: Prediction = "epsilon",
        eta: float = 1.0,
        variance: Variance = "small",
        fresh_noise: bool = False,
    ) -> None:
        self.eta, self.variance, self.fresh_noise = check_eta(eta), check_variance(variance), fresh_noise
        if variance == "large" and eta != 1:
            raise ValueError(f"variance='large' is of eta = 1 only, got eta={eta:g}")
        super().__init__(alphas, sigmas, times, prediction=prediction)

    def __repr__(self) -> str:
        large = ", variance='large'" if self.variance == "large" else ""
        return f"{super().__repr__()[:-1]}, eta={self.eta:g}{large})"

    def data_step(self, i: int, j: int, remembered: tuple[int, ...]) -> DataStep:
        """`P`, `Q` and the noise `s`."""
        alphas, sigmas, _ = self.knots
        levels = alphas[i], sigmas[i], alphas[j], sigmas[j]
        left, s = kept_and_added(self.eta, *levels)
        P = left / sigmas[i]
        return DataStep(P, alphas[j] - P * alphas[i], noise=large_noise(*levels) if self.variance == "large" else s)


class FlowAncestral(DataForm):
    r"""Euler steps of a flow (`α + σ = 1`) with noise, at the share `η` that the samplers of flows call by this name.

    A step goes down to `σ↓`, below `σ_j`, and up again to `σ_j` by noise `z`:

    .. math:: \sigma_\downarrow = \sigma_j\,(1 + \eta\,(\sigma_j/\sigma_i - 1)), \qquad
              \ell = \frac{1 - \sigma_j}{1 - \sigma_\downarrow}\,\sigma_\downarrow

    .. math:: x_j = P\,x_i + Q\,m_i + \sqrt{\sigma_j^2 - \ell^2}\,z, \qquad P = \ell/\sigma_i, \qquad
              Q = \alpha_j - P\,\alpha_i

    With η = 0 it is `FlowEuler`. It is not DDIM's η (`Ancestral`), which removes another share of the noise.

    Args:
        alphas, sigmas, times, prediction: as in `DataForm`. eta: `η` in [0, 1]. fresh_noise: as in `Solver`.

    Raises:
        ValueError, TypeError: for an η outside [0, 1], a grid that is no flow's, and as in `DataForm`.

    Source: the ancestral Euler sampler for rectified flows of ComfyUI, by its equations, as is diffusers'
    `LTXEulerAncestralRFScheduler`; Lipman et al. 2023 (flow matching).
    """

    def __init__(
        self,
        alphas: Grid,
        sigmas: Grid,
        times: Grid,
        *,
        prediction: Prediction = "flow",
        eta: float = 1.0,
        fresh_noise: bool = False,
    ) -> None:
        self.eta, self.fresh_noise = check_eta(eta), fresh_noise
        super().__init__(alphas, sigmas, times, prediction=prediction)
        total = self.alphas + self.sigmas
        if not torch.allclose(total, torch.ones_like(total), rtol=0, atol=1e-6):
            raise ValueError(f"FlowAncestral is for a flow, alpha + sigma = 1, got {total.min():g} to {total.max():g}")

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, eta={self.eta:g})"

    def data_step(self, i: int, j: int, remembered: tuple[int, ...]) -> DataStep:
        """`P`, `Q` and the noise."""
        alphas, sigmas, _ = self.knots
        sigma_j = sigmas[j]
        down = sigma_j * (1 + self.eta * (sigma_j / sigmas[i] - 1))
        left = (1 - sigma_j) / (1 - down) * down
        P = left / sigmas[i]
        return DataStep(P, alphas[j] - P * alphas[i], noise=math.sqrt((sigma_j - left) * (sigma_j + left)))
