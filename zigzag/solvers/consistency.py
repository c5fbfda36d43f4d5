"""Steps of distilled models: to the data, and back up by fresh noise (LCM), or part of the way (TCD)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from zigzag.solvers.between import below_knots
from zigzag.solvers.ddim import DDIM
from zigzag.solvers.grids import Grid, Prediction, grid, host
from zigzag.solvers.multistep import DataForm, DataStep
from zigzag.solvers.solver import Solver

__all__ = ["LCM", "TCD"]


class LCM(DataForm):
    r"""Multistep consistency sampling: the x₀ of a consistency function, noised to the next knot.

    .. math:: f = c_{skip}\,x_i + c_{out}\,m_i, \qquad x_j = \alpha_j\,f + \sigma_j\,z

    With `t' = timestep_scaling·t`: `c_skip = s²/(t'² + s²)`, `c_out = t'/√(t'² + s²)`, `s = sigma_data`. With
    `sigma_data = 0` the function is the prediction itself, as for a model that was not distilled, or TrigFlow's. The
    two add up to 1 where `t'` is 0 or large, as it is on training steps; between, as on times up to 1, the data would
    come out larger than they are (by up to a fifth).

    A step keeps almost nothing of its state but what the prediction says of it (`b/a ≈ −σ_i/α_i·…`), so that a shift
    of it is as large as the noise that is in it.

    Args:
        alphas, sigmas, times, prediction: as in `DataForm`; `times` are the time steps that the scaling multiplies.
        sigma_data, timestep_scaling: of the boundary condition; Latent Consistency Models take 0.5 and 10. By default
            `sigma_data` is that where the times are integers, training steps, and else 0.
        fresh_noise: as in `Solver`.

    Source: Luo et al. 2023 (LCM), Algorithm 3; Song et al. 2023 (consistency models), Algorithm 1.
    """

    def __init__(
        self,
        alphas: Grid,
        sigmas: Grid,
        times: Grid,
        *,
        prediction: Prediction = "epsilon",
        sigma_data: float | None = None,
        timestep_scaling: float = 10.0,
        fresh_noise: bool = False,
    ) -> None:
        if not (sigma_data is None or 0 <= sigma_data < math.inf) or not 0 < timestep_scaling < math.inf:
            got = f"sigma_data={sigma_data}, timestep_scaling={timestep_scaling}"
            raise ValueError(f"need sigma_data >= 0 and timestep_scaling > 0, both finite, got {got}")
        super().__init__(alphas, sigmas, times, prediction=prediction)
        if sigma_data is None:
            sigma_data = 0.0 if self.times.is_floating_point() else 0.5
        self.sigma_data, self.timestep_scaling, self.fresh_noise = sigma_data, timestep_scaling, fresh_noise

    def data_step(self, i: int, j: int, remembered: tuple[int, ...]) -> DataStep:
        """`P = α_j·c_skip`, `Q = α_j·c_out`, noise `σ_j`."""
        alphas, sigmas, times = self.knots
        t, s = times[i] * self.timestep_scaling, self.sigma_data
        c_skip, c_out = (s**2 / (t**2 + s**2), t / math.hypot(t, s)) if s else (0.0, 1.0)
        return DataStep(alphas[j] * c_skip, alphas[j] * c_out, noise=sigmas[j])


class TCD(DataForm):
    r"""Trajectory consistency: a DDIM step down to `s` below the next knot, and back up to it by noise.

    .. math:: x_s = \alpha_s\,m_i + \sigma_s\,\varepsilon, \qquad
              x_j = \frac{\alpha_j}{\alpha_s}x_s + \sqrt{\sigma_j^2 - (\alpha_j\sigma_s/\alpha_s)^2}\;z

    Args:
        alphas, sigmas, times, prediction: as in `DataForm`.
        inner_alphas, inner_sigmas: `(T,)`, the level `s` of the step that ends at knot `j = 1…T`; no noisier than it.
        fresh_noise: as in `Solver`.

    Raises:
        ValueError: for a level that is noisier than its knot, and as in `DataForm`.

    Source: Zheng et al. 2024 (TCD), Algorithm 2 (strategic stochastic sampling).
    """

    def __init__(
        self,
        alphas: Grid,
        sigmas: Grid,
        times: Grid,
        inner_alphas: Grid,
        inner_sigmas: Grid,
        *,
        prediction: Prediction = "epsilon",
        fresh_noise: bool = False,
    ) -> None:
        super().__init__(alphas, sigmas, times, prediction=prediction)
        inner = [host(values, torch.float64).tolist() for values in (inner_alphas, inner_sigmas)]
        if any(len(level) != len(self) for level in inner):
            raise ValueError(f"inner_alphas and inner_sigmas must have {len(self)} entries, one a step")
        self._inner = list(zip(*inner, strict=True))
        for j, (alpha_s, sigma_s) in enumerate(self._inner, start=1):
            if not (alpha_s > 0 and sigma_s >= 0 and self._noise(j) >= -1e-9):
                raise ValueError(
                    f"the inner level of the step to knot {j}, {alpha_s:g}/{sigma_s:g}, is noisier than it"
                )
        self.fresh_noise = fresh_noise

    @classmethod
    def from_alphas_cumprod(
        cls,
        alphas_cumprod: Grid,
        timesteps: Tensor | list[int],
        *,
        gamma: float = 0.3,
        final_alpha_cumprod: float | None = None,
        prediction: Prediction = "epsilon",
        fresh_noise: bool = False,
    ) -> TCD:
        r"""From a training table `ᾱ` and the time steps to visit; `s = ⌊(1 − γ)·t_j⌋`.

        Args:
            alphas_cumprod: `(N,)`. timesteps: `(T,)`, descending. prediction, fresh_noise: as above.
            gamma: the stochasticity in [0, 1]; 0 is `DDIM`, 1 goes all the way down to the first training time.
            final_alpha_cumprod: `ᾱ` of the last knot, by default `ᾱ_0`.

        Raises:
            ValueError: for a gamma outside [0, 1], and as `DDIM.from_alphas_cumprod`.
        """
        gamma, table = _share(gamma), grid("alphas_cumprod", alphas_cumprod)
        plain = DDIM.from_alphas_cumprod(
            table, timesteps, float(table[0] if final_alpha_cumprod is None else final_alpha_cumprod)
        )
        levels = _of_table(table, plain, gamma)
        return cls(plain.alphas, plain.sigmas, plain.times, *levels, prediction=prediction, fresh_noise=fresh_noise)

    @classmethod
    def on(cls, other: Solver, *, gamma: float = 0.3, **options: Any) -> TCD:
        """This solver on the knots, times and prediction of another; the levels `s` are those of `(1 − γ)·t_j`.

        They are the training table's, as in `from_alphas_cumprod`, where the grid is of one (`DDIM.stable_diffusion`);
        else the times must be in proportion to σ, σ/α or the angle, or those of `vp_grid` or `cosine_grid`. Options are
        the constructor's: `fresh_noise`.

        Raises:
            ValueError: for a gamma outside [0, 1], and for a grid that does not tell the levels between its knots.
        """
        if isinstance(other, DDIM) and other.alphas_cumprod is not None:
            levels = _of_table(other.alphas_cumprod, other, _share(gamma))
        else:
            levels = below_knots(other, _share(gamma), "TCD.on")
        return cls(other.alphas, other.sigmas, other.times, *levels, prediction=other.prediction, **options)

    def data_step(self, i: int, j: int, remembered: tuple[int, ...]) -> DataStep:
        """`P = (α_j/α_s)·σ_s/σ_i`, `Q = (α_j/α_s)·(α_s − σ_s·α_i/σ_i)`."""
        alphas, sigmas, _ = self.knots
        (alpha_s, sigma_s), up = self._inner[j - 1], alphas[j] / self._inner[j - 1][0]
        P, Q = sigma_s / sigmas[i], alpha_s - sigma_s * alphas[i] / sigmas[i]
        variance = self._noise(j)
        # At the level of the knot itself there is nothing to go up, but for rounding.
        return DataStep(up * P, up * Q, noise=math.sqrt(variance) if variance > 1e-14 * sigmas[j] ** 2 else 0.0)

    def _noise(self, j: int) -> float:
        """The variance of the way up."""
        alphas, sigmas, _ = self.knots
        alpha_s, sigma_s = self._inner[j - 1]
        return float(sigmas[j] ** 2 - (alphas[j] * sigma_s / alpha_s) ** 2)


def _of_table(table: Tensor, plain: Solver, gamma: float) -> tuple[Tensor, Tensor]:
    """The levels of `⌊(1 − γ)·t_j⌋` in a training table; for the last knot its own."""
    inner = [math.floor((1 - gamma) * t) for t in plain.times.tolist()[1:]]
    abar = torch.cat([table[inner], plain.alphas[-1:] ** 2])
    return abar.sqrt(), (1 - abar).sqrt()


def _share(gamma: float) -> float:
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma must lie in [0, 1], got {gamma!r}")
    return gamma
