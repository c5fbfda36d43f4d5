"""What the learned models take and give: states of images, levels of noise, and the scaling around a network."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from zigzag.solvers import DDIM
from zigzag.solvers.affine import wide

__all__ = ["DEVIATION", "noise_table", "preconditioning", "to_image", "to_state"]

# States have mean 0 and a deviation of a third. Things are so bright on so empty a ground that with unit variance they
# would still be seen at the last training time, where sampling starts from pure noise.
MEAN, SCALE, DEVIATION = 0.136, 0.5, 1 / 3


def to_state(images: Tensor) -> Tensor:
    """Images in [0, 1] as states of the models."""
    return (images - MEAN) / SCALE


def to_image(x: Tensor) -> Tensor:
    """States of the models as images, clipped to [0, 1]."""
    return (x * SCALE + MEAN).clamp(0, 1)


@cache
def noise_table(device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Stable Diffusion's α and σ by training time 0 to 999, `(1000,)` each, as `wide` as the device has; copied there
    once.
    """
    with torch.inference_mode(False):  # what is kept is ordinary, whatever mode it is first asked for in
        every, dtype = DDIM.stable_diffusion(1000, spacing="trailing", final_alpha_cumprod=1.0), wide(device)
        alphas, sigmas = (k[:-1].flip(0).to(dtype).to(device) for k in (every.alphas, every.sigmas))
        return alphas, sigmas


def preconditioning(sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""`(c_in, c_skip, c_out)` of a flow network: `u = c_skip·x + c_out·F(c_in·x)` at `x = (1 − σ)·x₀ + σ·ε`.

    .. math:: c_{in} = 1/\sqrt v, \quad c_{skip} = (\sigma - s^2(1 - \sigma))/v, \quad c_{out} = s/\sqrt v,
              \qquad v = s^2(1 - \sigma)^2 + \sigma^2

    with s the deviation of x₀. So F has input and target of unit variance, and the best linear guess of u is not its to
    learn: near σ = 1 it predicts −x₀/s, where u itself is nearly all noise, which a narrow transformer copies badly.
    Source: Karras et al. 2022, section 5, for `u = ε − x₀`.
    """
    v = (DEVIATION * (1 - sigma)) ** 2 + sigma**2
    return v.rsqrt(), (sigma - DEVIATION**2 * (1 - sigma)) / v, DEVIATION * v.rsqrt()
